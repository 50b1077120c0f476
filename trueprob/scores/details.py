"""Further scores for comparing methods, all computed at once.

The service and the command line exchange `Scores`, so its fields are few and fixed.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import ArrayLike

from trueprob.arrays.weights_and_groups import as_weights
from trueprob.scores.brier import (
    BrierDecomposition,
    brier_decomposition,
    top_label_brier_decomposition,
)
from trueprob.scores.confidence import aurc
from trueprob.scores.debiased_ece import debiased_ece
from trueprob.scores.score import checked_probabilities, confidence_of_rows, mean_entropy
from trueprob.scores.smooth_ece import smooth_ece

__all__ = ["DetailedScores", "detailed_scores"]


@dataclass(frozen=True)
class DetailedScores:
    """Further scores of one predictor on one set.

    Attributes
    ----------
    n : int
        Rows.
    debiased_ece : float
        A fraction, may be negative; see `trueprob.scores.debiased_ece`.
    smooth_ece, smooth_ece_floor : float
        Fractions; the floor is what perfect calibration would show. Błasiok, Nakkiran 2023,
        arXiv:2309.12236.
    aurc : float
        Area under the risk-coverage curve: mean error rate over all coverages.
    mean_entropy : float
        Of the rows' distributions, in nats.
    brier : BrierDecomposition
        The Brier score over all classes, and its components.
    top_label_brier : BrierDecomposition
        Brier score of "the prediction is right", and its components.
    """

    n: int
    debiased_ece: float
    smooth_ece: float
    smooth_ece_floor: float
    aurc: float
    mean_entropy: float
    brier: BrierDecomposition
    top_label_brier: BrierDecomposition

    def to_dict(self) -> dict[str, Any]:
        """The scores as JSON values; undefined scores are null."""
        document = asdict(self)
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in document.items()
        }


def detailed_scores(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    prediction: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> DetailedScores:
    """Compute further scores of probabilities.

    Parameters
    ----------
    probabilities : array_like of shape (n, k)
    labels : array_like of shape (n,)
        Class indices.
    prediction : array_like of shape (n,), optional
        The predicted classes; default the argmax of the probabilities.
    weights : array_like of shape (n,), optional
        Non-negative.

    Returns
    -------
    DetailedScores

    Raises
    ------
    InvalidInput
        Shapes do not match, or a label is out of range.
    """
    p, y = checked_probabilities(probabilities, labels)
    n = p.shape[0]
    w = None if weights is None else as_weights(weights, n_rows=n)
    confidence, correct = confidence_of_rows(p, y, prediction)
    smooth = smooth_ece(confidence, correct, weights=w)
    return DetailedScores(
        n=n,
        debiased_ece=debiased_ece(confidence, correct, weights=w),
        smooth_ece=smooth.value,
        smooth_ece_floor=smooth.floor,
        aurc=aurc(confidence, correct, weights=w),
        mean_entropy=mean_entropy(p, weights=w),
        brier=brier_decomposition(p, y, weights=w),
        top_label_brier=top_label_brier_decomposition(confidence, correct, weights=w),
    )
