"""The Brier score in parts: how wrong the confidence is, how much it tells, how hard the task is.

For the event "the prediction is right", with y = 1 when it is, and the confidence p in bins b of
n_b rows (of n), whose means are p̄_b and ȳ_b, and ȳ over all rows:

    reliability = Σ_b n_b/n · (p̄_b − ȳ_b)²      0 when the bins are calibrated
    resolution  = Σ_b n_b/n · (ȳ_b − ȳ)²         how far the bins tell right from wrong
    uncertainty = ȳ(1 − ȳ)                       of the task at this accuracy
    within_bins = Σ_i (p_i − p̄_b)² / n  −  2·Σ_i (p_i − p̄_b)(y_i − ȳ_b) / n

    mean (p − y)² = reliability − resolution + uncertainty + within_bins

The first three are Murphy's, whose forecasts take few values; the last is what binning adds when
they do not (Stephenson, Coelho, Jolliffe 2008: within-bin variance and covariance), so that the
sum is exact. The bins are the 15 of equal width, right-closed, that the ECE uses.

Everything is a function of sums, so it streams: `ConfidenceMoments` are added up.

References
----------
Murphy 1973, A new vector partition of the probability score. Stephenson, Coelho, Jolliffe 2008,
Two extra components in the Brier score decomposition.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.binned import N_BINS, BinnedCalibration, bin_index
from trueprob.errors import InvalidInput

__all__ = ["BrierDecomposition", "ConfidenceMoments", "brier_decomposition"]


@dataclass(frozen=True)
class BrierDecomposition:
    """Parts of the top-label Brier score.

    Attributes
    ----------
    n : float
        Rows, or the sum of their weights.
    brier : float
        Mean (confidence − right)², between 0 and 1: of the prediction alone, and so not
        `brier_score`, which sums over the classes.
    reliability, resolution, uncertainty, within_bins : float
        See the module's text; brier = reliability − resolution + uncertainty + within_bins.
    reliability_floor : float
        The reliability that a perfectly calibrated model shows: Σ_b variance_b/n_b / n.
    """

    n: float
    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float
    reliability_floor: float


@dataclass(frozen=True)
class ConfidenceMoments:
    """Sums that the decomposition needs; a value, combined with ``+``.

    Attributes
    ----------
    binned : BinnedCalibration
    squared : ndarray of shape (15,), float64
        Σ confidence² of each bin.
    correct : ndarray of shape (15,), float64
        Σ confidence · 1[right] of each bin.
    """

    binned: BinnedCalibration
    squared: NDArray[np.float64]
    correct: NDArray[np.float64]

    @classmethod
    def of(
        cls, confidence: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None
    ) -> Self:
        """Sums of a batch; arguments as of `BinnedCalibration.of`.

        Raises
        ------
        InvalidInput
            Shapes differ, or a confidence lies outside [0, 1].
        """
        binned = BinnedCalibration.of(confidence, correct, weights)
        p = np.asarray(confidence, dtype=np.float64)
        y = np.asarray(correct, dtype=np.float64)
        w = np.ones_like(p) if weights is None else np.asarray(weights, dtype=np.float64)
        index = bin_index(p)
        return cls(
            binned,
            np.bincount(index, weights=w * p * p, minlength=N_BINS).astype(np.float64),
            np.bincount(index, weights=w * p * y, minlength=N_BINS).astype(np.float64),
        )

    def __add__(self, other: ConfidenceMoments) -> ConfidenceMoments:
        return ConfidenceMoments(
            self.binned + other.binned, self.squared + other.squared, self.correct + other.correct
        )

    def decomposition(self) -> BrierDecomposition:
        """The parts.

        Returns
        -------
        BrierDecomposition

        Raises
        ------
        InvalidInput
            There are no rows.
        """
        n = self.binned.n
        if not n > 0:
            raise InvalidInput("confidence must have one row at least", field="confidence")
        filled = self.binned.count > 0
        count = self.binned.count[filled]
        p, y = self.binned.confidence[filled] / count, self.binned.correct[filled] / count
        squared, product = self.squared[filled], self.correct[filled]
        accuracy = float(self.binned.correct.sum()) / n
        variance = squared - count * p * p
        covariance = product - count * p * y
        return BrierDecomposition(
            n=n,
            brier=float((squared - 2.0 * product).sum()) / n + accuracy,
            reliability=float(count @ (p - y) ** 2) / n,
            resolution=float(count @ (y - accuracy) ** 2) / n,
            uncertainty=accuracy * (1.0 - accuracy),
            within_bins=float((variance - 2.0 * covariance).sum()) / n,
            reliability_floor=math.fsum(self.binned.variance[filled] / count) / n,
        )


def brier_decomposition(
    confidence: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None
) -> BrierDecomposition:
    """Parts of the top-label Brier score.

    Parameters
    ----------
    confidence : array_like of shape (n,)
        Of the prediction, in [0, 1].
    correct : array_like of shape (n,)
        Whether it was right.
    weights : array_like of shape (n,), optional
        Non-negative.

    Returns
    -------
    BrierDecomposition

    Raises
    ------
    InvalidInput
        Shapes differ, a confidence lies outside [0, 1], or there are no rows.
    """
    return ConfidenceMoments.of(confidence, correct, weights).decomposition()
