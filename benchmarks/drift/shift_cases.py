"""Cases of a real network: rows before and after a shift, and the rows it was fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.sets import LogitSet, of_arrays
from benchmarks.calibration.shifts import long_tailed, noisy
from benchmarks.drift.streams import Array
from trueprob import Baseline, Calibrator, fit, logit_gap

COMMONER = 10.0  # how much more frequent the hardest class gets than the easiest


@dataclass(frozen=True)
class Rows:
    """Rows that a stream draws from."""

    gap: Array
    confidence: Array
    correct: NDArray[np.bool_]
    predicted: NDArray[np.int64]

    @classmethod
    def of(cls, calibrator: Calibrator, logits: NDArray[np.float32], labels: Array) -> Rows:
        predicted = calibrator.prediction(logits)
        p = calibrator.predict_proba(logits)[np.arange(labels.shape[0]), predicted]
        confidence = np.minimum(p.astype(np.float64), 1.0)
        gap = logit_gap(logits).astype(np.float64)
        return cls(gap, confidence, predicted == labels, predicted)

    def drawn(self, generator: np.random.Generator, n: int) -> Rows:
        chosen = generator.integers(0, self.gap.shape[0], n)
        return Rows(*(getattr(self, k)[chosen] for k in self.__annotations__))

    def then(self, other: Rows) -> Rows:
        return Rows(
            *(np.concatenate([getattr(self, k), getattr(other, k)]) for k in self.__annotations__)
        )


@dataclass(frozen=True)
class Case:
    name: str
    calm: Rows
    shifted: Rows
    baseline: Baseline


def hard_classes(data: LogitSet, *, seed: int = 0) -> LogitSet:
    """The test half resampled so that classes that the network confuses are common.

    Label shift as a new hospital brings it: P(class) changes, the pictures of a class do not. The
    order is that of the accuracies on the validation half, frequencies fall geometrically from the
    hardest to the easiest.
    """
    right = data.val_logits.argmax(axis=1) == data.val_labels
    counts = np.maximum(np.bincount(data.val_labels, minlength=data.n_classes), 1)
    accuracy = np.bincount(data.val_labels, weights=right, minlength=data.n_classes) / counts
    rank = np.empty(data.n_classes)
    rank[np.argsort(accuracy, kind="stable")] = np.arange(data.n_classes)
    share = COMMONER ** (-rank / (data.n_classes - 1))
    present = np.maximum(np.bincount(data.test_labels, minlength=data.n_classes), 1)
    weights = (share / present)[data.test_labels]
    n = data.test_labels.shape[0]
    chosen = np.random.default_rng(seed).choice(n, n, p=weights / weights.sum())
    return of_arrays(
        data.name,
        data.val_logits,
        data.val_labels,
        data.test_logits[chosen],
        data.test_labels[chosen],
    )


SHIFTS: dict[str, Callable[[LogitSet], LogitSet]] = {
    "none": lambda data: data,
    "label shift, long-tailed": long_tailed,
    "label shift, hard classes": hard_classes,
    "noisy logits": noisy,
}


def cases_of(data: LogitSet) -> Iterator[Case]:
    calibrator = fit(data.val_logits, data.val_labels).calibrator
    baseline = Baseline.of(calibrator, data.val_logits, data.val_labels)
    calm = Rows.of(calibrator, data.test_logits, data.test_labels)
    for name, shift in SHIFTS.items():
        shifted = shift(data)
        rows = Rows.of(calibrator, shifted.test_logits, shifted.test_labels)
        yield Case(f"{data.name}: {name}", calm, rows, baseline)
