"""Time that one label takes, without bets on classes and with them."""

from __future__ import annotations

import json
import time

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.drift.streams import confidences
from trueprob import CalibrationBets, ChangeDetector, Evidence

KINDS = ((CalibrationBets(), 10), (CalibrationBets(0.02, 0.05), 10),
         (CalibrationBets(0.02, 0.05), 1_000))  # fmt: skip


def cost_report(*, small: bool = False) -> str:
    """The shortest of several repeats, the one least disturbed by others; kinds in turn."""
    repeats = 5 if small else 300
    generator = np.random.default_rng(0)
    rows = []
    for n in (1, 50, 1_000):
        statistics = [(Evidence(bets), ChangeDetector(bets)) for bets, _ in KINDS]
        states = [(evidence.start(), change.start()) for evidence, change in statistics]
        best = [np.inf] * len(KINDS)
        for _ in range(repeats):
            p = confidences(generator, n)
            y = generator.random(n) < p
            order, groups = generator.integers(0, 2**63, n), generator.integers(0, 2**63, n)
            for i, (bets, k) in enumerate(KINDS):
                classes = {"prediction": generator.integers(0, k, n), "n_classes": k}
                given = classes if bets.on_classes else {}
                start = time.thread_time()
                factors = bets.factors(p, y, order=order, groups=groups, **given)
                states[i] = tuple(
                    statistic.update(state, factors)
                    for statistic, state in zip(statistics[i], states[i], strict=True)
                )
                best[i] = min(best[i], time.thread_time() - start)
        rows.append([f"{n}", *(f"{1e6 * seconds / n:.2f}" for seconds in best)])
    sizes = [sum(len(json.dumps(each.to_dict())) for each in pair) for pair in states]
    header = ["µs of CPU a label, labels a request", "without classes", "10 classes",
              "1 000 classes"]  # fmt: skip
    return (
        table(header, rows)
        + f"\n\nBoth statistics, ordered by keys and grouped; shortest of {repeats} repeats, in "
        "turn. Both states together are "
        + ", ".join(str(size) for size in sizes)
        + " bytes of JSON, however many labels they have seen."
    )
