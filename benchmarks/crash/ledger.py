"""The client's record of counted labels, and the service's export in the same form."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.client import Prediction
from trueprob.drift import CalibrationBets, ErrorInterval, ErrorSums, Evidence
from trueprob.scores.binned import bin_index
from trueprob_service.settings import Settings

__all__ = [
    "SUMS_AGREE_TO",
    "Batch",
    "Ledger",
    "RowBatch",
    "Totals",
    "differences",
    "exported",
    "falls",
]

# (calibrator, bin) → labels, sum of confidence, right predictions
Totals = Mapping[tuple[str, int], tuple[float, float, float]]
_SAMPLE: Final = re.compile(
    r"^trueprob_bin_(labels|confidence|correct)_total\{([^}]*)\} (\S+)$", re.MULTILINE
)
_LABEL: Final = re.compile(r'(\w+)="([^"]*)"')
_ORDER: Final = ("labels", "confidence", "correct")
SUMS_AGREE_TO: Final = 1e-9


@dataclass(frozen=True)
class Batch:
    """Labels of one prediction."""

    answer: Prediction
    labels: tuple[int, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        ids = self.answer.prediction_ids
        assert ids is not None
        return ids


@dataclass(frozen=True, eq=False)
class RowBatch:
    """Labels that were sent with their rows."""

    ids: tuple[str, ...]
    logits: NDArray[np.float32]
    labels: tuple[int, ...]


@dataclass
class Ledger:
    """The client's labels and rows: acknowledged ones, and those without an answer."""

    acknowledged: list[Batch] = field(default_factory=list)
    uncertain: list[Batch] = field(default_factory=list)
    rows: list[RowBatch] = field(default_factory=list)
    uncertain_rows: list[RowBatch] = field(default_factory=list)
    accepted: int = 0
    duplicates: int = 0
    duplicate_rows: int = 0
    n_classes: int = 3  # of the model under test

    @property
    def labels(self) -> int:
        """Number of acknowledged labels."""
        return sum(len(batch.labels) for batch in self.acknowledged)

    def all_rows(self) -> tuple[list[str], NDArray[np.float32], NDArray[np.int64]]:
        """Acknowledged rows in the order in which they were sent: ids, logits, labels."""
        none = np.empty((0, self.n_classes), np.float32)
        return (
            [each for batch in self.rows for each in batch.ids],
            np.concatenate([none, *(batch.logits for batch in self.rows)]),
            np.array([label for batch in self.rows for label in batch.labels], np.int64),
        )

    def evidence_log10(self, revision: int, *, tolerance: float) -> float:
        """The evidence that a promotion must have when nothing is uncertain.

        A product does not hang on the order of its factors, so the service's secret order of
        counting need not be known; the change statistic does, and cannot be computed here.
        """
        bets = CalibrationBets(tolerance, Settings().alarm_class_tolerance)
        evidence = Evidence(bets)
        state, sums = evidence.start(), ErrorSums()
        for batch in self.acknowledged:
            if batch.answer.revision == revision:
                prediction, confidence = batch.answer.prediction, batch.answer.confidence
                correct = prediction == np.asarray(batch.labels)
                classes = {"prediction": prediction, "n_classes": self.n_classes}
                state = evidence.update(state, bets.factors(confidence, correct, **classes))
                sums += ErrorSums.of(confidence, correct, **classes)
        interval = ErrorInterval(evidence.alpha)
        return interval.joined_log10(evidence.log10(state), sums, tolerance)

    def totals(self) -> Totals:
        """What the service must export when nothing is uncertain."""
        parts: dict[tuple[str, int], list[tuple[float, bool]]] = defaultdict(list)
        for batch in self.acknowledged:
            correct = batch.answer.prediction == np.asarray(batch.labels)
            bins = bin_index(batch.answer.confidence)
            for confidence, right, index in zip(
                batch.answer.confidence, correct, bins, strict=True
            ):
                parts[batch.answer.calibrator, int(index)].append((float(confidence), bool(right)))
        return {
            key: (
                float(len(rows)),
                math.fsum(confidence for confidence, _ in rows),
                float(sum(right for _, right in rows)),
            )
            for key, rows in parts.items()
        }


def exported(metrics: str, model: str) -> Totals:
    """A model's running totals in Prometheus' text, without those that are zero."""
    found: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for name, labels, value in _SAMPLE.findall(metrics):
        of = dict(_LABEL.findall(labels))
        if of["model"] == model:
            found[of["calibrator"], int(of["bin"])][name] = float(value)
    return {
        key: (sums["labels"], sums["confidence"], sums["correct"])
        for key, sums in found.items()
        if sums["labels"]
    }


def differences(wanted: Totals, got: Totals, *, relative: float = SUMS_AGREE_TO) -> Iterable[str]:
    """A sentence for each bin in which the two differ."""
    for key in sorted({*wanted, *got}):
        left, right = wanted.get(key, (0.0,) * 3), got.get(key, (0.0,) * 3)
        for name, a, b in zip(_ORDER, left, right, strict=True):
            if not math.isclose(a, b, rel_tol=relative if name == "confidence" else 0.0):
                yield f"{key}: {name} must be {a!r}, got {b!r}"


def falls(before: Totals, after: Totals) -> Iterable[str]:
    """A sentence for each total that is lower than it was."""
    for key, sums in before.items():
        for name, a, b in zip(_ORDER, sums, after.get(key, (0.0,) * 3), strict=True):
            if b < a:
                yield f"{key}: {name} was exported as {a!r} and is {b!r} now"
