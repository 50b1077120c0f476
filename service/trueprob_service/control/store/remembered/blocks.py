"""Blocks of remembered predictions, each with the range of the hashes in it.

The index has all that a lookup needs to choose blocks, so that it reads the keys of few. Neither
database compresses the blocks: hashes cannot be compressed. The columns of bytes come last, so
that SQLite reads the others from a row's first page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    Select,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
)

from trueprob_service.control.store.tables import metadata

__all__ = [
    "BlockSpan",
    "RememberedBlockTable",
    "RememberedFigures",
    "StoredBlock",
    "remembered_block",
]

remembered_block: Final = Table(
    "remembered_block",
    metadata,
    # SQLite counts up in INTEGER keys only.
    Column(
        "id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    ),
    Column("model", String(100), nullable=False),
    Column("first_key", BigInteger, nullable=False),  # signed first 8 bytes of the first hash
    Column("last_key", BigInteger, nullable=False),
    Column("hour", Integer, nullable=False),  # of the predictions, since 1970 UTC
    Column("n_rows", Integer, nullable=False),
    Column("size_bytes", Integer, nullable=False),  # with its share of the indexes
    Column("sealed", Boolean, nullable=False),  # not merged again
    Column("hashes", LargeBinary, nullable=False),  # their first halves
    Column("content", LargeBinary, nullable=False),
    Column("contexts", LargeBinary, nullable=False),
    Index(None, "model", "first_key", "last_key", "hour", "id"),
    Index(None, "hour", "model", "sealed", "n_rows", "size_bytes"),
    sqlite_autoincrement=True,
)
_TABLE: Final = remembered_block
_OVERHEAD_BYTES: Final = 200  # of a block besides its bytes, with both indexes
_AT_ONCE: Final = 100  # blocks in one statement

_INSERT: Final = insert(_TABLE).returning(_TABLE.c.id)
_SPAN: Final = (_TABLE.c.id, _TABLE.c.hour, _TABLE.c.first_key, _TABLE.c.last_key)
_OLDEST: Final = select(_TABLE.c.id, _TABLE.c.n_rows, _TABLE.c.size_bytes).order_by(
    _TABLE.c.hour, _TABLE.c.id
)
_SPANS: Final = select(*_SPAN).where(
    _TABLE.c.model == bindparam("model"), _TABLE.c.id > bindparam("after")
)
_SPANS_OF_KEY: Final = _SPANS.where(
    _TABLE.c.first_key <= bindparam("key"), _TABLE.c.last_key >= bindparam("key")
)


class StoredBlock(NamedTuple):
    """A block to be stored."""

    model: str
    hour: int
    n_rows: int
    first_key: int
    last_key: int
    sealed: bool
    hashes: bytes
    content: bytes
    contexts: bytes

    @property
    def size_bytes(self) -> int:
        """Its size in the database, about."""
        return len(self.hashes) + len(self.content) + len(self.contexts) + _OVERHEAD_BYTES


class BlockSpan(NamedTuple):
    """Ids and ranges of blocks; arrays of shape (n,), in no order."""

    block: NDArray[np.int64]
    hour: NDArray[np.int64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


@dataclass(frozen=True)
class RememberedFigures:
    """What is remembered of one model and hour."""

    hour: int
    model: str
    n_rows: int
    size_bytes: int


class RememberedBlockTable:
    """The table ``remembered_block``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, blocks: Iterable[StoredBlock]) -> tuple[int, ...]:
        """Store blocks, and return their ids."""
        rows = [{**block._asdict(), "size_bytes": block.size_bytes} for block in blocks]
        return tuple(self._connection.execute(_INSERT, rows).scalars()) if rows else ()

    def replace(self, blocks: Sequence[int], new: Iterable[StoredBlock]) -> tuple[int, ...] | None:
        """Store new blocks if all of these could be deleted, else do nothing and return None."""
        with self._connection.begin_nested() as attempt:
            if self.delete(blocks) == len(blocks):
                return self.add(new)
            attempt.rollback()
        return None

    def last_id(self) -> int:
        """The id of the newest block; 0 without any."""
        return self._connection.execute(select(func.max(_TABLE.c.id))).scalar() or 0

    def spans(self, model: str, keys: Sequence[int] | None, *, after: int = 0) -> BlockSpan:
        """The blocks of a model whose ranges hold one of few keys; of all blocks for None."""
        given: dict[str, Any] = {"model": model, "after": after}
        if keys is None:
            found = [tuple(row) for row in self._connection.execute(_SPANS, given)]
        else:
            each = (self._connection.execute(_SPANS_OF_KEY, {**given, "key": k}) for k in keys)
            found = list({tuple(row) for rows in each for row in rows})
        return BlockSpan(*np.array(found, np.int64).reshape(-1, 4).T)

    def hashes(self, blocks: Sequence[int]) -> dict[int, bytes]:
        """The hashes of some blocks; those that are gone are left out."""
        return dict(self._some(blocks, "hashes"))

    def read(self, blocks: Sequence[int]) -> dict[int, tuple[bytes, bytes, bytes]]:
        """Hashes, content and contexts of some blocks; those that are gone are left out."""
        found = self._some(blocks, "hashes, content, contexts")
        return {block: (hashes, *rest) for block, hashes, *rest in found}

    def _some(self, blocks: Sequence[int], columns: str) -> Iterable[Any]:
        """Columns of some blocks, by text for the driver: many rows, each of a few microseconds."""
        if self._connection.dialect.name == "postgresql":
            place, given = "= ANY(%s::bigint[])", f"{{{','.join(map(str, blocks))}}}"
        else:
            place, given = "IN (SELECT value FROM json_each(?))", f"[{','.join(map(str, blocks))}]"
        text = f"SELECT id, {columns} FROM remembered_block WHERE id {place}"  # noqa: S608
        yield from self._connection.exec_driver_sql(text, (given,))

    def delete(self, blocks: Sequence[int]) -> int:
        """Delete blocks, and return how many there were."""
        gone = 0
        for start in range(0, len(blocks), _AT_ONCE):
            some = blocks[start : start + _AT_ONCE]
            gone += self._connection.execute(delete(_TABLE).where(_TABLE.c.id.in_(some))).rowcount
        return gone

    def open_blocks(self, *, before_hour: int, limit: int) -> list[tuple[int, str, int, int]]:
        """Blocks of one model and hour before an hour that may be merged: id, model, hour, rows."""
        open_ = (_TABLE.c.hour < before_hour, _TABLE.c.sealed.is_(False))
        first = self._connection.execute(
            select(_TABLE.c.hour, _TABLE.c.model)
            .where(*open_)
            .order_by(_TABLE.c.hour, _TABLE.c.model)
            .limit(1)
        ).first()
        if first is None:
            return []
        chosen = (
            select(_TABLE.c.id, _TABLE.c.model, _TABLE.c.hour, _TABLE.c.n_rows)
            .where(_TABLE.c.hour == first.hour, _TABLE.c.model == first.model, *open_)
            .order_by(_TABLE.c.id)
            .limit(limit)
        )
        return [(r.id, r.model, r.hour, r.n_rows) for r in self._connection.execute(chosen)]

    def figures(self) -> list[RememberedFigures]:
        """What is remembered, by hour and model, the oldest first."""
        found = self._connection.execute(
            select(
                _TABLE.c.hour,
                _TABLE.c.model,
                func.sum(_TABLE.c.n_rows),
                func.sum(_TABLE.c.size_bytes),
            )
            .group_by(_TABLE.c.hour, _TABLE.c.model)
            .order_by(_TABLE.c.hour)
        )
        return [RememberedFigures(hour, model, int(n), int(size)) for hour, model, n, size in found]

    def forget_hours(self, *, before: int, limit: int) -> int:
        """Delete blocks of the hours before one, at most so many; returns how many rows."""
        return self._forget(_OLDEST.where(_TABLE.c.hour < before).limit(limit))

    def forget_oldest(self, *, excess_bytes: int, limit: int) -> int:
        """Delete the oldest blocks, at most so many, until they free so many bytes."""
        return self._forget(_OLDEST.limit(limit), excess_bytes)

    def _forget(self, some: Select[Any], most_bytes: float = math.inf) -> int:
        chosen, n, freed = [], 0, 0
        for block, n_rows, size in self._connection.execute(some):
            if freed >= most_bytes:
                break
            chosen.append(block)
            n, freed = n + n_rows, freed + size
        self.delete(chosen)
        return n
