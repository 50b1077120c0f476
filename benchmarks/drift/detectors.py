"""Change detectors side by side: ours and those of others, one class each.

Each watches several streams and answers, for a block of labels (n_streams, n), a statistic after
every label that is compared with a threshold. What the peers are given is the residual y − p, right
or wrong less the confidence: fed the plain errors they would also fire when the traffic gets
harder, which is no loss of calibration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from benchmarks.drift.running import RunningSums, of_bets
from benchmarks.drift.streams import Array, logit, tempered
from trueprob import CalibrationBets
from trueprob.scores.binned import N_BINS, bin_index


class Detector(Protocol):
    def statistics(self, p: Array, y: Array) -> Array: ...


class ShiryaevRoberts:
    """Ours: log10 M of `ChangeDetector`."""

    def __init__(self, n_streams: int, *, tolerance: float) -> None:
        bets = CalibrationBets(tolerance)
        self.running = RunningSums(of_bets(bets), bets.weights, n_streams)

    def statistics(self, p: Array, y: Array) -> Array:
        return np.log10(np.maximum(self.running.statistics(p, y), 1e-300))


class FixedStakes(ShiryaevRoberts):
    """The mixture before ours: five fixed stakes, both signs, all rows and five ranges."""

    def __init__(self, n_streams: int, *, tolerance: float) -> None:
        self.running = RunningSums(
            lambda p, y: fixed_stakes(p, y, tolerance),
            np.full(60, 1 / 60),
            n_streams,
            textbook=True,
        )


def fixed_stakes(p: Array, y: Array, tolerance: float) -> Array:
    in_range = np.searchsorted((0.5, 0.7, 0.85, 0.95), p, side="left") == np.arange(5)[:, None]
    factors = []
    for b in (0.05, 0.1, 0.2, 0.4, 0.8):
        up = 1.0 + np.minimum(4.0, b / (p + tolerance)) * (y - p - tolerance)
        down = 1.0 + np.minimum(4.0, b / (1.0 - p + tolerance)) * (p - y - tolerance)
        for e in (up, down):
            factors += [e[None], np.where(in_range, e, 1.0)]
    return np.concatenate(factors)


class OracleCusum:
    """Page's CUSUM of the log likelihood ratio against the exact change that occurs."""

    def __init__(self, n_streams: int, *, temperature: float = 1.5) -> None:
        self.truth, self.sums = tempered(temperature), np.zeros(n_streams)

    def statistics(self, p: Array, y: Array) -> Array:
        q = self.truth(p)
        steps = np.where(y, np.log(q / p), np.log((1.0 - q) / (1.0 - p)))
        found = np.empty(p.shape)
        for t in range(p.shape[1]):
            self.sums = np.maximum(self.sums + steps[:, t], 0.0)
            found[:, t] = self.sums
        return found


class Cusum:
    """Page's two-sided CUSUM of the residual, with an allowance of k per label."""

    def __init__(self, n_streams: int, *, k: float) -> None:
        self.k, self.sums = k, np.zeros((2, n_streams))

    def statistics(self, p: Array, y: Array) -> Array:
        residual = y - p
        found = np.empty(p.shape)
        for t in range(p.shape[1]):
            step = np.stack([residual[:, t], -residual[:, t]]) - self.k
            self.sums = np.maximum(self.sums + step, 0.0)
            found[:, t] = self.sums.max(axis=0)
        return found


class PageHinkley:
    """The statistic of river's PageHinkley (mode both), of the residual; checked by a test."""

    def __init__(self, n_streams: int, *, delta: float = 0.005, alpha: float = 0.9999) -> None:
        self.delta, self.alpha, self.n = delta, alpha, 0
        self.mean, self.up, self.down = (np.zeros(n_streams) for _ in range(3))
        self.low, self.high = np.full(n_streams, np.inf), np.full(n_streams, -np.inf)

    def statistics(self, p: Array, y: Array) -> Array:
        x = y - p
        found = np.empty(p.shape)
        for t in range(p.shape[1]):
            self.n += 1
            self.mean += (x[:, t] - self.mean) / self.n
            deviation = x[:, t] - self.mean
            self.up = self.alpha * self.up + deviation - self.delta
            self.down = self.alpha * self.down + deviation + self.delta
            self.low = np.minimum(self.low, self.up)
            self.high = np.maximum(self.high, self.down)
            found[:, t] = np.maximum(self.up - self.low, self.high - self.down)
        return found


