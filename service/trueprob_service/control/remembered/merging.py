"""Merges small blocks into larger ones, and forgets old hours.

A flush writes a small run of blocks. Eight of one size become one of the next size, so a row is
written about four times in all, always in order, and a lookup reads few blocks. A run of half of
`RUN_ROWS` or more is sealed, and so is what is left of an hour that is over. A merge reads and
sorts outside of the transaction that replaces its blocks; if another process has replaced or
forgotten one of them, nothing changes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from trueprob_service.control.remembered.blocks import RememberedBlock
from trueprob_service.control.remembered.writer import stored
from trueprob_service.control.store import Store
from trueprob_service.control.store.remembered.blocks import RememberedBlockTable
from trueprob_service.errors import DatabaseUnavailable

__all__ = ["RUN_ROWS", "RememberedMerging"]

_LOG: Final = logging.getLogger(__name__)
RUN_ROWS: Final = 1 << 19  # 24 MB to write
_OPEN_RUNS: Final = 8  # of one size, before they are merged
_LATE_SECONDS: Final = 300.0  # after the end of an hour, its last blocks are merged
_LOOK_SECONDS: Final = 60.0  # between two looks at what is to be sealed or forgotten
_FORGET_BLOCKS: Final = 2_000  # in one transaction


@dataclass(frozen=True)
class _Run:
    blocks: tuple[int, ...]  # their ids
    n_rows: int


class RememberedMerging:
    """Merges the blocks of this process, and those of ended hours."""

    def __init__(
        self,
        store: Store,
        *,
        ttl_seconds: float,
        most_bytes: int,
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._most_bytes = most_bytes
        self._clock = clock
        # By model, hour and how often a row was merged.
        self._runs: dict[tuple[str, int, int], list[_Run]] = {}
        self._due: list[tuple[str, int, int]] = []
        self._noting = threading.Lock()
        self._merging = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._looked_at = time.monotonic()
        self.forgotten = 0  # rows beyond the limit of bytes, ever
        self._thread = threading.Thread(target=self._work, name="trueprob-merge", daemon=True)

    def start(self) -> None:
        """Merge from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the merge that is running."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def note(self, model: str, hour: int, blocks: Sequence[int], n_rows: int) -> None:
        """A flush has stored these blocks."""
        self._note((model, hour, 0), _Run(tuple(blocks), n_rows))
        if time.monotonic() - self._looked_at > _LOOK_SECONDS:
            self._wake.set()

    def _note(self, place: tuple[str, int, int], run: _Run) -> None:
        with self._noting:
            runs = self._runs.setdefault(place, [])
            runs.append(run)
            if len(runs) >= _OPEN_RUNS and place not in self._due:
                self._due.append(place)
                self._wake.set()

    def merge_due(self) -> None:
        """Merge runs until no size has eight."""
        with self._merging:
            self._merge_due()

    def _merge_due(self) -> None:
        while self._due and not self._closing.is_set():
            with self._noting:
                place = self._due[0]
                runs, n = self._runs[place], 0
                taken: list[_Run] = []
                while runs and (len(taken) < 2 or n + runs[0].n_rows <= RUN_ROWS):
                    taken.append(runs.pop(0))
                    n += taken[-1].n_rows
                if len(runs) < _OPEN_RUNS:
                    self._due.remove(place)
            model, hour, level = place
            merged = self._merge(model, hour, [b for run in taken for b in run.blocks], n)
            if merged is not None and n < RUN_ROWS // 2:
                self._note((model, hour, level + 1), merged)

    def _merge(
        self, model: str, hour: int, blocks: list[int], n: int, *, seal: bool = False
    ) -> _Run | None:
        """Replace blocks by one run; None if another process was faster."""
        with self._store.read() as transaction:
            found = transaction.remembered.read(blocks)
        if len(found) < len(blocks):
            return None
        merged = RememberedBlock.merged([RememberedBlock.from_bytes(*found[b]) for b in blocks])
        new = list(stored(model, hour, merged, sealed=seal or n >= RUN_ROWS // 2))
        with self._store.write() as transaction:
            ids = transaction.remembered.replace(blocks, new)
        return None if ids is None else _Run(ids, len(merged))

    def look(self) -> None:
        """Seal what is left of ended hours, and forget what is too old or too much."""
        self._looked_at = time.monotonic()
        self.forget()
        now = self._clock()
        before = int((now - _LATE_SECONDS) // 3600)
        with self._noting:
            for place in [place for place in self._runs if place[1] < before]:
                del self._runs[place]
            self._due = [place for place in self._due if place[1] >= before]
        while not self._closing.is_set():
            with self._store.read() as transaction:
                open_ = transaction.remembered.open_blocks(before_hour=before, limit=1000)
            chosen: list[int] = []
            n = 0
            for block, _, _, n_rows in open_:
                if chosen and n + n_rows > RUN_ROWS:
                    break
                chosen.append(block)
                n += n_rows
            if not chosen:
                return
            _, model, hour, _ = open_[0]
            if self._merge(model, hour, chosen, n, seal=True) is None:
                return

    def forget(self) -> int:
        """Delete hours that are too old, and the oldest blocks beyond the size; returns the rows.

        Nothing is found that is too old, also before it is deleted.
        """
        before = int((self._clock() - self._ttl_seconds) // 3600)
        rows = self._in_batches(
            lambda table: table.forget_hours(before=before, limit=_FORGET_BLOCKS)
        )
        with self._store.read() as transaction:
            size = sum(each.size_bytes for each in transaction.remembered.figures())
        excess = size - self._most_bytes
        if excess <= 0:
            return rows
        excess += self._most_bytes // 100  # so that it is not over again at once
        with self._store.write() as transaction:
            beyond = transaction.remembered.forget_oldest(excess_bytes=excess, limit=_FORGET_BLOCKS)
        self.forgotten += beyond
        _LOG.warning(
            "%d remembered predictions are forgotten before their time, because all together took "
            "%d bytes, more than remember_max_bytes, %d", beyond, size, self._most_bytes,
        )  # fmt: skip
        return rows + beyond

    def _in_batches(self, delete: Callable[[RememberedBlockTable], int]) -> int:
        total = 0
        while not self._closing.is_set():
            with self._store.write() as transaction:
                n = delete(transaction.remembered)
            total += n
            if not n:
                break
        return total

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._wake.clear()
            try:
                self.merge_due()
                if time.monotonic() - self._looked_at > _LOOK_SECONDS:
                    self.look()
            except DatabaseUnavailable:
                self._closing.wait(1.0)
            except Exception:  # noqa: BLE001 - the thread must survive
                _LOG.exception("merging remembered predictions failed")
                self._closing.wait(_LOOK_SECONDS)
