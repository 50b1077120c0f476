"""The memory of predictions with ids, as the other services see it: start, find, figures, close.

It connects `writer`, `merging` and `lookup`, and has the figures for the metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trueprob_service.control.remembered.lookup import RememberedLookup, RememberedRows
from trueprob_service.control.remembered.merging import RememberedMerging
from trueprob_service.control.remembered.writer import RememberedWriter
from trueprob_service.control.store import Store
from trueprob_service.receipts.identified import IdentifiedQueue
from trueprob_service.receipts.receipt import Receipts
from trueprob_service.settings import Settings

__all__ = ["Memory"]


class Memory:
    """Remembers the predictions of this process, and finds those of all processes."""

    def __init__(
        self,
        store: Store,
        queue: IdentifiedQueue,
        receipts: Receipts,
        *,
        settings: Settings,
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._lookup = RememberedLookup(
            store,
            secrets=receipts.secrets,
            ttl_seconds=settings.remember_ttl_seconds,
            clock=clock,
        )
        self._merging = RememberedMerging(
            store,
            ttl_seconds=settings.remember_ttl_seconds,
            most_bytes=settings.remember_max_bytes,
            clock=clock,
        )
        self._writer = RememberedWriter(
            store,
            queue,
            receipts=receipts,
            flush_seconds=settings.remember_flush_seconds,
            written=self._merging.note,
        )

    def start(self) -> None:
        """Write and merge from now on."""
        self._merging.start()
        self._writer.start()

    def close(self) -> None:
        """Write what waits, and stop."""
        self._writer.close()
        self._merging.close()

    def flush(self) -> bool:
        """Write what this process has answered; whether all of it is stored."""
        return self._writer.flush()

    def find(
        self, model: str, ids: Sequence[str], before: RememberedRows | None = None
    ) -> RememberedRows:
        """What is remembered of some ids; see `RememberedLookup.find`."""
        self.flush()
        return self._lookup.find(model, ids, before)

    def merge(self) -> None:
        """Merge what is due, now."""
        self._merging.merge_due()

    def clean_up(self) -> None:
        """Merge what is left of ended hours, and forget what is too old or too much."""
        self._merging.look()

    def figures(self) -> Mapping[str, float]:
        """Counters and gauges of this process, by the names of their metrics."""
        return {
            "remembered_total": self._writer.rows,
            "remembered_dropped_total": self._writer.dropped,
            "remembered_forgotten_total": self._merging.forgotten,
            "remembered_lag_seconds": self._writer.lag_seconds,
        }