class Windowed:
    """A statistic of the last labels; none until the window is full."""

    def __init__(self, n_streams: int, *, window: int) -> None:
        self.window = window
        self.p, self.y = np.empty((n_streams, 0)), np.empty((n_streams, 0))

    def statistics(self, p: Array, y: Array) -> Array:
        self.p = np.concatenate([self.p, p], axis=1)
        self.y = np.concatenate([self.y, y], axis=1)
        found = self.of_columns(self.p, self.y.astype(np.float64))[:, -p.shape[1] :]
        missing = max(self.window - 1 - (self.p.shape[1] - p.shape[1]), 0)
        found[:, :missing] = -np.inf
        self.p, self.y = self.p[:, -self.window :], self.y[:, -self.window :]
        return found

    def of_columns(self, p: Array, y: Array) -> Array:
        raise NotImplementedError

    def moving_sum(self, values: Array) -> Array:
        total = np.cumsum(values, axis=1)
        total[:, self.window :] -= total[:, : -self.window].copy()
        return total


class WindowedEce(Windowed):
    """ECE of the last labels, 15 bins."""

    def of_columns(self, p: Array, y: Array) -> Array:
        which = bin_index(p.ravel()).reshape(p.shape)
        error = p - y
        sums = [np.abs(self.moving_sum(np.where(which == b, error, 0.0))) for b in range(N_BINS)]
        return np.sum(sums, axis=0) / self.window


class TwoSample(Windowed):
    """Welch's t of the residuals of the last labels against the first ones."""

    def __init__(self, n_streams: int, *, window: int, reference: int = 2_000) -> None:
        super().__init__(n_streams, window=window)
        self.size, self.reference = reference, np.empty((n_streams, 0))

    def statistics(self, p: Array, y: Array) -> Array:
        missing = self.size - self.reference.shape[1]
        if missing > 0:
            self.reference = np.concatenate([self.reference, (y - p)[:, :missing]], axis=1)
            super().statistics(p, y)
            return np.full(p.shape, -np.inf)
        return super().statistics(p, y)

    def of_columns(self, p: Array, y: Array) -> Array:
        first = self.reference
        x = y - p
        mean = self.moving_sum(x) / self.window
        variance = np.maximum(self.moving_sum(x * x) / self.window - mean**2, 1e-9)
        noise = variance / self.window + first.var(axis=1, keepdims=True) / self.size
        return np.asarray(np.abs(mean - first.mean(axis=1, keepdims=True)) / np.sqrt(noise))


class Spiegelhalter(Windowed):
    """|Σ(y − p)(1 − 2p)| over its standard deviation in the last labels."""

    def of_columns(self, p: Array, y: Array) -> Array:
        total = self.moving_sum((y - p) * (1.0 - 2.0 * p))
        return np.asarray(
            np.abs(total) / np.sqrt(self.moving_sum(((1 - 2 * p) ** 2) * p * (1 - p)) + 1e-9)
        )


def river_adwin(residuals: Array, delta: float, *, clock: int = 1) -> list[list[int]]:
    """Labels after which river's ADWIN has detected a change, for each stream."""
    from river.drift import ADWIN

    found = []
    for stream in residuals:
        detector, alarms = ADWIN(delta=delta, clock=clock), []
        for t, x in enumerate(stream.tolist()):
            detector.update(x)
            if detector.drift_detected:
                alarms.append(t + 1)
        found.append(alarms)
    return found


DETECTORS: dict[str, Callable[[int], Detector]] = {
    "**Trueprob, tolerance 0**": lambda n: ShiryaevRoberts(n, tolerance=0.0),
    "fixed stakes (60 bets), tolerance 0": lambda n: FixedStakes(n, tolerance=0.0),
    "windowed ECE, 500 labels": lambda n: WindowedEce(n, window=500),
    "windowed ECE, 1 000": lambda n: WindowedEce(n, window=1_000),
    "windowed ECE, 2 000": lambda n: WindowedEce(n, window=2_000),
    "CUSUM, allowance 0.01": lambda n: Cusum(n, k=0.01),
    "CUSUM, allowance 0.025": lambda n: Cusum(n, k=0.025),
    "CUSUM, allowance 0.05": lambda n: Cusum(n, k=0.05),
    "Page–Hinkley (river), δ 0.005": lambda n: PageHinkley(n),
    "Page–Hinkley (river), δ 0.025": lambda n: PageHinkley(n, delta=0.025),
    "two-sample t, last 500": lambda n: TwoSample(n, window=500),
    "two-sample t, last 1 000": lambda n: TwoSample(n, window=1_000),
    "Spiegelhalter's z, last 500": lambda n: Spiegelhalter(n, window=500),
    "*oracle: CUSUM that knows temperature 1.5*": lambda n: OracleCusum(n),
}


def residual(p: Array, y: Array) -> Array:
    return y - p


__all__ = ["DETECTORS", "Detector", "logit", "residual", "river_adwin"]
