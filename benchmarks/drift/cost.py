"""Time that one label takes."""

from __future__ import annotations

import json
import time

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.drift.streams import confidences
from trueprob import CalibrationBets, ChangeDetector, Evidence


def cost_report(*, small: bool = False) -> str:
    """The shortest of several repeats, the one least disturbed by others."""
    repeats = 5 if small else 300
    bets = CalibrationBets()
    evidence, change = Evidence(bets), ChangeDetector(bets)
    generator = np.random.default_rng(0)
    rows = []
    for n in (1, 50, 1_000):
        p = confidences(generator, n)
        y = generator.random(n) < p
        order, groups = generator.integers(0, 2**63, n), generator.integers(0, 2**63, n)
        states = evidence.start(), change.start()
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            factors = bets.factors(p, y, order=order, groups=groups)
            states = evidence.update(states[0], factors), change.update(states[1], factors)
            seconds.append(time.perf_counter() - start)
        best = min(seconds)
        rows.append([f"{n}", f"{1e6 * best / n:.2f}", f"{1e6 * best:.0f}"])
    size = sum(len(json.dumps(state.to_dict())) for state in states)
    return (
        table(["labels a request", "µs a label", "µs a request"], rows)
        + f"\n\nBoth statistics, ordered by keys and grouped; shortest of {repeats} repeats. Both "
        f"states together are {size} bytes of JSON, however many labels they have seen."
    )
