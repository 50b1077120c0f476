"""The m likeliest classes of each row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["likeliest"]


def likeliest(
    probabilities: NDArray[np.float32], prediction: NDArray[np.int64], m: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Classes by descending probability.

    The prediction comes first, of other ties the lower index. Each probability and its class are
    packed into one integer, so no two are equal and a selection without a full sort is exact.
    """
    n, k = probabilities.shape
    from_behind = np.arange(k - 1, -1, -1, dtype=np.uint64)
    # The bits of floats that are not negative have the order of the floats.
    bits: NDArray[Any] = np.ascontiguousarray(probabilities).view(np.uint32)
    keys = (bits.astype(np.uint64) << np.uint64(32)) | from_behind
    keys[np.arange(n), prediction] |= np.uint64(0xFFFFFFFF << 32)
    if m < k:
        keys = np.partition(keys, k - m, axis=1)[:, k - m :]
    keys = np.sort(keys, axis=1)[:, ::-1]
    indices = k - 1 - (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    return indices, np.take_along_axis(probabilities, indices, axis=1)
