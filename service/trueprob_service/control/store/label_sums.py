"""Calibration statistics of labels: by hour, in total, and of the last N labels.

`BinTable` holds sums by bin of confidence: by hour, from which windows in hours are computed, and
totals that only increase, for Prometheus. `ClassTotalTable` holds such totals by predicted class,
for models with a few classes. `WindowBlockTable` holds the last N labels of each pair as a ring of
ten blocks. A block takes N/10 labels; the newest one is being filled and the other nine are full,
so after N labels the window holds between 0.9 N and N of them.

With two classes, labels are binned by the predicted class too, so that the bins of P(class 1) can
be told: the column ``bin`` is 15·part + bin. Part 0 has the labels of other models, and
those of releases before this; parts 1 and 2 have predictions of class 0 and class 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, Table, and_, bindparam, delete, func, select

from trueprob.scores.binned import N_BINS, BinnedCalibration
from trueprob_service.control.store.promotions import LIVE_PAIRS, RECENT_PAIRS
from trueprob_service.control.store.tables import (
    bin_running,
    bin_total,
    class_running,
    model,
    promotion,
    upsert,
    window_block,
)

__all__ = [
    "N_BLOCKS",
    "BinTable",
    "Block",
    "ClassTotalTable",
    "Parts",
    "WindowBlockTable",
    "WindowSums",
    "advance",
    "by_part",
]

N_BLOCKS: Final = 10
_N_PARTS: Final = 3
_SUMS: Final = ("count", "confidence", "correct", "variance")
_CLASS_SUMS: Final = ("labels", "confidence", "correct", "squared")
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


def _of_pairs(pairs: Select[Any], table: Table, *columns: str) -> Select[Any]:
    key, of = ("model", "version", "calibrator"), pairs.subquery()
    joined = and_(*(of.c[name] == table.c[name] for name in key))
    return select(*(table.c[name] for name in (*key, *columns))).join(of, joined)


_RUNNING: Final = _of_pairs(RECENT_PAIRS, bin_running, "bin", *_SUMS)
_CLASSES: Final = _of_pairs(RECENT_PAIRS, class_running, "predicted", *_CLASS_SUMS)
_WINDOWS: Final = _of_pairs(LIVE_PAIRS, window_block, "sums").order_by(
    window_block.c.model,
    window_block.c.version,
    window_block.c.calibrator,
    window_block.c.sequence,
)

# The sequence number of a block, and its statistics.
Block = tuple[int, BinnedCalibration]
Pair = tuple[str, int, str]  # model, version, calibrator


class Parts(NamedTuple):
    """Statistics of labels, by part of the column ``bin``."""

    unknown: BinnedCalibration  # all labels, if k is not 2
    class_0: BinnedCalibration  # of predictions of class 0
    class_1: BinnedCalibration

    @property
    def labels(self) -> BinnedCalibration:
        """Those of all labels."""
        return self.unknown + self.class_0 + self.class_1


class WindowSums(NamedTuple):
    """Statistics of a pair's labels in a window."""

    labels: BinnedCalibration
    class_1: BinnedCalibration  # of P(class 1) and "is class 1"; without rows unless k is 2


def by_part(
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    prediction: NDArray[np.int64],
    *,
    n_classes: int,
) -> tuple[BinnedCalibration, ...]:
    """Sums of the new labels of each part of the column ``bin``; later parts may be left out."""
    if n_classes != 2:
        return (BinnedCalibration.of(confidence, correct),)
    predicted = [prediction == index for index in range(2)]
    parts = [BinnedCalibration.of(confidence[rows], correct[rows]) for rows in predicted]
    return BinnedCalibration.zeros(), *parts


