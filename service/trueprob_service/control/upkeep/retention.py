"""The clean-up job: deletes what is no longer needed, in short transactions.

- Keys of counted labels, once their receipts have expired. The same transaction stores a
  high-water mark, and receipts issued before it are refused even if the clock is set back. So no
  label counts twice.
- Groups of labels that had no label for as long as a receipt is valid.
- Hourly bins older than five weeks, which become daily ones.
- Webhook events, a week after they ended.
- Rows of the audit trail, if a setting says after how many days.
- Names of deleted models, a day after their last receipts have expired.
- Remembered predictions that are too old, or beyond their size.
- Files of calibration sets that no model has, a day after they were last stored, and uploads that a
  crash cut short.

Labels are stored between the transactions. Every process runs the job; two may run at the same
time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trueprob_service.control.audit.trail import AuditTrail
from trueprob_service.control.fitting.set_files import SetFiles
from trueprob_service.control.labels.counting import DAY_SECONDS
from trueprob_service.control.poll import Poll
from trueprob_service.control.remembered.memory import Memory
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.labels import Position

__all__ = ["CleanUpCounts", "Retention"]

_ROWS: Final = 5_000  # in one transaction
_TRANSACTIONS: Final = 100  # of one run, for each kind
_PAUSE_SECONDS: Final = 0.02
_HOURLY_DAYS: Final = 35
_EVENT_SECONDS: Final = 7 * 86_400.0
_UNREFERENCED_SECONDS: Final = 86_400.0
# A replica may answer for a deleted model for this long: until its next sync, which is within an
# hour unless the database is unavailable.
_LATE_SECONDS: Final = 86_400.0


@dataclass(frozen=True)
class CleanUpCounts:
    """How many rows and files one run of the clean-up job deleted."""

    label_keys: int
    groups: int
    hourly_bins: int
    events: int
    files: int
    deleted_models: int
    audit_rows: int


class Retention:
    """The clean-up job of this process."""

    def __init__(
        self,
        store: Store,
        set_files: SetFiles,
        audit: AuditTrail,
        memory: Memory | None,  # of predictions with ids
        *,
        keep_seconds: float,  # how long a key is needed after its receipt was issued
        seconds: float,  # between two runs
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._set_files = set_files
        self._audit = audit
        self._memory = memory
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._next_groups: Position | None = None
        self._poll = Poll(
            self.clean_up, what="the clean-up job", seconds=seconds, name="trueprob-clean-up"
        )

    def start(self) -> None:
        """Run the job at regular intervals from now on."""
        with self._store.write() as transaction:
            transaction.high_water_marks.lower_shortest_keep(self._keep_seconds)
        self._poll.start()

    def close(self) -> None:
        """Stop after the transaction that is running."""
        self._poll.close()

    def clean_up(self) -> CleanUpCounts:
        """Run the job once; rows over its limit are left to the next run."""
        if self._memory is not None:
            self._memory.clean_up()
        return CleanUpCounts(
            label_keys=self._in_batches(self._prune_keys),
            groups=self._prune_groups(),
            hourly_bins=self._in_batches(self._roll_up),
            events=self._in_batches(self._prune_events),
            files=self._remove_files(),
            deleted_models=self._in_batches(self._prune_names),
            audit_rows=self._audit.prune(),
        )

    def _in_batches(self, prune: Callable[[Transaction, float], int]) -> int:
        total = 0
        for _ in range(_TRANSACTIONS):
            with self._store.write() as transaction:
                n = prune(transaction, self._clock())
            total += n
            if n < _ROWS or self._poll.pause(_PAUSE_SECONDS):
                break
        return total

    def _prune_keys(self, transaction: Transaction, now: float) -> int:
        issued_before = now - self._keep_seconds
        transaction.high_water_marks.raise_keys_before(issued_before)
        # A key stores when it expires, not when it was issued. If keys were once kept for a shorter
        # time, the receipt is younger than its key's expiry suggests, so the key is kept longer.
        expired = issued_before + transaction.high_water_marks.shortest_keep_seconds()
        return transaction.label_keys.prune(expired_before=expired, limit=_ROWS)

    def _prune_groups(self) -> int:
        """Prune the next part of the table, after the last call's; start again after the end."""
        total = 0
        for _ in range(_TRANSACTIONS):
            with self._store.write() as transaction:
                n, self._next_groups = transaction.group_counts.prune(
                    before_day=int((self._clock() - self._keep_seconds) // DAY_SECONDS),
                    limit=_ROWS,
                    after=self._next_groups,
                )
            total += n
            if self._next_groups is None or self._poll.pause(_PAUSE_SECONDS):
                break
        return total

    def _roll_up(self, transaction: Transaction, now: float) -> int:
        day = int(now // DAY_SECONDS) - _HOURLY_DAYS
        return transaction.bins.roll_up(before_hour=24 * day, limit=_ROWS)

    def _prune_events(self, transaction: Transaction, now: float) -> int:
        before = now - _EVENT_SECONDS
        return transaction.events.prune(ended_before=before, limit=_ROWS)

    def _prune_names(self, transaction: Transaction, now: float) -> int:  # noqa: ARG002
        # Receipts issued before this are already refused, at any time of the clock.
        before = transaction.high_water_marks.keys_before() - _LATE_SECONDS
        return transaction.deleted_models.prune(deleted_before=before)

    def _remove_files(self) -> int:
        self._set_files.remove_leftovers()
        old = self._set_files.digests(older_than_seconds=_UNREFERENCED_SECONDS)
        removed = 0
        for start in range(0, len(old), 500):
            digests = old[start : start + 500]
            for digest in sorted(set(digests) - self._referenced(digests)):
                # The file is renamed first, so that an upload that needs it writes it again.
                with self._set_files.set_aside(digest) as aside:
                    if self._referenced([digest]):
                        aside.put_back()
                    else:
                        removed += 1
            if self._poll.closing:
                break
        return removed

    def _referenced(self, digests: list[str]) -> set[str]:
        with self._store.read() as transaction:
            return transaction.calibration_sets.stored(digests)
