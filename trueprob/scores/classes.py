"""Calibration of each class: of the rows that are predicted as it, and of P(class) over all rows.

Errors of different classes can cancel in the ECE of the confidence. With two classes, `ece` of
class 1 is the ECE of P(class 1), which also tells P = 0.1 from P = 0.9.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from trueprob.arrays.labels import as_labels
from trueprob.arrays.weights_and_groups import as_weights
from trueprob.scores.binned import BinnedCalibration
from trueprob.scores.score import checked_probabilities

__all__ = ["ClassScore", "binary_score", "class_scores"]


@dataclass(frozen=True)
class ClassScore:
    """Calibration of one class on one set.

    Attributes
    ----------
    class_index : int
    n : int
        Rows that are predicted as this class.
    confidence, accuracy : float
        Of these rows: mean confidence, and share of right predictions. NaN without rows.
    probability, frequency : float
        Of all rows: mean P(class), and share of the label.
    ece, ece_floor : float
        Of P(class) for "is this class", over all rows in 15 bins, and its noise floor.
    standard_errors : float
        The larger of the two gaps, in standard errors of a calibrated model.
    """

    class_index: int
    n: int
    confidence: float
    accuracy: float
    probability: float
    frequency: float
    ece: float
    ece_floor: float
    standard_errors: float

    @property
    def gap(self) -> float:
        """Confidence minus accuracy: above 0 where predictions are too confident."""
        return self.confidence - self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """The score as JSON values; undefined numbers are null."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in {**asdict(self), "gap": self.gap}.items()
        }


def class_scores(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    prediction: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> tuple[ClassScore, ...]:
    """Score each class by itself, the worst first.

    Of the gaps of a class, the larger one in standard errors counts: a large gap that few rows show
    may be chance. Arguments and errors as in `score`.
    """
    p, y = checked_probabilities(probabilities, labels)
    n, k = p.shape
    top = (
        p.argmax(axis=1)
        if prediction is None
        else as_labels(prediction, n_classes=k, n_rows=n, name="prediction")
    )
    w = np.ones(n) if weights is None else as_weights(weights, n_rows=n)
    scores = []
    for index in range(k):
        column = np.minimum(p[:, index].astype(np.float64), 1.0)
        is_class, predicted = y == index, top == index
        of_all = BinnedCalibration.of(column, is_class, w)
        of_predicted = BinnedCalibration.of(column[predicted], is_class[predicted], w[predicted])
        scores.append(
            ClassScore(
                class_index=index,
                n=int(np.count_nonzero(predicted)),
                confidence=of_predicted.mean_confidence(),
                accuracy=of_predicted.accuracy(),
                probability=of_all.mean_confidence(),
                frequency=of_all.accuracy(),
                ece=of_all.ece(),
                ece_floor=of_all.ece_floor(),
                standard_errors=max(map(_standard_errors, (of_predicted, of_all))),
            )
        )
    return tuple(sorted(scores, key=lambda each: each.standard_errors, reverse=True))


def binary_score(probabilities: ArrayLike, labels: ArrayLike, **options: Any) -> ClassScore | None:
    """Score of class 1 with two classes, None with more; arguments as in `score`."""
    if np.shape(probabilities)[1:] != (2,):
        return None
    scores = class_scores(probabilities, labels, **options)
    return next(each for each in scores if each.class_index == 1)


def _standard_errors(binned: BinnedCalibration) -> float:
    """Size of the gap in standard errors of a calibrated model; 0 without rows."""
    gap = abs(float((binned.confidence - binned.correct).sum()))
    deviation = math.sqrt(float(binned.variance.sum()))
    return gap / deviation if deviation > 0.0 else 0.0
