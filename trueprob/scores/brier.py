"""Decomposition of the Brier score into reliability, resolution and uncertainty.

For an event, y = 1 when it happens, and its probability p, in bins b of n_b rows (of n) whose
means are p̄_b and ȳ_b, and ȳ over all rows:

    reliability = Σ_b n_b/n · (p̄_b − ȳ_b)²      0 when the bins are calibrated
    resolution  = Σ_b n_b/n · (ȳ_b − ȳ)²         how far the bins separate the outcomes
    uncertainty = ȳ(1 − ȳ)                       of the task alone
    within_bins = Σ_i (p_i − p̄_b)² / n  −  2·Σ_i (p_i − p̄_b)(y_i − ȳ_b) / n

    mean (p − y)² = reliability − resolution + uncertainty + within_bins

The first three are Murphy's, for forecasts with few values. The last is what binning adds
(within-bin variance and covariance), so that the sum is exact. The bins are those of the ECE.

References
----------
Murphy 1973, A new vector partition of the probability score. Stephenson, Coelho, Jolliffe 2008,
Two extra components in the Brier score decomposition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.weights_and_groups import as_weights
from trueprob.errors import InvalidInput
from trueprob.scores.binned import FIRST_BIN_BELOW, N_BINS, BinnedCalibration, bin_index
from trueprob.scores.score import checked_probabilities

__all__ = [
    "BrierDecomposition",
    "brier_decomposition",
    "top_label_brier_decomposition",
]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BrierDecomposition:
    """Components of a Brier score: reliability − resolution + uncertainty + within_bins.

    Attributes
    ----------
    n : float
        Rows, or the sum of their weights.
    brier : float
        Mean (p − y)² of one event, or its sum over the classes.
    reliability, resolution, uncertainty, within_bins : float
        The components, defined in `trueprob.scores.brier`.
    reliability_floor : float
        Reliability that perfect calibration would show: Σ_b variance_b/n_b / n.
    """

    n: float
    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float
    reliability_floor: float


def brier_decomposition(
    probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
) -> BrierDecomposition:
    """Decompose `brier_score`: the sum over classes c of the event "the label is c"."""
    p, y = checked_probabilities(probabilities, labels)
    n, k = p.shape
    w = np.ones(n) if weights is None else as_weights(weights, n_rows=n)
    # The sums of the first bin are the total minus those of the other bins.
    rows, classes = np.nonzero(p > FIRST_BIN_BELOW)
    values = p[rows, classes].astype(np.float64)
    cell = classes * N_BINS + bin_index(values)

    def cells(at: NDArray[np.int64], mass: Array) -> Array:
        sums = np.bincount(at, weights=mass, minlength=k * N_BINS)
        return sums.reshape(k, N_BINS).astype(np.float64, copy=False)

    def filled(large: Array, total: Array | float) -> Array:
        sums = cells(cell, large)
        sums[:, 0] += total - sums.sum(axis=1)
        return sums

    total = np.einsum("i,ij->j", w, p, dtype=np.float64)
    total_squared = np.einsum("i,ij,ij->j", w, p, p, dtype=np.float64)
    twice = w * w
    total_variance = np.einsum("i,ij->j", twice, p, dtype=np.float64) - np.einsum(
        "i,ij,ij->j", twice, p, p, dtype=np.float64
    )
    chosen = p[np.arange(n), y].astype(np.float64)
    hit = y * N_BINS + bin_index(chosen)
    mass = float(w.sum())
    return _decomposition_of_sums(
        mass,
        filled(w[rows], mass),
        filled(w[rows] * values, total),
        cells(hit, w),
        filled(twice[rows] * values * (1.0 - values), total_variance),
        filled(w[rows] * values * values, total_squared),
        cells(hit, w * chosen),
    )


def top_label_brier_decomposition(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> BrierDecomposition:
    """Decompose the Brier score of the event "the prediction is right"."""
    binned = BinnedCalibration.of(confidence, correct, weights)
    if not binned.n > 0:
        raise InvalidInput("confidence must have at least one row", field="confidence")
    p = np.asarray(confidence, dtype=np.float64)
    y = np.asarray(correct, dtype=np.float64)
    w = np.ones_like(p) if weights is None else np.asarray(weights, dtype=np.float64)
    index = bin_index(p)
    sums = (
        binned.count,
        binned.confidence,
        binned.correct,
        binned.variance,
        np.bincount(index, weights=w * p * p, minlength=N_BINS).astype(np.float64),
        np.bincount(index, weights=w * p * y, minlength=N_BINS).astype(np.float64),
    )
    return _decomposition_of_sums(binned.n, *(each[None] for each in sums))


def _decomposition_of_sums(
    n: float,
    count: Array,
    probability: Array,
    happened: Array,
    variance: Array,
    squared: Array,
    product: Array,
) -> BrierDecomposition:
    """Components from sums of shape (events, 15), added up over the events."""
    # Rounding leaves about 1e-13 of the sums in bins that are empty.
    filled = count > 1e-9 * n
    safe = np.where(filled, count, 1.0)
    p, y = probability / safe, happened / safe
    rate = happened.sum(axis=1, keepdims=True) / n

    def total(values: Any) -> float:
        return float(np.where(filled, values, 0.0).sum()) / n

    return BrierDecomposition(
        n=n,
        brier=total(squared - 2.0 * product + happened),
        reliability=total(count * (p - y) ** 2),
        resolution=total(count * (y - rate) ** 2),
        uncertainty=float((rate * (1.0 - rate)).sum()),
        within_bins=total(squared - count * p * p - 2.0 * (product - count * p * y)),
        reliability_floor=total(variance / safe),
    )
