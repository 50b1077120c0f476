"""Binned calibration error from additive sums, which merge and store as 60 numbers.

Per bin: count = Σ1, confidence = Σp, correct = Σ1[prediction = label], variance = Σp(1 − p).

    ECE   = Σ_b |confidence_b − correct_b| / Σ_b count_b
    floor = Σ_b sqrt(2/π · variance_b)     / Σ_b count_b

The floor is the ECE that a perfectly calibrated model would show on the same confidences: the sum
of independent p − y in a bin is nearly normal with that variance, and E|N(0, v)| = sqrt(2v/π).
There are 15 right-closed bins of equal width: (lo, hi], with 0 in the first. With weights w the
sums are Σw, Σwp, Σw·1[…] and Σw²p(1 − p), the last being the variance of Σw(p − y).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.errors import InvalidInput

__all__ = ["EDGES", "FIRST_BIN_BELOW", "N_BINS", "BinnedCalibration", "bin_index"]

N_BINS: Final = 15
EDGES: Final = np.arange(N_BINS + 1) / N_BINS
# A little below 1/15: all smaller probabilities, however rounded, are in the first bin.
FIRST_BIN_BELOW: Final = np.float32(0.0666)


def bin_index(confidence: ArrayLike) -> NDArray[np.int64]:
    """Bin of each confidence, 0 … 14: right-closed (lo, hi], 0 in the first bin."""
    values = np.asarray(confidence, dtype=np.float64)
    return np.searchsorted(EDGES[1:-1], values, side="left").astype(np.int64, copy=False)


@dataclass(frozen=True, eq=False)
class BinnedCalibration:
    """Sums for a binned ECE; immutable, merged with ``+``.

    Attributes
    ----------
    count, confidence, correct, variance : ndarray of shape (15,), float64
        Per bin: Σ1, Σp, Σ1[prediction = label] and Σp(1 − p), each row times its weight (squared
        in the variance).
    """

    count: NDArray[np.float64]
    confidence: NDArray[np.float64]
    correct: NDArray[np.float64]
    variance: NDArray[np.float64]

    def __post_init__(self) -> None:
        for name in ("count", "confidence", "correct", "variance"):
            array = np.array(getattr(self, name), dtype=np.float64)
            if array.shape != (N_BINS,):
                raise InvalidInput(
                    f"{name} must have shape ({N_BINS},), got {array.shape}", field=name
                )
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    @classmethod
    def zeros(cls) -> BinnedCalibration:
        """Sums of no rows: the neutral element of ``+``."""
        zero = np.zeros(N_BINS)
        return cls(zero, zero, zero, zero)

    @classmethod
    def of(
        cls, confidence: ArrayLike, correct: ArrayLike, weights: ArrayLike | None = None
    ) -> BinnedCalibration:
        """Sums of a batch of rows.

        Parameters
        ----------
        confidence : array_like of shape (n,)
            Probability of the predicted class, in [0, 1].
        correct : array_like of shape (n,)
            Whether the prediction was right (bool, or 0 and 1).
        weights : array_like of shape (n,), optional
            Non-negative.

        Returns
        -------
        BinnedCalibration

        Raises
        ------
        InvalidInput
            Shapes differ, or a confidence lies outside [0, 1].
        """
        p = np.asarray(confidence, dtype=np.float64)
        y = np.asarray(correct, dtype=np.float64)
        if p.ndim != 1 or p.shape != y.shape:
            raise InvalidInput(
                f"correct must have the shape of confidence (n,), got {y.shape} and {p.shape}",
                field="correct",
            )
        if not ((p >= 0.0) & (p <= 1.0)).all():
            raise InvalidInput("confidence must lie in [0, 1]", field="confidence")
        w = None if weights is None else np.asarray(weights, dtype=np.float64)
        index = bin_index(p)

        def total(values: NDArray[np.float64] | None) -> NDArray[np.float64]:
            return np.bincount(index, weights=values, minlength=N_BINS).astype(np.float64)

        if w is None:
            return cls(total(None), total(p), total(y), total(p * (1.0 - p)))
        return cls(total(w), total(w * p), total(w * y), total(w * w * p * (1.0 - p)))

    def update(self, confidence: ArrayLike, correct: ArrayLike) -> BinnedCalibration:
        """Sums of these rows and new ones, as a new value; arguments as in `of`."""
        return self + BinnedCalibration.of(confidence, correct)

    def __add__(self, other: BinnedCalibration) -> BinnedCalibration:
        if not isinstance(other, BinnedCalibration):
            return NotImplemented
        return BinnedCalibration(
            self.count + other.count,
            self.confidence + other.confidence,
            self.correct + other.correct,
            self.variance + other.variance,
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BinnedCalibration):
            return NotImplemented
        return (
            np.array_equal(self.count, other.count)
            and np.array_equal(self.confidence, other.confidence)
            and np.array_equal(self.correct, other.correct)
            and np.array_equal(self.variance, other.variance)
        )

    def __hash__(self) -> int:
        return hash((self.count.tobytes(), self.confidence.tobytes(), self.correct.tobytes()))

    def complement(self) -> BinnedCalibration:
        """Sums of 1 − p and 1 − y for the same rows: with two classes, those of the other one.

        A row on the edge of two bins may lie in the other bin.
        """
        return BinnedCalibration(
            self.count[::-1],
            (self.count - self.confidence)[::-1],
            (self.count - self.correct)[::-1],
            self.variance[::-1],
        )

    @property
    def n(self) -> float:
        """Number of rows, or the sum of their weights."""
        return float(self.count.sum())

    def ece(self) -> float:
        """Expected calibration error, a fraction; NaN without rows."""
        return _ratio(float(np.abs(self.confidence - self.correct).sum()), self.n)

    def ece_floor(self) -> float:
        """Noise floor: the ECE that perfect calibration would show; NaN without rows."""
        return _ratio(float(np.sqrt(2.0 / math.pi * self.variance).sum()), self.n)

    def mce(self) -> float:
        """Largest calibration error of a bin with rows; NaN without rows."""
        filled = self.count > 0
        if not filled.any():
            return math.nan
        error = np.abs(self.confidence[filled] - self.correct[filled]) / self.count[filled]
        return float(error.max())

    def drift_ratio(self) -> float:
        """ECE divided by its floor, for display only: it grows as √n for any fixed error.

        NaN when both are zero or without rows, infinite when only the floor is zero.
        """
        ece, floor = self.ece(), self.ece_floor()
        if floor == 0.0:
            return math.nan if ece == 0.0 else math.inf
        return ece / floor

    def accuracy(self) -> float:
        """Share of right predictions; NaN without rows."""
        return _ratio(float(self.correct.sum()), self.n)

    def mean_confidence(self) -> float:
        """Mean confidence, which is the expected accuracy; NaN without rows."""
        return _ratio(float(self.confidence.sum()), self.n)

    def rows(self) -> list[dict[str, float]]:
        """A dictionary for each bin: lower, upper, count, confidence, correct, variance."""
        return [
            {
                "lower": float(EDGES[b]),
                "upper": float(EDGES[b + 1]),
                "count": float(self.count[b]),
                "confidence": float(self.confidence[b]),
                "correct": float(self.correct[b]),
                "variance": float(self.variance[b]),
            }
            for b in range(N_BINS)
        ]


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator > 0 else math.nan