class BinTable:
    """The tables ``bin_total`` and ``bin_running``. The caller holds the model's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        model: str,
        revision: int,
        *,
        version: int,
        calibrator: str,
        hour: int,
        new: Sequence[BinnedCalibration],  # see `by_part`
    ) -> None:
        """Add the statistics of new labels to a promotion's hour and to its pair's total."""
        sums = {name: np.concatenate([getattr(part, name) for part in new]) for name in _SUMS}
        rows = [
            {"bin": int(index), **{name: float(sums[name][index]) for name in _SUMS}}
            for index in np.flatnonzero(sums["count"])
        ]
        if not rows:
            return
        for table, key in (
            (bin_total, {"revision": revision, "hour": hour}),
            (bin_running, {"version": version, "calibrator": calibrator}),
        ):
            added = [{"model": model, **key, **row} for row in rows]
            self._connection.execute(upsert(self._connection, table, adds=True), added)

    def roll_up(self, *, before_hour: int, limit: int) -> int:
        """Add the hours before this one to the first hour of their day; returns the rows deleted.

        Takes the models' locks itself, in the order of their names.
        """
        table = bin_total
        old = (
            select(table)
            .where(table.c.hour < before_hour, table.c.hour % 24 != 0)
            .order_by(table.c.model, table.c.revision, table.c.hour, table.c.bin)
            .limit(limit)
        )
        names = sorted({row.model for row in self._connection.execute(old)})
        for name in names:
            lock = select(model.c.id).where(model.c.name == name).with_for_update()
            self._connection.execute(lock)
        rows = [row for row in self._connection.execute(old) if row.model in names]
        for row in rows:
            values = dict(row._mapping)
            key = [table.c[name] == values[name] for name in ("model", "revision", "hour", "bin")]
            self._connection.execute(delete(table).where(*key))
            first_hour = {**values, "hour": row.hour - row.hour % 24}
            self._connection.execute(upsert(self._connection, table, adds=True), first_hour)
        return len(rows)

    def running(self, *, replaced_since: float | None = None) -> dict[Pair, Parts]:
        """Totals of all pairs, or of those that are live or were replaced since then, by part."""
        statement, values = select(bin_running), {}
        if replaced_since is not None:
            statement, values = _RUNNING, {"replaced_since": replaced_since}
        rows = self._connection.execute(statement, values).all()
        positions = {pair: i for i, pair in enumerate(dict.fromkeys(row[:3] for row in rows))}
        sums = np.zeros((len(positions), _N_PARTS * N_BINS, len(_SUMS)))
        sums[[positions[row[:3]] for row in rows], [row[3] for row in rows]] = [
            row[4:] for row in rows
        ] or np.zeros((0, len(_SUMS)))
        return {pair: _parts(sums[index]) for pair, index in positions.items()}

    def since(self, model: str, *, version: int, calibrator: str, hour: int) -> WindowSums:
        """Statistics of a pair's labels since an hour (inclusive), over all its promotions."""
        statement = (
            select(bin_total.c.bin, *(func.sum(bin_total.c[name]) for name in _SUMS))
            .join(
                promotion,
                (promotion.c.model == bin_total.c.model)
                & (promotion.c.revision == bin_total.c.revision),
            )
            .where(
                bin_total.c.model == model,
                bin_total.c.hour >= hour,
                promotion.c.version == version,
                promotion.c.calibrator == calibrator,
            )
            .group_by(bin_total.c.bin)
        )
        sums = np.zeros((_N_PARTS * N_BINS, len(_SUMS)))
        for index, *values in self._connection.execute(statement):
            sums[index] = values
        parts = _parts(sums)
        return WindowSums(parts.labels, parts.class_0.complement() + parts.class_1)


def _parts(sums: NDArray[np.float64]) -> Parts:
    """The parts of an array of shape (45, 4), as the column ``bin`` numbers its rows."""
    parts = sums.reshape(_N_PARTS, N_BINS, len(_SUMS))
    return Parts(*(BinnedCalibration(*part.T) for part in parts))


