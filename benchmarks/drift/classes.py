"""Bets on single classes: delays with and without them, and false alarms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.drift.delay import number
from benchmarks.drift.promise import ALLOWED
from benchmarks.drift.streams import Array, confidences, tempered
from trueprob import CalibrationBets, ChangeDetector, Evidence

RUN_LENGTH, QUIET_RUN_LENGTH, ROWS = 20_000.0, 200_000.0, 50
CANCELLING = 0.9  # highest confidence where gaps of both signs are to cancel exactly


@dataclass(frozen=True)
class Stream:
    """Labels whose error depends on the predicted class."""

    k: int
    truth: Callable[[Array, Array], Array] = lambda p, _: p  # confidences, classes → P(right)
    highest: float = 1.0
    rare: float | None = None  # share of class 0; all classes are equally common without
    draw: Callable[[np.random.Generator, int], Array] = confidences

    def drawn(self, generator: np.random.Generator, n: int) -> tuple[Array, Array, Array]:
        """Confidences, true probabilities and predicted classes."""
        p = np.minimum(self.draw(generator, n), self.highest)
        classes = generator.integers(0, self.k, n)
        if self.rare is not None:
            others = generator.integers(1, self.k, n)
            classes = np.where(generator.random(n) < self.rare, 0, others)
        return p, self.truth(p, classes), classes


class Watch:
    """Evidence and change on labels, request by request."""

    def __init__(self, bets: CalibrationBets, k: int, run_length: float) -> None:
        self.bets, self.k, self.n = bets, k, 0
        self.statistics = Evidence(bets), ChangeDetector(bets, run_length)
        self.states = [each.start() for each in self.statistics]
        self.first = np.full(2, np.inf)  # labels until the first alarm of each
        self.blamed: int | None = None  # the class that the first alarm with a class names

    def count(self, p: Array, y: Array, classes: Array, order: Array | None = None) -> None:
        given = {"prediction": classes, "n_classes": self.k} if self.bets.on_classes else {}
        factors, self.n = self.bets.factors(p, y, order=order, **given), self.n + p.shape[0]
        for i, statistic in enumerate(self.statistics):
            self.states[i] = statistic.update(self.states[i], factors)
            if np.isinf(self.first[i]) and statistic.alarm(self.states[i]):
                self.first[i] = self.n
                if self.blamed is None and self.bets.on_classes:
                    self.blamed = statistic.worst_class(self.states[i])


def off_by(gap: float) -> Callable[[Array, Array], Array]:
    """Even classes over by this gap, odd ones under."""
    return lambda p, classes: p + gap * (2.0 * (classes % 2) - 1.0)


TEMPERATURE = Stream(10, lambda p, _: tempered(1.5)(p))
OPPOSITE = Stream(2, off_by(0.1), CANCELLING)
ALTERNATING = Stream(100, off_by(0.1), CANCELLING)
RARE = Stream(10, lambda p, c: np.where(c == 0, np.maximum(p - 0.5, 0.0), p), rare=0.01)
UNEVEN = Stream(10, lambda p, c: p + np.where(c < 7, -0.05, 0.05), CANCELLING)
CALIBRATED = Stream(10)
Kind = tuple[str, Stream, float, float]  # with tolerance and class tolerance
DELAYS: tuple[Kind, ...] = (
    ("temperature 1.5, k = 10", TEMPERATURE, 0.02, 0.02),
    ("temperature 1.5, k = 10", TEMPERATURE, 0.0, 0.0),
    ("10 points off in opposite directions, k = 2", OPPOSITE, 0.02, 0.05),
    ("10 points off in opposite directions, k = 2", OPPOSITE, 0.02, 0.02),
    ("a class of 1 % of rows 50 points over, k = 10", RARE, 0.02, 0.02),
    ("10 points off, alternating, k = 100", ALTERNATING, 0.02, 0.02),
)
NULLS: tuple[Kind, ...] = (
    *((f"calibrated, k = {k}", Stream(k), 0.0, 0.0) for k in (2, 10, 300)),
    ("all 2 points over, k = 10", Stream(10, lambda p, _: p - 0.02), 0.02, 0.02),
    ("5 points off, alternating, k = 10", Stream(10, off_by(0.05), CANCELLING), 0.02, 0.05),
    ("7 classes 5 points over, 3 under, k = 10", UNEVEN, 0.02, 0.05),
)


def first_alarms(
    stream: Stream,
    bets: CalibrationBets,
    seed: int,
    n_labels: int,
    run_length: float = RUN_LENGTH,
    sorted_rows: int | None = None,
    hashed: bool = True,
) -> Array:
    """Labels until the first alarms; in requests that are sorted by outcome, if they have rows."""
    generator, watch = np.random.default_rng(seed), Watch(bets, stream.k, run_length)
    rows = sorted_rows or ROWS
    while watch.n < n_labels and np.isinf(watch.first).any():
        p, q, classes = stream.drawn(generator, rows)
        y = generator.random(rows) < q
        order = generator.integers(0, 2**63, rows) if hashed else None
        by_outcome = np.argsort(y, kind="stable") if sorted_rows else slice(None)
        watch.count(p[by_outcome], y[by_outcome], classes[by_outcome], order)
    return watch.first


def median(values: Array) -> str:
    """The median, with the 95 % interval of a bootstrap over the runs."""
    drawn = np.random.default_rng(0).choice(values, (1_000, values.shape[0]))
    middles = np.quantile(drawn, 0.5, axis=1, method="higher")
    low, high = np.quantile(middles, (0.025, 0.975), method="higher")
    middle = number(float(np.quantile(values, 0.5, method="higher")))
    return middle if middle == "never" else f"{middle} [{number(low)}, {number(high)}]"


def classes_report(*, small: bool = False) -> str:
    runs, longest, quiet_labels = (6, 2_000, 1_000) if small else (200, 8_000, 10_000)
    delays = []
    for name, stream, tolerance, limit in DELAYS:
        found = [
            [first_alarms(stream, bets, seed, longest) for seed in range(runs)]
            for bets in (CalibrationBets(tolerance), CalibrationBets(tolerance, limit))
        ]
        cells = [
            median(np.array(found)[with_classes, :, i]) for i in (0, 1) for with_classes in (0, 1)
        ]
        delays.append([f"{name}; {tolerance}, {limit}", *cells])

    def alarms(
        name: str, stream: Stream, tolerance: float, limit: float, *how: object
    ) -> list[str]:
        bets = CalibrationBets(tolerance, limit)
        found = [
            first_alarms(stream, bets, 10_000 + seed, quiet_labels, QUIET_RUN_LENGTH, *how)
            for seed in range(runs)
        ]
        return [f"{name}; {tolerance}, {limit}", *map(str, np.isfinite(found).sum(axis=0))]

    by_outcome = "calibrated, k = 10, requests of 200 sorted by outcome"
    kept = [alarms(*kind) for kind in NULLS]
    kept.append(alarms(f"{by_outcome}, hashed order", CALIBRATED, 0.0, 0.0, 200))
    broken = alarms(f"{by_outcome}, the client's order", CALIBRATED, 0.0, 0.0, 200, False)
    within = sum(int(e) <= ALLOWED[0] and int(c) <= ALLOWED[1] for _, e, c in kept)
    header = ["stream; tolerance, class tolerance", "evidence without", "with",
              "change without", "with"]  # fmt: skip
    return (
        f"Median labels from the start to the alarm, without and with bets on classes; {runs} "
        f"runs, with the 95 % interval of a bootstrap; `never`: not within {longest} in half of "
        f"the runs. α = 0.01, A = {RUN_LENGTH:.0f}, requests of {ROWS}, read after each. Streams "
        f"with gaps of both signs have confidences of at most {CANCELLING}: the gaps cancel.\n\n"
        + table(header, delays)
        + f"\n\nHow many of {runs} streams within the tolerances raise an alarm, with bets on "
        f"classes; {quiet_labels} labels each, A = {QUIET_RUN_LENGTH:.0f}. The promise allows "
        f"{runs * 0.01:g} and {runs * quiet_labels / QUIET_RUN_LENGTH:g} on average. The last "
        "row breaks a rule.\n\n"
        + table([header[0], "evidence", "change"], [*kept, broken])
        + f"\n\nAt most {ALLOWED[0]} and {ALLOWED[1]}: {within} of the first {len(kept)} rows."
    )
