"""Scores of confidences: calibration error, and how well they tell right from wrong.

All take confidences of predictions, shape (n,), and whether these were right, are computed in
float64 and return fractions. Those that read whole rows of probabilities are in `scores`.

Rows that a score of confidences takes: confidence, whether right, weight; checked once.

AURC: the error rate when the least confident rows are left out, averaged over how many.

Rows are sorted by falling confidence; the risk at coverage i/n is the share of errors among the
first i, and AURC is its mean over i = 1 … n. Rows of equal confidence have no order: the mean
over all their orders is taken, which is exact and costs nothing. With s rows and E errors before
a group of m rows with e errors, the expected errors after j of them are E + j·e/m, so the group
adds Σ_j (E + j·e/m)/(s + j) = e + (E − s·e/m)·(H(s + m) − H(s)), H the harmonic numbers.

0 is perfect; a predictor whose confidence says nothing has its error rate.

References
----------
Geifman, El-Yaniv 2017, Selective classification for deep neural networks, arXiv:1705.08500;
Geifman, Uziel, El-Yaniv 2019, Bias-reduced uncertainty estimation, arXiv:1805.08206.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.weights_and_groups import as_weights
from trueprob.errors import InvalidInput
from trueprob.scores.binned import N_BINS, BinnedCalibration

__all__ = [
    "Array",
    "adaptive_calibration_error",
    "area_under_risk_coverage",
    "checked_rows",
    "confidence_auroc",
    "expected_calibration_error",
    "maximum_calibration_error",
]


Array = NDArray[np.float64]


def checked_rows(
    confidence: ArrayLike, correct: ArrayLike, weights: ArrayLike | None
) -> tuple[Array, Array, Array]:
    """The three as float64 arrays of shape (n,); weights of 1 where none are given.

    Raises `InvalidInput`: shapes differ, there are no rows, or a number lies outside its range.
    """
    p = np.asarray(confidence, dtype=np.float64)
    y = np.asarray(correct, dtype=np.float64)
    if p.ndim != 1 or p.shape[0] < 1:
        raise InvalidInput(
            f"confidence must have shape (n,) with n of at least 1, got {p.shape}",
            field="confidence",
        )
    if y.shape != p.shape:
        raise InvalidInput(f"correct must have shape {p.shape}, got {y.shape}", field="correct")
    if not ((p >= 0.0) & (p <= 1.0)).all():
        raise InvalidInput("confidence must lie in [0, 1]", field="confidence")
    if not ((y >= 0.0) & (y <= 1.0)).all():
        raise InvalidInput("correct must lie in [0, 1]", field="correct")
    n = p.shape[0]
    return p, y, np.ones(n) if weights is None else as_weights(weights, n_rows=n)


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


def area_under_risk_coverage(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Area under the risk-coverage curve (AURC).

    Returns: a fraction, lower is better. Raises `InvalidInput`: shapes differ, there are no rows,
    or a confidence lies outside [0, 1].
    """
    from scipy.special import digamma

    p, y, w = checked_rows(confidence, correct, weights)
    p, y, w = p[w > 0.0], y[w > 0.0], w[w > 0.0]
    _, group = np.unique(-p, return_inverse=True)
    mass = np.bincount(group, weights=w)
    errors = np.bincount(group, weights=w * (1.0 - y))
    after = np.cumsum(mass)
    before = after - mass
    errors_before = np.cumsum(errors) - errors
    harmonic = digamma(after + 1.0) - digamma(before + 1.0)  # H(x) = ψ(x + 1) + γ
    risk = errors + (errors_before - before * errors / mass) * harmonic
    return float(risk.sum() / after[-1])
