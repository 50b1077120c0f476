"""A digest of each row's input, so that copies of it can be told from new evidence.

Retries, frames of a still picture and one input that is sent again and again share their outcome:
the receipt carries the digest as the row's group. It is of the logits, bit by bit. It need not
withstand an adversary: who wants another digest changes a bit, and who makes two inputs share one
only keeps the labels of the second from counting.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["input_digests"]


def input_digests(logits: NDArray[np.float32]) -> list[int]:
    """64-bit digests, never 0, the same in every process.

    Returns: one a row.
    """
    width = logits.shape[1] * 4
    raw = np.ascontiguousarray(logits, "<f4").view(np.uint8).reshape(-1).data
    return [
        int.from_bytes(hashlib.blake2b(raw[start : start + width], digest_size=8).digest()) or 1
        for start in range(0, len(raw), width)
    ]
