"""Functions of checked logits: softmax, log softmax, logit gap, prediction.

They take what `trueprob.arrays.logits.as_logits` returns and check nothing again.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ABOVE_RUNNER_UP",
    "CERTAIN_GAP",
    "TRANSPOSE_BELOW",
    "Logits",
    "Probabilities",
    "fill_masks",
    "is_masked",
    "log_softmax",
    "logit_gap",
    "prediction",
    "softmax",
    "tempered_softmax",
    "wild_bound",
]

Logits = NDArray[np.float32]
Probabilities = NDArray[np.float32]

TRANSPOSE_BELOW: Final = 64  # classes; below, a class-major copy is faster (3.8x at 10)
# Quantiles of the gaps, with factors; the lower ones serve if 1 % or 10 % of the rows are wild.
USUAL: Final = ((0.99, 1.0), (0.9, 2.0), (0.5, 20.0))
CLIP: Final = 3.0  # times the smallest of them: where wild rows are cut at the latest
WILD: Final = 30.0  # times the same; no distance of 19 real networks exceeds 5 times
SAMPLE: Final = 4_000  # rows that percentiles are taken of
CERTAIN_GAP: Final = 1e6  # nats, of a row that masks leave one class; sums of it stay exact
# The prediction's probability is at least this many times the runner-up's, which is 2 to 4 units in
# the last place of float32: whoever takes the argmax of probabilities finds the prediction.
ABOVE_RUNNER_UP: Final = np.float32(1.0 + 2.0**-22)


def prediction(logits: Logits) -> NDArray[np.int64]:
    """Index of the largest logit of each row, the first of ties.

    Parameters
    ----------
    logits : ndarray of shape (n, k), float32

    Returns
    -------
    ndarray of shape (n,), int64
    """
    top: NDArray[np.int64] = np.argmax(logits, axis=1).astype(np.int64, copy=False)
    return top


def logit_gap(logits: Logits) -> NDArray[np.float32]:
    """Difference between the two largest logits of each row.

    Parameters
    ----------
    logits : ndarray of shape (n, k), float32
        k >= 2. Not probabilities.

    Returns
    -------
    ndarray of shape (n,), float32
        Non-negative and finite, unchanged by adding a constant to a row (up to the rounding of
        that addition). Masked classes (minus infinity) have no part in it; where they leave one
        class it is 1e6. Unit: nats.

    References
    ----------
    SMART, arXiv:2506.23492, definition of g(x).
    """
    n, k = logits.shape
    with np.errstate(over="ignore"):
        if k == 2:
            gap = np.abs(logits[:, 0] - logits[:, 1])
        elif k < TRANSPOSE_BELOW:
            two = np.partition(logits, k - 2, axis=1)[:, k - 2 :]
            gap = two[:, 1] - two[:, 0]
        else:
            rows = np.arange(n)
            top = logits.argmax(axis=1)
            rest = logits.copy()
            rest[rows, top] = -np.inf
            gap = logits[rows, top] - rest.max(axis=1)
    unbounded = np.isposinf(gap)
    if unbounded.any():
        alone = np.isfinite(logits).sum(axis=1) == 1
        gap = np.where(unbounded & alone, np.float32(CERTAIN_GAP), gap)
    largest = np.finfo(np.float32).max
    return np.asarray(np.minimum(gap, largest), dtype=np.float32)


def is_masked(logits: Logits) -> bool:
    """Whether a class of any row is masked by minus infinity; one fast pass."""
    return bool(np.minimum.reduce(logits, axis=None) == -np.inf)


def fill_masks(logits: Logits, masked: NDArray[np.bool_], below: float) -> Logits:
    """Rows with masked classes, shifted to a maximum of 0 and masked ones put at ``-below``.

    Other rows stay as they are. Unmasked classes end above ``-below``, so no masked class can be
    the largest.
    """
    rows = masked.any(axis=1)
    result: Logits = logits.copy()
    with np.errstate(over="ignore"):
        shifted = logits[rows] - logits[rows].max(axis=1, keepdims=True)
    shifted = np.maximum(shifted, np.float32(-0.5 * below))
    shifted[masked[rows]] = -below
    result[rows] = shifted
    return result


def wild_bound(logits: Logits) -> float | None:
    """Largest distance below a row's top, in nats, that a wild scale leaves; None if not wild."""
    top = logits.max(axis=1)
    with np.errstate(over="ignore"):
        if is_masked(logits):
            lowest = np.where(np.isneginf(logits), top[:, None], logits).min(axis=1)
            farthest = float((top - lowest).max())
            logits = logits[np.isfinite(logits).sum(axis=1) > 1]
        else:
            farthest = float((top - logits.min(axis=1)).max())
    if not len(logits):
        return None
    gap = logit_gap(logits[:: -(-len(logits) // SAMPLE)]).astype(np.float64)
    usual = min(times * float(np.quantile(gap, share)) for share, times in USUAL)
    return CLIP * usual if 0.0 < WILD * usual < farthest else None


def softmax(logits: Logits) -> Probabilities:
    """Softmax of each row.

    Parameters
    ----------
    logits : ndarray of shape (n, k), float32

    Returns
    -------
    ndarray of shape (n, k), float32
        C-contiguous; p[prediction] is above all others. Where float32 would round it to the same
        number as another, or logits are equal, it is 2 to 4 units in the last place higher.
    """
    return tempered_softmax(logits)


def tempered_softmax(
    logits: Logits,  # (n, k) float32
    temperature: float | NDArray[np.float64] | None = None,  # positive; a number or shape (n,)
    *,
    uniform_weight: float = 0.0,  # w in (1 − w)·p + w/k
) -> Probabilities:
    """Softmax of ``logits / temperature``, mixed with the uniform distribution.

    The row maximum is subtracted before the division, so the argmax gets exp(0) exactly and no
    other class can overtake it by rounding. Where another comes as close as rounding errors, the
    prediction is lifted above it. The result is C-contiguous.
    """
    n, k = logits.shape
    class_major = k < TRANSPOSE_BELOW
    work = np.array(logits.T if class_major else logits, dtype=np.float32, order="C")
    axis = 0 if class_major else 1
    # The difference of two float32 may be below all float32: −inf is right, since exp gives 0.
    with np.errstate(over="ignore", under="ignore"):
        work -= work.max(axis=axis, keepdims=True)
        if temperature is not None:
            inverse = _inverse_temperature(temperature)
            work *= inverse if inverse.ndim == 0 or class_major else inverse[:, None]
        np.exp(work, out=work)
        # 1 − e of every other class is above 8 rounding errors of p, also in the mixture.
        close = np.count_nonzero(work > 1.0 - 2.0**-21 / (1.0 - uniform_weight)) > n
        # One division per row instead of k; the factor includes the weight of the uniform mixture.
        work *= (1.0 - uniform_weight) / work.sum(axis=axis, keepdims=True)
    if uniform_weight:
        work += np.float32(uniform_weight / k)
    probabilities = np.ascontiguousarray(work.T) if class_major else work
    if close:
        rows, top = np.arange(n), prediction(logits)
        confidence = probabilities[rows, top]
        probabilities[rows, top] = 0.0
        above = probabilities.max(axis=1) * ABOVE_RUNNER_UP
        probabilities[rows, top] = np.maximum(confidence, above)
    return probabilities


def log_softmax(logits: Logits | NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the softmax of each row, in float64.

    Parameters
    ----------
    logits : ndarray of shape (n, k)

    Returns
    -------
    ndarray of shape (n, k), float64
        Unit: nats.
    """
    work = np.array(logits, dtype=np.float64)
    work -= work.max(axis=1, keepdims=True)
    work -= np.log(np.exp(work).sum(axis=1, keepdims=True))
    return work


def _inverse_temperature(temperature: float | NDArray[np.float64]) -> NDArray[np.float32]:
    # Clipped well inside float32, because 0 · −inf and 0 · inf would be NaN.
    return np.clip(1.0 / np.asarray(temperature, dtype=np.float64), 1e-30, 1e30).astype(np.float32)
