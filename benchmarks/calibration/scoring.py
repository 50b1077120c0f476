"""Scores of one method on one test half, and the rows that the paired tests need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.scores.binned import N_BINS, bin_index
from trueprob.scores.score import score

SMALLEST = float(np.finfo(np.float32).tiny)  # what a probability of zero counts as: 87 nats
LOWER_IS_BETTER = ("nll", "top_ce", "ece", "adaptive_ece", "brier")
HIGHER_IS_BETTER = ("auroc", "accuracy")
NEEDS_TAIL = ("nll", "brier")  # undefined where only the largest values are real


@dataclass(frozen=True)
class Rows:
    """Per row: its NLL, the confidence of the prediction, and whether that is right."""

    nll: NDArray[np.float64]
    confidence: NDArray[np.float64]
    correct: NDArray[np.bool_]


def rows_of(
    probabilities: NDArray[Any], labels: Labels, predicted: NDArray[np.int64]
) -> tuple[Rows, NDArray[np.float64]]:
    """Rows, and the top-label cross entropy of each.

    The probability of being wrong is summed from the other classes: 1 − c of a float32
    confidence would be 0 for every row surer than 1 − 6e-8.
    """
    index = np.arange(labels.shape[0])
    p = probabilities.astype(np.float64)
    confidence = np.minimum(p[index, predicted], 1.0)
    own = p[index, labels].copy()
    correct = predicted == labels
    p[index, predicted] = 0.0
    rest = p.sum(axis=1)
    top_ce = -np.log(np.maximum(np.where(correct, confidence, rest), SMALLEST))
    return Rows(-np.log(np.maximum(own, SMALLEST)), confidence, correct), top_ce


def scores_of(
    probabilities: NDArray[Any],
    labels: Labels,
    predicted: NDArray[np.int64] | None = None,
    *,
    has_real_tail: bool = True,
) -> tuple[dict[str, float], Rows]:
    """All scores that the tables show, and the rows.

    Parameters
    ----------
    probabilities : ndarray of shape (n, k)
    labels : ndarray of shape (n,)
    predicted : ndarray of shape (n,), optional
        Of methods that keep the prediction, the argmax of the logits; else that of the
        probabilities.
    has_real_tail : bool
        If False NLL and Brier are NaN.
    """
    top = probabilities.argmax(axis=1) if predicted is None else predicted
    every = score(probabilities, labels, prediction=top)
    rows, top_ce = rows_of(probabilities, labels, top)
    values = {
        "nll": every.nll if has_real_tail else np.nan,
        "brier": every.brier if has_real_tail else np.nan,
        "top_ce": float(top_ce.mean()),
        "ece": every.ece,
        "ece_floor": every.ece_floor,
        "adaptive_ece": every.adaptive_ece,
        "auroc": every.auroc,
        "accuracy": every.accuracy,
    }
    return values, rows


def quick_scores(
    probabilities: NDArray[Any], labels: Labels, predicted: NDArray[np.int64]
) -> tuple[float, float]:
    """ECE and NLL alone, for the tables that score thousands of fits."""
    rows, _ = rows_of(probabilities, labels, predicted)
    difference = rows.confidence - rows.correct
    sums = np.bincount(bin_index(rows.confidence), difference, minlength=N_BINS)
    return float(np.abs(sums).sum() / labels.shape[0]), float(rows.nll.mean())
