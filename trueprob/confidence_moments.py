"""Sums of confidences and their squares: the top-label Brier score's parts, as a stream.

The parts are those of `brier_decomposition`, of the one event "the prediction is right".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.binned import N_BINS, BinnedCalibration, bin_index
from trueprob.brier_decomposition import BrierDecomposition, decomposition_of_sums
from trueprob.errors import InvalidInput

__all__ = ["ConfidenceMoments", "top_label_brier_decomposition"]


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
        binned = self.binned
        if not binned.n > 0:
            raise InvalidInput("confidence must have one row at least", field="confidence")
        return decomposition_of_sums(
            binned.n,
            binned.count[None],
            binned.confidence[None],
            binned.correct[None],
            binned.variance[None],
            self.squared[None],
            self.correct[None],
        )


def top_label_brier_decomposition(
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
