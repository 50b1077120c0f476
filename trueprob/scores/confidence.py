"""Scores of an event and its probability, such as "the prediction is right" and the confidence.

All take the probability of each row, shape (n,), and whether the event happened. They compute in
float64 and return fractions. The public scores, which take rows of probabilities and labels, are
in `trueprob.scores.score`.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.weights_and_groups import as_weights
from trueprob.errors import InvalidInput
from trueprob.scores.binned import N_BINS

__all__ = [
    "adaptive_ece",
    "aurc",
    "auroc",
    "checked_rows",
]

Array = NDArray[np.float64]


def adaptive_ece(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """ECE over 15 bins of equal mass, a fraction; equal confidences always share a bin."""
    p, y, w = checked_rows(confidence, correct, weights)
    _, group = np.unique(p, return_inverse=True)
    mass = np.bincount(group, weights=w)
    signed = np.bincount(group, weights=w * (p - y))
    # A group of equal confidences goes into the bin that holds the middle of its mass.
    middle = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
    index = np.minimum((N_BINS * middle).astype(np.int64), N_BINS - 1)
    return float(np.abs(np.bincount(index, weights=signed)).sum() / mass.sum())


def auroc(confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Probability that a right prediction is more confident than a wrong one; ties count ½.

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


def aurc(confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Area under the risk-coverage curve (AURC), a fraction; lower is better.

    The risk at coverage i/n is the share of errors among the i most confident rows. AURC is its
    mean over i = 1 … n: 0 is perfect, and a confidence without information gives the error rate.

    References
    ----------
    Geifman, El-Yaniv 2017, Selective classification for deep neural networks, arXiv:1705.08500;
    Geifman, Uziel, El-Yaniv 2019, Bias-reduced uncertainty estimation, arXiv:1805.08206.
    """
    from scipy.special import digamma

    # Rows of equal confidence have no order. So the exact mean over all their orders is used:
    # with s rows and E errors before a group of m rows with e errors, the expected errors after j
    # of them are E + j·e/m. The group adds Σ_j (E + j·e/m)/(s + j) =
    # e + (E − s·e/m)·(H(s + m) − H(s)), H the harmonic numbers.
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


def checked_rows(
    confidence: ArrayLike, correct: ArrayLike, weights: ArrayLike | None
) -> tuple[Array, Array, Array]:
    """All three as float64 of shape (n,), weights 1 by default; InvalidInput if out of range."""
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
