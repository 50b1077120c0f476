"""What need not be remembered for ever is forgotten, a little at a time.

- Keys of counted labels, once their receipts are too old to be taken. The time up to which keys
  were forgotten is stored in the same transaction, and receipts issued before it are refused
  whatever a clock says: a clock that is set back does not make a label count twice.
- Groups whose outcome an alarm has counted, once no row of theirs has come for as long.
- Hourly bins older than five weeks become daily ones.
- Which revisions the names of deleted models have used up, a day after the last receipt of theirs.
- Files of sets that no model has any more, a day after they were last kept, and bodies that a
  crash left half received.

Each transaction is short, so that labels go in between. Every process sweeps; two at the same time
do each other no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trueprob_service.control.fitting.set_files import SetFiles
from trueprob_service.control.labels.counting import DAY_SECONDS
from trueprob_service.control.poll import Poll
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.labels import Position

__all__ = ["Retention", "Sweep"]

_ROWS: Final = 5_000  # of one transaction
_TRANSACTIONS: Final = 100  # of one sweep, each kind
_PAUSE_SECONDS: Final = 0.02
_HOURLY_DAYS: Final = 35
_EVENT_SECONDS: Final = 7 * 86_400.0
_UNREFERENCED_SECONDS: Final = 86_400.0
# So long a replica may answer for a model that was deleted: until it has heard of it. The longest
# time between two questions is an hour, and the database may be away.
_LATE_SECONDS: Final = 86_400.0


@dataclass(frozen=True)
class Sweep:
    """How much of each was forgotten."""

    label_keys: int
    groups: int
    hourly_bins: int
    events: int
    files: int
    deleted_models: int


class Retention:
    """The sweep of this process."""

    def __init__(
        self,
        store: Store,
        artifacts: SetFiles,
        *,
        keep_seconds: float,  # how long after its receipt was issued a key is needed
        seconds: float,  # between two sweeps
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._artifacts = artifacts
        self._keep_seconds = keep_seconds
        self._clock = clock
        self._groups_seen: Position | None = None
        self._poll = Poll(self.sweep, what="the sweep", seconds=seconds, name="trueprob-sweep")

    def start(self) -> None:
        """Sweep now and then from here on."""
        with self._store.write() as transaction:
            transaction.swept.lower_shortest_keep(self._keep_seconds)
        self._poll.start()

    def close(self) -> None:
        """Stop after the transaction that is running."""
        self._poll.close()

    def sweep(self) -> Sweep:
        """Forget what need not be remembered, as much as is done at once."""
        return Sweep(
            label_keys=self._repeat(self._forget_keys),
            groups=self._forget_groups(),
            hourly_bins=self._repeat(self._roll_up),
            events=self._repeat(self._forget_events),
            files=self._remove_files(),
            deleted_models=self._repeat(self._forget_deleted),
        )

    def _repeat(self, some: Callable[[Transaction, float], int]) -> int:
        total = 0
        for _ in range(_TRANSACTIONS):
            with self._store.write() as transaction:
                n = some(transaction, self._clock())
            total += n
            if n < _ROWS or self._poll.pause(_PAUSE_SECONDS):
                break
        return total

    def _forget_keys(self, transaction: Transaction, now: float) -> int:
        issued_before = now - self._keep_seconds
        transaction.swept.raise_keys_before(issued_before)
        # A key says until when it was to be kept, not since when. Where that time was shorter once,
        # its receipt is younger than it looks: it is kept for the longer time that holds now.
        expired = issued_before + transaction.swept.shortest_keep_seconds()
        return transaction.label_keys.forget(expired_before=expired, limit=_ROWS)

    def _forget_groups(self) -> int:
        """Look at the next groups in the table; from its beginning once its end was reached."""
        total = 0
        for _ in range(_TRANSACTIONS):
            with self._store.write() as transaction:
                n, self._groups_seen = transaction.group_counts.forget(
                    before_day=int((self._clock() - self._keep_seconds) // DAY_SECONDS),
                    limit=_ROWS,
                    after=self._groups_seen,
                )
            total += n
            if self._groups_seen is None or self._poll.pause(_PAUSE_SECONDS):
                break
        return total

    def _roll_up(self, transaction: Transaction, now: float) -> int:
        day = int(now // DAY_SECONDS) - _HOURLY_DAYS
        return transaction.bins.roll_up(before_hour=24 * day, limit=_ROWS)

    def _forget_events(self, transaction: Transaction, now: float) -> int:
        before = now - _EVENT_SECONDS
        return transaction.events.forget(ended_before=before, limit=_ROWS)

    def _forget_deleted(self, transaction: Transaction, now: float) -> int:  # noqa: ARG002
        # Receipts issued before that are refused already, whatever the clock will say.
        before = transaction.swept.keys_before() - _LATE_SECONDS
        return transaction.deleted_models.forget(before=before)

    def _remove_files(self) -> int:
        self._artifacts.remove_leftovers()
        old = self._artifacts.digests(older_than_seconds=_UNREFERENCED_SECONDS)
        removed = 0
        for start in range(0, len(old), 500):
            digests = old[start : start + 500]
            for digest in sorted(set(digests) - self._kept(digests)):
                # Out of the way first: an upload that knew the file looks again and writes it anew.
                with self._artifacts.set_aside(digest) as aside:
                    if self._kept([digest]):
                        aside.put_back()
                    else:
                        removed += 1
            if self._poll.closing:
                break
        return removed

    def _kept(self, digests: list[str]) -> set[str]:
        with self._store.read() as transaction:
            return transaction.calibration_sets.kept(digests)
