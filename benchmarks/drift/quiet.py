"""Alarms on a small error that needs none: a temperature 5 % off, over a million labels."""

from __future__ import annotations

import numpy as np

from benchmarks.calibration.report import percent, table
from benchmarks.drift.streams import confidences, tempered
from trueprob import BinnedCalibration, CalibrationBets, ChangeDetector, Evidence
from trueprob.drift import ErrorInterval, ErrorSums

TOLERANCES = (0.0, 0.01, 0.02)
INTERVAL = ErrorInterval()
ROWS = 1_000


def one_stream(temperature: float, *, n_labels: int, seed: int) -> tuple[list[list[str]], str]:
    """One table row per tolerance, and a sentence on the binned statistics."""
    generator = np.random.default_rng(seed)
    pairs = [(Evidence(b), ChangeDetector(b)) for b in map(CalibrationBets, TOLERANCES)]
    states = [(evidence.start(), change.start()) for evidence, change in pairs]
    peaks = np.full((len(TOLERANCES), 2), -np.inf)
    first = [0] * len(TOLERANCES)
    alarms = [0] * len(TOLERANCES)
    total, sums, proven = BinnedCalibration.zeros(), ErrorSums(), 0
    for start in range(0, n_labels, ROWS):
        p = confidences(generator, ROWS)
        y = generator.random(ROWS) < tempered(temperature)(p)
        total, sums = total.update(p, y), sums + ErrorSums.of(p, y)
        if not proven and INTERVAL.bounds(sums)[1] <= TOLERANCES[-1]:
            proven = start + ROWS
        for index, (evidence, change) in enumerate(pairs):
            factors = evidence.bets.factors(p, y)
            e = evidence.update(states[index][0], factors)
            m = change.update(states[index][1], factors)
            peaks[index] = np.maximum(peaks[index], [evidence.log10(e), change.log10(m)])
            if evidence.alarm(e) and not first[index]:
                first[index] = start + ROWS
            if change.alarm(m):
                alarms[index] += 1
                m = change.start()
            states[index] = (e, m)
    rows = []
    for index, tolerance in enumerate(TOLERANCES):
        passed = f"{first[index]}" if first[index] else "never"
        cells = [f"{peaks[index, 0]:.1f}", passed, f"{peaks[index, 1]:.1f}", str(alarms[index])]
        rows.append([f"{temperature:.3f}, tolerance {tolerance}", *cells])
    low, high = INTERVAL.bounds(sums)
    said = (
        f"Temperature {temperature:.3f}: ECE {percent(total.ece())} %, floor "
        f"{percent(total.ece_floor())} %, drift ratio {total.drift_ratio():.1f}; error "
        f"{percent(low)} to {percent(high)} %, proven to be within {percent(TOLERANCES[-1])} % "
        f"after {proven or 'more'} labels."
    )
    return rows, said


def quiet_report(*, small: bool = False) -> str:
    n_labels = 20_000 if small else 1_000_000
    rows, sentences = [], []
    for seed, temperature in enumerate((1.05, 1.0 / 1.05)):
        of_stream, said = one_stream(temperature, n_labels=n_labels, seed=seed)
        rows += of_stream
        sentences.append(said)
    header = [
        "temperature error",
        "evidence, highest log10",
        "passes 2 after labels",
        "change, highest log10",
        "alarms at A = 100 000",
    ]
    return (
        f"{n_labels} labels in requests of {ROWS}, read after each.\n\n"
        + table(header, rows)
        + "\n\n"
        + "\n".join(f"- {sentence}" for sentence in sentences)
    )
