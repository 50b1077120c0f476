"""Filling the ring of ten blocks that holds the last N labels of a pair."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trueprob.scores.binned import BinnedCalibration
from trueprob_service.control.store.window_blocks import N_BLOCKS, Block

__all__ = ["advance"]


def advance(
    newest: Block | None,  # the block that is filling; None when there is none yet
    confidence: NDArray[np.float64],  # (n,), new labels, in order
    correct: NDArray[np.bool_],  # (n,), new labels, in order
    *,
    window_labels: int,  # N; a block takes a tenth of it
) -> list[Block]:
    """Blocks to write so that the ring holds these labels too.

    Returns: in order, at most ten: earlier ones would be overwritten at once.
    """
    capacity = -(-window_labels // N_BLOCKS)
    sequence, filling = (0, BinnedCalibration.zeros()) if newest is None else newest
    blocks: list[Block] = []
    # The first labels of many may go to blocks that the last of them overwrite: passed over.
    passed = (len(confidence) - capacity) // capacity - N_BLOCKS
    start = 0
    while start < len(confidence):
        room = capacity - int(filling.n)
        if room <= 0:
            sequence, filling, room = sequence + 1, BinnedCalibration.zeros(), capacity
            if passed > 0:
                sequence, start, passed = sequence + passed, start + passed * capacity, 0
        part = slice(start, start + room)
        filling = filling.update(confidence[part], correct[part])
        start += room
        blocks.append((sequence, filling))
    return blocks[-N_BLOCKS:]
