"""Finds the predictions of many ids at once, as the receipts that they would have had.

A hash lies in at most one row of a block. Blocks are chosen by the range of their hashes, and only
the hashes of the chosen ones are read; the rows of those that have a hit follow. So a request of
100 000 ids reads each block once, and one of one id a part of the index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.control.remembered.blocks import (
    RememberedBlock,
    id_hashes,
    id_key,
    matches,
    signed,
)
from trueprob_service.control.store import Store
from trueprob_service.control.store.remembered.blocks import RememberedBlockTable
from trueprob_service.errors import ModelNotFound
from trueprob_service.receipts.columns import ROW, ReceiptColumns, number
from trueprob_service.receipts.receipt import digest64

__all__ = ["RememberedLookup", "RememberedRows"]

_FEW_KEYS: Final = 8  # the index is asked for each; for more, all its ranges are read
_BLOCKS_AT_ONCE: Final = 64  # 2 MB of hashes
# Ids of blocks grow, but those of transactions that run at the same time may appear later.
_LATE_BLOCKS: Final = 10_000


@dataclass(frozen=True, eq=False)
class RememberedRows:
    """What is remembered of n ids."""

    model: str
    ids: Sequence[str]
    receipts: ReceiptColumns  # `genuine` where an id was found
    replaced: NDArray[np.bool_]  # (n,), whether an earlier prediction had the same id
    hashes: NDArray[np.void]  # (n,), keyed hashes of the ids, under the current secret
    seen: int  # the newest block that was looked at

    @property
    def missing(self) -> NDArray[np.int64]:
        """Places of the ids that were not found."""
        return np.flatnonzero(~self.receipts.genuine)


class RememberedLookup:
    """Looks ids up in the database."""

    def __init__(
        self,
        store: Store,
        *,
        secrets: Sequence[bytes],  # that sign receipts, the current one first
        ttl_seconds: float,
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._keys = [id_key(secret) for secret in secrets]
        self._ttl_seconds = ttl_seconds
        self._clock = clock

    def find(
        self, model: str, ids: Sequence[str], before: RememberedRows | None = None
    ) -> RememberedRows:
        """Find the latest prediction of each id; ``before`` is an earlier look at the same ids.

        Then only what it has not found is looked for, in blocks that are new since.
        """
        n = len(ids)
        rows, found = np.zeros(n, ROW), np.zeros(n, np.bool_)
        replaced, after, places = np.zeros(n, np.bool_), 0, np.arange(n)
        if before is not None:
            rows, found = before.receipts.rows.copy(), before.receipts.genuine.copy()
            replaced, places = before.replaced.copy(), before.missing
            after = max(0, before.seen - _LATE_BLOCKS)
        current = before.hashes if before is not None else id_hashes(self._keys[0], model, ids)
        wanted = current[places]
        given = [wanted] + [
            id_hashes(key, model, [ids[place] for place in places.tolist()])
            for key in self._keys[1:]
        ]
        oldest = (self._clock() - self._ttl_seconds) * 1e6
        with self._store.read() as transaction:
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            table = transaction.remembered
            seen = table.last_id()
            for hashes in given:
                for at, row, again in _Hits(table, model, hashes, after).read():
                    at = places[at]
                    valid = row["issued_at"].astype(np.float64) >= oldest
                    at, row, again = at[valid], row[valid], again[valid]
                    later = _is_later(row, rows[at])
                    replaced[at] |= again | found[at]
                    rows[at[later]] = row[later]
                    found[at] = True
        return RememberedRows(model, ids, ReceiptColumns(rows, found), replaced, current, seen)


def _is_later(row: NDArray[np.void], other: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which predictions are later than others; a row of zeros is earlier than all."""
    time, before = row["issued_at"], other["issued_at"]
    later: NDArray[np.bool_] = (time > before) | (
        (time == before) & (row["nonce"][:, 2] > other["nonce"][:, 2])
    )
    return later


class _Hits:
    """The blocks that may have some hashes, and the rows in them."""

    def __init__(
        self, table: RememberedBlockTable, model: str, hashes: NDArray[np.void], after: int
    ) -> None:
        self._table = table
        self._model = number(digest64(model))
        # Equal hashes, of an id that is given twice, stay next to one another.
        self._order = np.argsort(hashes["high"], kind="stable")
        self._high = hashes["high"][self._order]
        self._low = hashes["low"][self._order]
        keys = signed(self._high)
        few = keys.tolist() if len(keys) <= _FEW_KEYS else None
        self._span = table.spans(model, few, after=after)
        self._first = np.searchsorted(keys, self._span.first)
        self._stop = np.searchsorted(keys, self._span.last, side="right")

    def read(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.void], NDArray[np.bool_]]]:
        """For each block with hits: places of the hashes, rows, whether they replaced others."""
        chosen = np.flatnonzero(self._stop > self._first)
        for start in range(0, len(chosen), _BLOCKS_AT_ONCE):
            hits = self._hits(chosen[start : start + _BLOCKS_AT_ONCE].tolist())
            found = self._table.read([int(self._span.block[each]) for each in hits])
            for each, (wanted, places) in hits.items():
                block = RememberedBlock.from_bytes(*found[int(self._span.block[each])])
                same = block.low[places] == self._low[wanted]
                wanted, places = wanted[same], places[same]
                hour = int(self._span.hour[each])
                rows = block.receipts(places, hour=hour, model=self._model)
                yield self._order[wanted], rows, block.rows["replaced"][places]

    def _hits(self, some: list[int]) -> dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """By place of the block: places in the wanted hashes and in the block."""
        hashes = self._table.hashes([int(self._span.block[each]) for each in some])
        hits = {}
        for each in some:
            first = self._first[each]
            high = np.frombuffer(hashes[int(self._span.block[each])], "<u8")
            wanted, places = matches(self._high[first : self._stop[each]], high)
            if len(wanted):
                hits[each] = wanted + first, places
        return hits
