"""Scores of confidences: calibration error, and how well they tell right from wrong.

All take confidences of predictions, shape (n,), and whether these were right, are computed in
float64 and return fractions. Those that read whole rows of probabilities are in `scores`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from trueprob.confidence_rows import checked_rows
from trueprob.scores.binned import N_BINS, BinnedCalibration

__all__ = [
    "adaptive_calibration_error",
    "confidence_auroc",
    "expected_calibration_error",
    "maximum_calibration_error",
]


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """ECE over 15 right-closed bins of equal width, of confidences and whether they were right."""
    return BinnedCalibration.of(confidence, correct, weights).ece()


def maximum_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Largest calibration error of the 15 bins; noisy, since a bin may hold one row."""
    return BinnedCalibration.of(confidence, correct, weights).mce()


def adaptive_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """ECE over 15 bins of equal mass; equal confidences are never split between bins."""
    p, y, w = checked_rows(confidence, correct, weights)
    _, group = np.unique(p, return_inverse=True)
    mass = np.bincount(group, weights=w)
    signed = np.bincount(group, weights=w * (p - y))
    # A group of equal confidences goes where the middle of its mass lies.
    middle = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
    index = np.minimum((N_BINS * middle).astype(np.int64), N_BINS - 1)
    return float(np.abs(np.bincount(index, weights=signed)).sum() / mass.sum())


def confidence_auroc(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Probability that a right prediction is more confident than a wrong one, ties counting ½.

    NaN when all predictions are right or all are wrong.
    """
    p, y, w = checked_rows(confidence, correct, weights)
    _, group = np.unique(p, return_inverse=True)
    right = np.bincount(group, weights=w * y)
    wrong = np.bincount(group, weights=w * (1.0 - y))
    pairs = float(right.sum() * wrong.sum())
    if pairs <= 0.0:
        return math.nan
    below = np.cumsum(wrong) - wrong
    return float(right @ (below + 0.5 * wrong)) / pairs
