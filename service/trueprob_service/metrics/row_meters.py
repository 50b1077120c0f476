"""Measures answered rows: histograms of logit gap, temperature and confidence, and recent traffic.

A request only appends its arrays to a queue. They are added to the histograms when these are read,
and after every few hundred answers. This module does not depend on the metrics library.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.drift import UnlabelledTraffic
from trueprob_service.metrics.catalogue import METRICS
from trueprob_service.metrics.recent_traffic import RecentTraffic

__all__ = ["SAMPLED_ROWS", "DeploymentMeters", "RecentRows", "RowHistogram"]

# Limits of the queue. They bound the memory of a process that is not scraped.
_PENDING_ANSWERS: Final = 256
_PENDING_ROWS: Final = 1 << 16  # approximate: threads may miss a few rows
# Number of rows of an answer that are sampled, for the entropy and as recent rows. A mean needs no
# more, and 4096 × 1000 logarithms would cost more than the softmax.
SAMPLED_ROWS: Final = 16
_FEW_ROWS: Final = 500  # that are compared with all bounds at once
# Size of the sample of recent rows: as many rows as fit, 512 for up to 256 classes.
_RECENT_ROWS: Final = 512
_RECENT_ELEMENTS: Final = 1 << 17
_TINY: Final = np.finfo(np.float32).tiny


class RowHistogram:
    """A histogram of whole arrays. It has one bucket more than bounds, for +Inf."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = np.array(bounds, np.float64)
        # For float32 values, a bound and the largest float32 below it select the same values.
        self._bounds32 = np.array([_largest_float32(bound) for bound in bounds])
        self._names = [*(repr(float(bound)) for bound in bounds), "+Inf"]
        self._cumulative = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0

    def add(self, values: NDArray[np.floating[Any]]) -> None:
        """Count values of shape (n,)."""
        bounds = self._bounds32 if values.dtype == np.float32 else self._bounds
        if values.size <= _FEW_ROWS:
            below = (values <= bounds[:, np.newaxis]).sum(axis=1)
        else:  # with each bound by itself: a third of the time that np.searchsorted takes
            below = np.array([np.count_nonzero(values <= bound) for bound in bounds])
        self._cumulative += np.append(below, values.size)  # at once, for who reads meanwhile
        self._sum += float(values.sum(dtype=np.float64))

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds as Prometheus writes them, with the cumulative counts."""
        return list(zip(self._names, self._cumulative.astype(float).tolist(), strict=True))

    @property
    def sum(self) -> float:
        """Sum of all values."""
        return self._sum


class RecentRows:
    """The newest logits of one version, sampled; a promotion does not empty it."""

    def __init__(self) -> None:
        self.logits: NDArray[np.float32] | None = None

    def add(self, samples: Sequence[NDArray[np.float32]]) -> None:
        """Add rows in the order of arrival; of two threads, one may lose its rows."""
        k = samples[-1].shape[1]
        size = max(1, min(_RECENT_ROWS, _RECENT_ELEMENTS // k))
        newest: list[NDArray[np.float32]] = []
        missing = size
        for rows in (*reversed(samples), *(() if self.logits is None else (self.logits,))):
            if missing > 0 and rows.shape[1] == k:
                newest.append(rows[-missing:])
                missing -= len(rows)
        self.logits = np.concatenate(newest[::-1])


class DeploymentMeters:
    """Row metrics of one (model, version, calibrator).

    `observe` only appends to a thread-safe queue; `fold` takes a lock.
    """

    def __init__(
        self,
        recent: RecentTraffic | None = None,
        rows: RecentRows | None = None,  # shared by the calibrators of a version
    ) -> None:
        self.predictions = 0
        self.gap = RowHistogram(METRICS["logit_gap"].buckets)
        self.temperature = RowHistogram(METRICS["temperature"].buckets)
        self.confidence = RowHistogram(METRICS["confidence"].buckets)
        self.recent = RecentTraffic() if recent is None else recent
        self._rows = RecentRows() if rows is None else rows
        self._folding = threading.Lock()
        self._pending_rows = 0
        self._pending: deque[tuple[Any, NDArray[Any] | None, Any, Any, Any]] = deque()

    def observe(
        self,
        logit_gap: NDArray[np.float32],  # (n,), nats
        temperature: NDArray[np.float64] | None,  # (n,); None for methods without one
        confidence: NDArray[np.float32],  # (n,)
        probabilities: NDArray[np.float32],  # (n, k)
        logits: NDArray[np.float32],  # (n, k)
    ) -> None:
        """Count the rows of one answer."""
        step = -(-len(confidence) // SAMPLED_ROWS)
        sample, rows = probabilities[::step].copy(), logits[::step].copy()
        self._pending.append((logit_gap, temperature, confidence, sample, rows))
        self._pending_rows += len(confidence)
        if len(self._pending) >= _PENDING_ANSWERS or self._pending_rows >= _PENDING_ROWS:
            self.fold()

    def fold(self) -> None:
        """Add the queued answers to the histograms and to the recent traffic."""
        with self._folding:
            answers = [self._pending.popleft() for _ in range(len(self._pending))]
            self._pending_rows = 0
            if not answers:
                return
            # One pass over all answers, because each NumPy call has a cost.
            gaps, temperatures, confidences, samples, logits = zip(*answers, strict=True)
            self._rows.add(logits)
            gap = np.concatenate(gaps)
            self.gap.add(gap)
            known = [temperature for temperature in temperatures if temperature is not None]
            if known:
                self.temperature.add(np.concatenate(known))
            of_rows, sample = np.concatenate(confidences), np.concatenate(samples)
            self.confidence.add(of_rows)
            confidence = of_rows.astype(np.float64)
            self.predictions += len(confidence)
            logs = np.log(np.maximum(sample, _TINY))  # so that 0 · log 0 is 0
            entropy = -np.einsum("ij,ij->i", sample, logs).astype(np.float64)
            rows, sampled = (np.array([len(a) for a in each]) for each in (confidences, samples))
            # The sample of an answer stands for all of its rows.
            weighted = float((_sums(entropy, sampled) / sampled) @ rows)
            # Clipped, because rounding may give a confidence above 1.
            sums = UnlabelledTraffic.of(confidence.clip(0.0, 1.0))
            self.recent.add(gap, confidence, replace(sums, entropy=weighted, n_entropy=sums.n))

    def recent_logits(self) -> NDArray[np.float32] | None:
        """A sample of the version's recent rows, of shape (n, k); None without traffic."""
        self.fold()
        return self._rows.logits

    def forget_rows(self) -> None:
        """Drop the sample: the model was deleted."""
        self.fold()
        self._rows.logits = None


def _sums(values: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums of consecutive runs of `values` with these lengths, which are positive."""
    return np.add.reduceat(values, np.concatenate([[0], np.cumsum(counts)[:-1]]))


def _largest_float32(bound: float) -> np.float32:
    nearest = np.float32(bound)
    return nearest if float(nearest) <= bound else np.nextafter(nearest, np.float32(-np.inf))
