"""Calibrated streams: the share that raises a false alarm."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.calibration.sets import LogitSet
from benchmarks.drift.running import BLOCK, RunningSums, RunningWealth, of_bets
from benchmarks.drift.streams import Array, confidences
from trueprob import CalibrationBets, ChangeDetector, Evidence, fit

BETS = CalibrationBets(tolerance=0.0)
EVIDENCE = Evidence(BETS, alpha=0.01)
CHANGE = ChangeDetector(BETS, run_length=400_000)
ALLOWED = (7, 20)  # 200 streams: mean at most 2 and 10, and two to three standard deviations more
REQUEST_ROWS = (50, 1_000)
SORTED_ROWS = (50, 200, 1_000)
COPIES = 3

Draw = Callable[[np.random.Generator, tuple[int, int]], Array]
Alarms = tuple[int, int]  # streams with an alarm of evidence, of change


def after_every_label(draw: Draw, *, n_streams: int, n_labels: int, seed: int) -> Alarms:
    """Both statistics, read after each label."""
    generator = np.random.default_rng(seed)
    wealth = RunningWealth(of_bets(BETS), BETS.weights, n_streams)
    sums = RunningSums(of_bets(BETS), BETS.weights, n_streams)
    alarms = np.zeros((2, n_streams), dtype=bool)
    for _ in range(0, n_labels, BLOCK):
        p = draw(generator, (n_streams, BLOCK))
        y = generator.random(p.shape) < p
        alarms[0] |= (wealth.statistics(p, y) >= EVIDENCE.threshold_log10).any(axis=1)
        alarms[1] |= (sums.statistics(p, y) >= CHANGE.run_length).any(axis=1)
    return int(alarms[0].sum()), int(alarms[1].sum())


def by_requests(
    draw: Draw,
    *,
    n_streams: int,
    n_labels: int,
    rows: int,
    seed: int,
    hashed: bool = True,
    copies: int = 1,
    grouped: bool = True,
) -> Alarms:
    """Alarms for requests whose labels are sorted by outcome, right ones last."""
    generator = np.random.default_rng(seed)
    found = [0, 0]
    for _ in range(n_streams):
        states = [EVIDENCE.start(), CHANGE.start()]
        alarms = [False, False]
        for start in range(0, n_labels, rows):
            distinct = min(rows, n_labels - start) // copies
            p = np.repeat(draw(generator, (1, distinct))[0], copies)
            y = np.repeat(generator.random(distinct), copies) < p
            group = np.repeat(np.arange(distinct), copies)
            by_outcome = np.argsort(y, kind="stable")
            factors = BETS.factors(
                p[by_outcome],
                y[by_outcome],
                order=generator.integers(0, 2**63, p.shape[0]) if hashed else None,
                groups=group[by_outcome] if grouped and copies > 1 else None,
            )
            for index, statistic in enumerate((EVIDENCE, CHANGE)):
                states[index] = statistic.update(states[index], factors)
                alarms[index] |= statistic.alarm(states[index])
        found[0] += alarms[0]
        found[1] += alarms[1]
    return found[0], found[1]


def of_real_set(data: LogitSet) -> Draw:
    """Calibrated confidences of a real test half, drawn with replacement."""
    calibrator = fit(data.val_logits, data.val_labels).calibrator
    confidence = calibrator.predict_proba(data.test_logits).max(axis=1).astype(np.float64)
    return lambda generator, shape: generator.choice(np.minimum(confidence, 1.0), shape)


def promise_report(sets: Iterable[LogitSet], *, small: bool = False) -> str:
    n, n_labels = (20, 2_000) if small else (200, 20_000)
    size = {"n_streams": n, "n_labels": n_labels}
    rows: list[tuple[str, Alarms]] = [
        ("made, read after every label", after_every_label(confidences, **size, seed=1))
    ]
    for count in REQUEST_ROWS:
        alarms = by_requests(confidences, **size, rows=count, seed=count)
        rows.append((f"made, requests of {count} sorted by outcome, hashed order", alarms))
    alarms = by_requests(confidences, **size, rows=50, copies=COPIES, seed=3)
    rows.append((f"made, every outcome {COPIES} times under one group, requests of 50", alarms))
    for data in sets:
        seed = zlib.crc32(data.name.encode())
        alarms = after_every_label(of_real_set(data), **size, seed=seed)
        rows.append((f"{data.name}, read after every label", alarms))
    broken = [
        (
            f"requests of {count} sorted by outcome, the client's order",
            by_requests(confidences, **size, rows=count, hashed=False, seed=count),
        )
        for count in SORTED_ROWS
    ]
    alarms = by_requests(confidences, **size, rows=50, copies=COPIES, grouped=False, seed=3)
    broken.append((f"every outcome {COPIES} times, without groups", alarms))
    header = ["streams", "evidence α = 0.01", "change A = 400 000"]
    kept = sum(e <= ALLOWED[0] and c <= ALLOWED[1] for _, (e, c) in rows)
    return (
        f"How many of {n} streams raise an alarm; {n_labels} labels each, tolerance 0. The promise "
        f"allows {n * EVIDENCE.alpha:.0f} and {n * n_labels / CHANGE.run_length:.0f} on average."
        "\n\n"
        + table(header, [[name, str(e), str(c)] for name, (e, c) in rows])
        + f"\n\nAt most {ALLOWED[0]} and {ALLOWED[1]}: {kept} of {len(rows)} rows.\n\n"
        + "What the rules are for; each of these breaks the null:\n\n"
        + table(header, [[name, str(e), str(c)] for name, (e, c) in broken])
    )
