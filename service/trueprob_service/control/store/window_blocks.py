"""The last N labels of each pair, as a ring of ten blocks of binned statistics.

A block takes N/10 labels; the newest is filling, the other nine are full, so the window holds
between 0.9 N and N labels once that many have come.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from sqlalchemy import Connection, bindparam, select

from trueprob.scores.binned import N_BINS, BinnedCalibration
from trueprob_service.control.store.insertion import upsert
from trueprob_service.control.store.tables import window_block

__all__ = ["N_BLOCKS", "Block", "WindowBlocks"]

N_BLOCKS: Final = 10
_NEWEST: Final = (
    select(window_block.c.sequence, window_block.c.sums)
    .where(
        window_block.c.model == bindparam("model"),
        window_block.c.version == bindparam("version"),
        window_block.c.calibrator == bindparam("calibrator"),
    )
    .order_by(window_block.c.sequence.desc())
    .limit(1)
)

# Place in the endless sequence of blocks, and what it holds.
Block = tuple[int, BinnedCalibration]


class WindowBlocks:
    """The table ``window_block``. The caller holds the model's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def newest(self, model: str, version: int, calibrator: str) -> Block | None:
        """The block that is filling."""
        pair = {"model": model, "version": version, "calibrator": calibrator}
        row = self._connection.execute(_NEWEST, pair).first()
        return None if row is None else (row.sequence, _from_bytes(row.sums))

    def put(self, model: str, version: int, calibrator: str, blocks: list[Block]) -> None:
        """Write blocks over those that lie ten places back."""
        rows = [
            {
                "model": model,
                "version": version,
                "calibrator": calibrator,
                "slot": sequence % N_BLOCKS,
                "sequence": sequence,
                "labels": int(binned.count.sum()),
                "sums": _to_bytes(binned),
            }
            for sequence, binned in blocks
        ]
        if rows:
            self._connection.execute(upsert(self._connection, window_block), rows)

    def windows(self) -> dict[tuple[str, int, str], BinnedCalibration]:
        """The sum of each pair's blocks."""
        sums: dict[tuple[str, int, str], BinnedCalibration] = {}
        statement = select(
            window_block.c.model,
            window_block.c.version,
            window_block.c.calibrator,
            window_block.c.sums,
        ).order_by(window_block.c.sequence)
        for model, version, calibrator, raw in self._connection.execute(statement):
            pair = (model, version, calibrator)
            sums[pair] = sums.get(pair, BinnedCalibration.zeros()) + _from_bytes(raw)
        return sums


def _to_bytes(binned: BinnedCalibration) -> bytes:
    rows = [binned.count, binned.confidence, binned.correct, binned.variance]
    return np.stack(rows).astype("<f8").tobytes()


def _from_bytes(raw: bytes) -> BinnedCalibration:
    count, confidence, correct, variance = (
        np.frombuffer(raw, "<f8").reshape(4, N_BINS).astype(np.float64)
    )
    return BinnedCalibration(count=count, confidence=confidence, correct=correct, variance=variance)
