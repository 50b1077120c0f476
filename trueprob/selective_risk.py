"""AURC: the error rate when the least confident rows are left out, averaged over how many.

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

import numpy as np
from numpy.typing import ArrayLike

from trueprob.confidence_rows import checked_rows

__all__ = ["area_under_risk_coverage"]


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
