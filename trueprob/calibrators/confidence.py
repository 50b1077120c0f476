"""Replaces the confidence in probabilities; the prediction stays the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["put_confidence"]


def put_confidence(
    probabilities: NDArray[np.float32],  # (n, k) float32, overwritten
    top: NDArray[np.int64],  # (n,), the prediction
    rest: NDArray[np.float64],  # (n,), positive sum of the other classes' probabilities
    others: NDArray[np.float64],  # (n,), their new sum: 1 − c′, without cancellation
) -> NDArray[np.float32]:
    """Set the prediction's probability to 1 − others and rescale the rest, in place.

    The confidence stays at least r / (1 + r), with r the runner-up's share of the rest, so that
    ``p[top] == max(p)`` holds exactly.
    """
    rows = np.arange(top.shape[0])
    probabilities[rows, top] = 0.0
    runner_up = probabilities.max(axis=1).astype(np.float64)
    share = runner_up / rest
    others = np.minimum(others, 1.0 / (1.0 + share))
    scale = (others / rest).astype(np.float32)
    probabilities *= scale[:, None]
    # Rounding may lift the runner-up; the prediction is never below it.
    highest = np.maximum((1.0 - others).astype(np.float32), runner_up.astype(np.float32) * scale)
    probabilities[rows, top] = highest
    return probabilities
