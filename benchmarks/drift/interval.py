"""Interval of the error: how often it misses, and labels until a verdict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.calibration.report import percent, table
from benchmarks.drift.classes import CALIBRATED, OPPOSITE, TEMPERATURE, Stream, Watch, median
from benchmarks.drift.streams import Array, sigmoid, tempered
from trueprob import CalibrationBets
from trueprob.drift import ErrorInterval, ErrorSums, LiveVerdict, VerdictState, live_verdict

INTERVAL, BETS = ErrorInterval(0.01), CalibrationBets(0.02, 0.05)  # defaults of the service
RUN_LENGTH = 100_000.0
LOOK, COPIES = 100, 4

Moved = Callable[[Array, float, float], Array]  # P(right), time in 0 … 1, last mean of y − p
Reached = Callable[[LiveVerdict, ErrorSums], bool]

STILL: Moved = lambda q, *_: q  # noqa: E731
DRIFT: Moved = lambda q, t, _: tempered(0.6 + 1.4 * t)(q)  # noqa: E731
ANSWER: Moved = lambda q, _, last: np.clip(q - 0.1 * np.sign(last), 0.0, 1.0)  # noqa: E731
COVERED: tuple[tuple[str, Stream, Moved, int], ...] = (
    ("calibrated, k = 10", CALIBRATED, STILL, 1),
    ("opposite classes, k = 2", OPPOSITE, STILL, 1),
    ("temperature from 0.6 to 2, k = 10", CALIBRATED, DRIFT, 1),
    (f"the same in groups of {COPIES} labels", CALIBRATED, DRIFT, COPIES),
    ("10 points against the error of the last 100, k = 2", Stream(2), ANSWER, 1),
)


def misses(stream: Stream, moved: Moved, copies: int, seed: int, n_labels: int) -> list[bool]:
    """Whether the intervals of the error and of the class error ever miss."""
    generator, sums, true = np.random.default_rng(seed), ErrorSums(), ErrorSums()
    missed, last = [False, False], 0.0
    for start in range(0, n_labels, LOOK):
        p, q, classes = stream.drawn(generator, LOOK)
        q = moved(q, start / n_labels, last)
        y = (generator.random(LOOK) < q).astype(np.float64)
        last = float((y - p).mean())
        p, q, y, classes, groups = (
            np.repeat(x, copies) for x in (p, q, y, classes, np.arange(LOOK))
        )
        if copies > 1:  # of one outcome, with other confidences
            p = np.clip(p + generator.normal(0.0, 0.05, p.shape), 0.0, 1.0)
        given = {"prediction": classes, "n_classes": stream.k, "groups": groups}
        sums, true = sums + ErrorSums.of(p, y, **given), true + ErrorSums.of(p, q, **given)
        _, confidence, right, _ = true.classes.arrays()[1].T
        errors = np.abs(true.gaps).sum() / true.n, np.abs(right - confidence).sum() / true.n
        bounds = INTERVAL.bounds(sums), INTERVAL.class_bounds(sums)
        for i, (low, high) in enumerate(bounds):
            missed[i] |= not low <= errors[i] <= high
    return missed


def of_spread(spread: float) -> Stream:
    """Calibrated confidences sigmoid(N(μ, sd 0.8)) with this mean of p (1 − p)."""
    normal = np.random.default_rng(0).normal(size=20_000)
    low, high = 0.0, 6.0
    for _ in range(40):
        mean = 0.5 * (low + high)
        p = sigmoid(mean + 0.8 * normal)
        low, high = (mean, high) if float((p * (1.0 - p)).mean()) > spread else (low, mean)
    return Stream(10, draw=lambda generator, n: sigmoid(generator.normal(low, 0.8, n)))


def labels_to(reached: Reached, stream: Stream, rows: int, seed: int, n_labels: int) -> float:
    """Labels until the verdict that the service states; infinite if it never comes."""
    generator, watch = np.random.default_rng(seed), Watch(BETS, stream.k, RUN_LENGTH)
    sums, since, off = ErrorSums(), None, False
    while watch.n < n_labels:
        p, q, classes = stream.drawn(generator, rows)
        y = generator.random(rows) < q
        watch.count(p, y, classes)
        new = ErrorSums.of(p, y, prediction=classes, n_classes=stream.k)
        sums, since = sums + new, None if since is None else since + new
        evidence = watch.statistics[0]
        joined = INTERVAL.joined_log10(evidence.log10(watch.states[0]), sums, BETS.tolerance)
        off |= joined >= evidence.threshold_log10
        if since is None and np.isfinite(watch.first[1]):
            since = ErrorSums()
        verdict = live_verdict(
            INTERVAL,
            since_promotion=sums,
            since_change=since,
            tolerance=BETS.tolerance,
            class_tolerance=BETS.class_tolerance,
            evidence_alarm=off,
            change_alarm=since is not None,
        )
        if reached(verdict, sums):
            return float(watch.n)
    return np.inf


WITHIN: Reached = lambda v, _: v.state is VerdictState.WITHIN_TOLERANCE  # noqa: E731
OFF: Reached = lambda v, _: v.state is VerdictState.OFF  # noqa: E731
CLASSES: Reached = lambda _, sums: INTERVAL.class_bounds(sums)[1] <= 0.05  # noqa: E731
SPREADS = (0.04, 0.08, 0.16, 0.21)
VERDICTS: tuple[tuple[str, Reached, Stream, int], ...] = (
    *((f"`within_tolerance`: calibrated, V/n = {v}", WITHIN, of_spread(v), 250) for v in SPREADS),
    ("`off`: temperature 1.5, k = 10", OFF, TEMPERATURE, 50),
    ("`off`: 10 points off in opposite directions, k = 2", OFF, OPPOSITE, 50),
    *(
        (f"class error at most 5 %: calibrated, k = {k}", CLASSES, Stream(k), 250)
        for k in (10, 100)
    ),
)


def interval_report(*, small: bool = False) -> str:
    from scipy.stats import beta

    n_streams, n_labels, runs, longest = (6, 500, 6, 3_000) if small else (400, 5_000, 100, 60_000)
    covered = []
    for name, *kind in COVERED:
        found = [misses(*kind, seed, n_labels) for seed in range(n_streams)]
        missed = np.sum(found, axis=0)
        limits = beta.ppf(0.95, missed + 1, n_streams - missed)
        cells = [[str(m), percent(limit)] for m, limit in zip(missed, limits, strict=True)]
        covered.append([name, *cells[0], *cells[1]])
    verdicts = [
        [name, median(np.array([labels_to(*kind, seed, longest) for seed in range(runs)]))]
        for name, *kind in VERDICTS
    ]
    header = ["stream", "error: misses", "P(miss) below, %", "class error: misses",
              "P(miss) below, %"]  # fmt: skip
    return (
        f"Streams whose true error the interval ever misses, of {n_streams}; {n_labels} labels or "
        f"groups each, looked at every {LOOK}. α = {INTERVAL.alpha} allows "
        f"{n_streams * INTERVAL.alpha:g} on average. Below: one-sided 95 % limit (binomial).\n\n"
        + table(header, covered)
        + f"\n\nMedian labels to the verdict of {runs} streams, with the 95 % interval of a "
        f"bootstrap; `never`: not within {longest} in half of them. Tolerance {BETS.tolerance}, "
        f"{BETS.class_tolerance} for a class, A = {RUN_LENGTH:.0f}; requests of 50 for `off`, 250 "
        "for the others. Confidences for each V/n: sigmoid(N(μ, sd 0.8)), k = 10.\n\n"
        + table(["verdict: stream", "labels"], verdicts)
    )
