"""Replaces the confidence in probabilities; the prediction stays the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.logit_functions import ABOVE_RUNNER_UP

__all__ = ["put_confidence"]


def put_confidence(
    probabilities: NDArray[np.float32],  # (n, k) float32, overwritten
    top: NDArray[np.int64],  # (n,), the prediction
    rest: NDArray[np.float64],  # (n,), positive sum of the other classes' probabilities
    others: NDArray[np.float64],  # (n,), their new sum: 1 − c′, without cancellation
) -> NDArray[np.float32]:
    """Set the prediction's probability to 1 − others and rescale the rest, in place.

    The confidence never falls below r / (1 + r), with r the runner-up's share of the rest. There it
    stays a few units in the last place higher, so the argmax of the probabilities is `top`.
    """
    rows = np.arange(top.shape[0])
    probabilities[rows, top] = 0.0
    runner_up = probabilities.max(axis=1).astype(np.float64)
    share = runner_up / rest
    others = np.minimum(others, 1.0 / (1.0 + share))
    scale = (others / rest).astype(np.float32)
    probabilities *= scale[:, None]
    above = runner_up.astype(np.float32) * scale * ABOVE_RUNNER_UP
    probabilities[rows, top] = np.maximum((1.0 - others).astype(np.float32), above)
    return probabilities