class ClassTotalTable:
    """The table ``class_running``. The caller holds the model's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(
        self,
        model: str,
        *,
        version: int,
        calibrator: str,
        prediction: NDArray[np.int64],  # (n,)
        confidence: NDArray[np.float64],  # (n,)
        correct: NDArray[np.bool_],  # (n,)
    ) -> None:
        """Add new labels to the totals of their pair, by predicted class."""
        columns = (None, confidence, correct, (correct - confidence) ** 2)
        sums = [np.bincount(prediction, weights=column) for column in columns]
        pair = {"model": model, "version": version, "calibrator": calibrator}
        rows = [
            {
                **pair,
                "predicted": index,
                **{name: float(of[index]) for name, of in zip(_CLASS_SUMS, sums, strict=True)},
            }
            for index in np.flatnonzero(sums[0]).tolist()
        ]
        if rows:
            self._connection.execute(upsert(self._connection, class_running, adds=True), rows)

    def running(self, *, replaced_since: float) -> dict[Pair, dict[int, tuple[float, ...]]]:
        """Totals of pairs that are live or were replaced since then, by predicted class.

        They are labels, Σp, Σy and Σ(y − p)².
        """
        found: dict[Pair, dict[int, tuple[float, ...]]] = {}
        values = {"replaced_since": replaced_since}
        for name, version, calibrator, predicted, *sums in self._connection.execute(
            _CLASSES, values
        ):
            found.setdefault((name, version, calibrator), {})[predicted] = tuple(sums)
        return found


class WindowBlockTable:
    """The table ``window_block``. The caller holds the model's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def newest(self, model: str, version: int, calibrator: str) -> Block | None:
        """The block being filled; None before the first label."""
        pair = {"model": model, "version": version, "calibrator": calibrator}
        row = self._connection.execute(_NEWEST, pair).first()
        return None if row is None else (row.sequence, _from_bytes(row.sums))

    def put(self, model: str, version: int, calibrator: str, blocks: list[Block]) -> None:
        """Write blocks; each replaces the block ten positions before it."""
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

    def windows(self) -> dict[Pair, BinnedCalibration]:
        """The sum of each live pair's blocks."""
        rows = self._connection.execute(_WINDOWS).all()
        if not rows:
            return {}
        blocks = np.frombuffer(b"".join(row[3] for row in rows), "<f8").reshape(-1, 4, N_BINS)
        first: dict[Pair, int] = {}
        for index, (name, version, calibrator, _) in enumerate(rows):
            first.setdefault((name, version, calibrator), index)
        sums = np.add.reduceat(blocks, list(first.values()))
        return {pair: BinnedCalibration(*each) for pair, each in zip(first, sums, strict=True)}


def _to_bytes(binned: BinnedCalibration) -> bytes:
    rows = [binned.count, binned.confidence, binned.correct, binned.variance]
    return np.stack(rows).astype("<f8").tobytes()


def _from_bytes(raw: bytes) -> BinnedCalibration:
    count, confidence, correct, variance = (
        np.frombuffer(raw, "<f8").reshape(4, N_BINS).astype(np.float64)
    )
    return BinnedCalibration(count=count, confidence=confidence, correct=correct, variance=variance)


def advance(
    newest: Block | None,  # the block being filled; None if there is none yet
    confidence: NDArray[np.float64],  # (n,), of the new labels in order
    correct: NDArray[np.bool_],  # (n,)
    *,
    window_labels: int,  # N; a block takes a tenth of it
) -> list[Block]:
    """The blocks to write, in order, to add labels to the ring; at most ten."""
    capacity = -(-window_labels // N_BLOCKS)
    sequence, filling = (0, BinnedCalibration.zeros()) if newest is None else newest
    blocks: list[Block] = []
    # Blocks that later labels of this call would overwrite are skipped.
    skipped = (len(confidence) - capacity) // capacity - N_BLOCKS
    start = 0
    while start < len(confidence):
        free_space = capacity - int(filling.n)
        if free_space <= 0:
            sequence, filling, free_space = sequence + 1, BinnedCalibration.zeros(), capacity
            if skipped > 0:
                sequence, start, skipped = sequence + skipped, start + skipped * capacity, 0
        chunk = slice(start, start + free_space)
        filling = filling.update(confidence[chunk], correct[chunk])
        start += free_space
        blocks.append((sequence, filling))
    return blocks[-N_BLOCKS:]
