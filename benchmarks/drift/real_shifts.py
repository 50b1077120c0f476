"""Which of the four statistics detects the shift of a real network, and after how many rows.

A stream draws rows with replacement, 2 000 as they are, then shifted ones. Of other people's
networks (calibrators fitted on the validation half, rows of the test half): classes made rare or
common by resampling, noise on the logits. Of our own networks: digits turned and noisy, CIFAR-10
corrupted. Evidence and change get every label, in requests of 100; PSI ratio and expected accuracy
look at the last 500 rows after each request, without labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from benchmarks.calibration.report import percent, table
from benchmarks.calibration.sets import LogitSet
from benchmarks.drift.networks import cifar10_cases, digits_cases
from benchmarks.drift.shift_cases import Rows, cases_of
from benchmarks.drift.streams import Array
from trueprob import (
    Baseline,
    BinnedCalibration,
    CalibrationBets,
    ChangeDetector,
    Evidence,
    ReferenceBins,
)

REQUEST, WINDOW, BEFORE = 100, 500, 2_000
PSI_LIMIT = 3.1  # once in a thousand looks without a shift
DEVIATIONS = 3.3  # of the mean confidence: once in a thousand
KINDS = ("PSI ratio", "expected accuracy", "evidence", "change")
SETS = ("agnews_gpt2zs", "cifar100_wrn16-4", "cifar10_resnet50_ce", "eurosat_resnet18rgb",
        "pathmnist_resnet50")  # fmt: skip


def first_sights(stream: Rows, baseline: Baseline) -> tuple[Array, Array]:
    """Rows until each of `KINDS` first signals: before the shift, and from the shift on."""
    bets = CalibrationBets()
    evidence, change = Evidence(bets), ChangeDetector(bets)
    bins = ReferenceBins.of_percentiles(baseline.gap_quantiles, baseline.n)
    reference = baseline.confidence_quantiles
    mean, spread = baseline.binned.mean_confidence(), float(np.var(reference))
    states = evidence.start(), change.start()
    sights = np.full((2, len(KINDS)), np.inf)
    for start in range(0, stream.gap.shape[0], REQUEST):
        rows, last = slice(start, start + REQUEST), slice(start + REQUEST - WINDOW, start + REQUEST)
        factors = bets.factors(stream.confidence[rows], stream.correct[rows])
        states = evidence.update(states[0], factors), change.update(states[1], factors)
        speak = [False, False, evidence.alarm(states[0]), change.alarm(states[1])]
        if start + REQUEST >= WINDOW:
            p = stream.confidence[last]
            noise = np.sqrt(np.var(p) / WINDOW + spread / baseline.n)
            speak[0] = bins.psi_ratio(bins.counts(stream.gap[last])) > PSI_LIMIT
            speak[1] = abs(float(p.mean()) - mean) > DEVIATIONS * noise
        part = int(start >= BEFORE)
        seen = np.array(speak) & np.isinf(sights[part])
        sights[part, seen] = start + REQUEST - part * BEFORE
        if speak[3]:
            states = states[0], change.start()
    return sights[0], sights[1]


def sight(found: Array) -> str:
    """Median over the runs, and the number of runs with a signal."""
    share = float(np.isfinite(found).mean())
    middle = float(np.median(found))
    if not np.isfinite(middle):
        return f"– ({100 * share:.0f} %)"
    return f"{middle:.0f}" + ("" if share == 1.0 else f" ({100 * share:.0f} %)")


def real_shifts_report(sets: Iterable[LogitSet], data: Path, *, small: bool = False) -> str:
    runs, after = (4, 1_000) if small else (40, 10_000)
    lines = []
    chosen = [each for each in sets if small or each.name in SETS]
    cases = [case for each in chosen for case in cases_of(each)]
    ours = list(cifar10_cases(data, small=small))
    for case in [*cases, *digits_cases(), *ours]:
        early, sights = [], []
        for run in range(runs):
            generator = np.random.default_rng(run)
            stream = case.calm.drawn(generator, BEFORE)
            before, later = first_sights(
                stream.then(case.shifted.drawn(generator, after)), case.baseline
            )
            early.append(np.isfinite(before))
            sights.append(later)
        binned = BinnedCalibration.of(case.shifted.confidence, case.shifted.correct)
        cells = [percent(binned.mean_confidence(), 1), percent(binned.accuracy(), 1)]
        cells += [percent(binned.ece(), 1)]
        cells += [sight(np.array(sights)[:, kind]) for kind in range(len(KINDS))]
        wolf = " / ".join(f"{100 * share:.0f}" for share in np.mean(early, axis=0))
        lines.append([case.name, *cells, wolf])
    header = ["set: shift", "expected accuracy %", "accuracy %", "ECE %", *KINDS,
              "spoke before the shift, % of runs"]  # fmt: skip
    return (
        f"{runs} runs. Median rows from the shift until each first speaks up, looked at every "
        f"{REQUEST} rows, up to {after}; in brackets the share of runs in which it does. Expected "
        "accuracy, accuracy and ECE are of the shifted rows. Tolerance 0.02, α = 0.01, "
        f"A = 100 000; PSI ratio above {PSI_LIMIT}; expected accuracy {DEVIATIONS} standard "
        "errors from the baseline's."
        + ("" if ours else " CIFAR-10 through our network is left out: no model or no pictures.")
        + "\n\n"
        + table(header, lines)
    )
