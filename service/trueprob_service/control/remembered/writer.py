"""Writes answered rows with ids to the database, in groups, behind the answers.

Rows wait at most ``remember_flush_seconds``: what a process that is killed has not written yet.
While the database does not work, blocks wait in memory, up to a bound; rows beyond it are dropped
and counted. No answer waits for any of this.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final

from trueprob_service.control.remembered.blocks import RememberedBlock, blocks_of, id_key
from trueprob_service.control.store import Store
from trueprob_service.control.store.remembered.blocks import StoredBlock
from trueprob_service.errors import DatabaseUnavailable
from trueprob_service.receipts.identified import IdentifiedQueue
from trueprob_service.receipts.receipt import Receipts

__all__ = ["RememberedWriter", "stored"]

_LOG: Final = logging.getLogger(__name__)
MOST_WAITING_BYTES: Final = 64 << 20  # of blocks, while the database does not work
_RETRY_SECONDS: Final = 1.0


def stored(
    model: str, hour: int, block: RememberedBlock, *, sealed: bool = False
) -> Iterable[StoredBlock]:
    """A block for the database, in parts."""
    for part in block.parts():
        first, last = part.span
        yield StoredBlock(model, hour, len(part), first, last, sealed, *part.to_bytes())


class RememberedWriter:
    """Writes the rows of this process."""

    def __init__(
        self,
        store: Store,
        queue: IdentifiedQueue,
        *,
        receipts: Receipts,  # has stamped the rows
        flush_seconds: float,
        # Called with the model, the hour, the ids of the blocks and their rows.
        written: Callable[[str, int, tuple[int, ...], int], object],
    ) -> None:
        self._store = store
        self._queue = queue
        self._receipts = receipts
        self._key = id_key(receipts.secrets[0])
        self._flush_seconds = flush_seconds
        self._written = written
        self._waiting: list[tuple[str, int, list[StoredBlock]]] = []
        self._waiting_bytes = 0
        self._since: float | None = None  # when the oldest row that waits was taken, monotonic
        self._flushing = threading.Lock()
        self._closing = threading.Event()
        self._full = False
        self.rows = 0  # written ever
        self._dropped = 0  # while the database did not work, ever
        self._thread = threading.Thread(target=self._work, name="trueprob-remember", daemon=True)

    @property
    def dropped(self) -> int:
        """Rows that were answered and not remembered, ever."""
        return self._dropped + self._queue.dropped

    @property
    def lag_seconds(self) -> float:
        """How long rows have been waiting for a database that does not take them."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """Write from now on."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and stop."""
        self._closing.set()
        self._queue.filled.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush()
        if self._waiting:
            n = sum(block.n_rows for _, _, blocks in self._waiting for block in blocks)
            _LOG.error("%d predictions with ids are forgotten: the database does not work", n)

    def flush(self) -> bool:
        """Write what waits now; whether all of it is stored. Never raises for the database."""
        with self._flushing:
            self._take()
            if not self._waiting:
                return True
            try:
                with self._store.write() as transaction:
                    ids = [transaction.remembered.add(blocks) for _, _, blocks in self._waiting]
            except DatabaseUnavailable:
                return False
            written, self._waiting = self._waiting, []
            self._waiting_bytes, self._since, self._full = 0, None, False
            for (model, hour, blocks), stored_as in zip(written, ids, strict=True):
                n = sum(block.n_rows for block in blocks)
                self.rows += n
                self._written(model, hour, stored_as, n)
        return True

    def _take(self) -> None:
        """Turn the rows of the queue into blocks, up to the bound."""
        answers = self._queue.take()
        if not answers:
            return
        if self._since is None:
            self._since = time.monotonic()
        if self._waiting_bytes > MOST_WAITING_BYTES:
            self._dropped += sum(len(answer.ids) for answer in answers)
            if not self._full:
                _LOG.warning(
                    "predictions are answered, but not remembered by their ids: the database has "
                    "taken none for %.0f s", self.lag_seconds,
                )  # fmt: skip
            self._full = True
            return
        for (model, hour), block in blocks_of(
            answers, key=self._key, process=self._receipts.process
        ).items():
            blocks = list(stored(model, hour, block))
            self._waiting.append((model, hour, blocks))
            self._waiting_bytes += sum(each.size_bytes for each in blocks)

    def _work(self) -> None:
        while not self._closing.is_set():
            self._queue.filled.wait()
            self._closing.wait(self._flush_seconds)
            try:
                while not self.flush() and not self._closing.wait(_RETRY_SECONDS):
                    pass
            except Exception:  # noqa: BLE001 - the thread must survive
                _LOG.exception("remembering predictions failed")
                self._closing.wait(_RETRY_SECONDS)
