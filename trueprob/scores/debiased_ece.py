"""Debiased ECE: the binned ECE minus an estimate of what sampling noise adds to it.

The plug-in ECE adds up |p̄_b − ȳ_b|, and noise makes an absolute value too large on average.
Kumar, Liang and Ma estimate the excess: if ȳ_b were the truth, fresh labels in bin b would have
the mean R_b ~ N(ȳ_b, ȳ_b(1 − ȳ_b)/n_b), so

    debiased = plug-in − ( E Σ_b n_b/n·|p̄_b − R_b| − plug-in )

They draw R_b a thousand times. Here E|N(μ, s²)| = s·sqrt(2/π)·exp(−μ²/2s²) + μ·erf(μ/(s√2)) is
used instead. The bins are the 15 of equal width. The result estimates the true error and may be
negative near zero. At perfect calibration it removes only √2 − 1 = 41 % of the excess. If every
bin is wrong by several standard deviations, the excess is small and is removed completely.

Admission compares another number, ``ECE − floor``. The floor is what perfect calibration would
show. Where the model is miscalibrated, this difference is too small.

References
----------
Kumar, Liang, Ma 2019, Verified uncertainty calibration, arXiv:1909.10155, section 5; for p = 1
their package uncertainty-calibration, `get_calibration_error(…, p=1, debias=True)`.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.scores.binned import N_BINS, bin_index
from trueprob.scores.confidence import checked_rows

__all__ = ["N_SUMS", "bin_columns", "debiased_ece", "debiased_ece_of_sums"]

N_SUMS: Final = 4  # of each bin: Σw, Σw², Σw·(confidence − right), Σw·right

Array = NDArray[np.float64]


def debiased_ece(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Debiased ECE, a fraction that may be negative."""
    p, y, w = checked_rows(confidence, correct, weights)
    sums = bin_columns(p, y, w).sum(axis=0)
    return float(debiased_ece_of_sums(sums[None])[0])


def bin_columns(p: Array, y: Array, w: Array) -> Array:
    """Columns to be summed over rows, shape (n, 60): four numbers at the row's bin."""
    n = p.shape[0]
    columns = np.zeros((n, N_SUMS, N_BINS))
    columns[np.arange(n), :, bin_index(p)] = np.column_stack([w, w * w, w * (p - y), w * y])
    return columns.reshape(n, N_SUMS * N_BINS)


def debiased_ece_of_sums(sums: Array) -> Array:
    """Debiased ECE of each row of summed `bin_columns`, shape (m, 60)."""
    from scipy.special import erf

    mass, squares, signed, right = sums.reshape(-1, N_SUMS, N_BINS).transpose(1, 0, 2)
    filled = mass > 0.0
    safe = np.where(filled, mass, 1.0)
    share = np.clip(right / safe, 0.0, 1.0)
    spread = np.sqrt(share * (1.0 - share) * squares) / safe  # standard deviation of R_b
    error = np.abs(signed) / safe
    noisy = spread > 0.0
    ratio = error / np.where(noisy, spread, 1.0)
    folded = spread * math.sqrt(2.0 / math.pi) * np.exp(-0.5 * ratio * ratio) + error * np.where(
        noisy, erf(ratio / math.sqrt(2.0)), 1.0
    )
    weight = mass / mass.sum(axis=1, keepdims=True)
    return np.asarray((weight * (2.0 * error - folded)).sum(axis=1))
