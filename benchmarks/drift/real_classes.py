"""Classes of real networks that are off: after how many labels they show, and what a refit does.

The test half is streamed in random order through a `smart` fit of the validation half; our own
CIFAR-10 network has its own calibrator.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.calibration.report import percent, table
from benchmarks.calibration.sets import LogitSet
from benchmarks.drift.classes import ROWS, Watch
from benchmarks.drift.networks import cifar10_shifts, logits_of
from benchmarks.drift.shift_cases import Rows
from benchmarks.drift.streams import Array
from trueprob import CalibrationBets, Calibrator
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.fitting.methods import fit_rows

LIMITS = (None, 0.05, 0.03)  # class tolerances; None: no bets on classes
RUN_LENGTH = 100_000.0

Network = tuple[str, Calibrator, Array, Array]  # with logits and labels


def fitted(method: str, logits: Array, labels: Array) -> Calibrator:
    data = CalibrationSet.from_arrays({"logits": logits, "labels": labels})
    return fit_rows(method, data, allow_prediction_change=True).calibrator


def row_of(name: str, calibrator: Calibrator, logits: Array, labels: Array) -> list[str]:
    n = labels.shape[0]
    order = np.random.default_rng(0).permutation(n)
    logits, labels = logits[order], labels[order]
    rows, blamed, cells = Rows.of(calibrator, logits, labels), None, []
    for limit in LIMITS:
        watch = Watch(CalibrationBets(0.02, limit), logits.shape[1], RUN_LENGTH)
        for start in range(0, n, ROWS):
            request = slice(start, start + ROWS)
            watch.count(*(x[request] for x in (rows.confidence, rows.correct, rows.predicted)))
        first = watch.first.min()
        cells.append("–" if np.isinf(first) else f"{first:.0f}")
        blamed = watch.blamed if blamed is None else blamed
    if blamed is None:
        return [name, *cells, *["–"] * 4]
    early, late = slice(0, n // 2), slice(n // 2, n)
    again = [fitted(method, logits[early], labels[early]) for method in ("smart", "smart-vector")]
    for each in (calibrator, *again):
        rows = Rows.of(each, logits[late], labels[late])
        gap = (rows.confidence - rows.correct)[rows.predicted == blamed]
        cells.append(percent(float(gap.mean()) if gap.size else np.nan, 1))
    return [name, *cells[:3], str(blamed), *cells[3:]]


def networks(sets: Iterable[LogitSet], data: Path, *, small: bool) -> Iterator[Network]:
    for each in sets:
        calibrator = fitted("smart", each.val_logits, each.val_labels)
        yield each.name, calibrator, each.test_logits, each.test_labels
    ours = cifar10_shifts(data, small=small)
    if ours is not None:
        for name, pictures in {"none": ours.calm, **ours.shifted}.items():
            logits = logits_of(ours.version, pictures)
            yield f"{ours.title}: {name}", ours.version.calibrator(), logits, ours.labels


def real_classes_report(sets: Iterable[LogitSet], data: Path, *, small: bool = False) -> str:
    lines = [row_of(*each) for each in networks(sets, data, small=small)]
    header = ["set", "without classes", "t_c = 0.05", "t_c = 0.03", "class", "its gap",
              "`smart` again", "`smart-vector`"]  # fmt: skip
    return (
        "Labels until the first alarm, of evidence or change, without bets on classes and with a "
        "class tolerance t_c; –: none within the test half. Tolerance 0.02, α = 0.01, "
        f"A = {RUN_LENGTH:.0f}, requests of {ROWS}. Class: index of the one that the first alarm "
        "with a class names. Its gap: mean confidence less share of right ones of its predictions "
        "in the second half of the stream, in points; and after a refit on the first half.\n\n"
        + table(header, lines)
    )
