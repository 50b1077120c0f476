"""Rows that a score of confidences takes: confidence, whether right, weight; checked once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.weights_and_groups import as_weights
from trueprob.errors import InvalidInput

__all__ = ["Array", "checked_rows"]

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
