"""Reads the audit trail, and adds what no other transaction adds: refused requests, changed keys.

The rows of actions are added in the transactions of the actions
(`trueprob_service.control.store.audit`).
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from trueprob_service.control.poll import Poll
from trueprob_service.control.schemas.audit import AuditEntry
from trueprob_service.control.schemas.lists import Items, Page, split
from trueprob_service.control.store import Store
from trueprob_service.control.store.audit import PRUNED, AuditQuery, storable
from trueprob_service.edge.access import access_to
from trueprob_service.edge.auth import ACTOR, SERVICE
from trueprob_service.errors import DatabaseUnavailable

__all__ = ["AuditTrail", "verify"]

_LOG: Final = logging.getLogger(__name__)
_REPEAT_SECONDS: Final = 60.0  # the same refusal again within this time is only counted
_MOST_REPEATED: Final = 1_000
_USE_SECONDS: Final = 60.0  # between two writes of the last uses of keys
_DAY_SECONDS: Final = 86_400.0
_PRUNED_ROWS: Final = 5_000  # in one transaction


class AuditTrail:
    """The audit trail of a database."""

    def __init__(
        self,
        store: Store,
        *,
        keep_days: int,  # 0: for ever
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._keep_days = keep_days
        self._clock = clock
        # Refusals: what was refused → when its row was written, and how many came since.
        self._refused: OrderedDict[tuple[object, ...], tuple[float, int]] = OrderedDict()
        self._counting = threading.Lock()
        self._stored_uses: dict[str, float] = {}
        self._uses: Callable[[], Mapping[str, float]] = dict
        self._poll = Poll(
            self.store_uses,
            what="storing when keys were last used",
            seconds=_USE_SECONDS,
            name="trueprob-key-use",
        )

    def start(self, uses: Callable[[], Mapping[str, float]]) -> None:
        """Store at intervals when each key was last used."""
        self._uses = uses
        self._poll.start()

    def close(self) -> None:
        """Stop, and store the last uses once more."""
        self._poll.close()
        self._poll.once()

    def page(self, page: Page, **query: Any) -> Items[AuditEntry]:
        """A page of the rows that match; the fields of `AuditQuery` say which."""
        with self._store.read() as transaction:
            rows = transaction.audit.page(
                AuditQuery(**query), before=page.before, limit=page.limit + 1
            )
        shown, cursor = split(rows, page, lambda row: row.id)
        return Items(items=[AuditEntry.from_row(row) for row in shown], next=cursor)

    def refused(self, method: str, path: str, status: int, why: str) -> None:
        """Add a row for a refused write, or for refused raw rows; the log has it if that fails.

        Repetitions within a minute are counted, and the count is in the next row.
        """
        access = access_to(method, path)
        if access.action is None:
            return
        now, (actor, _) = self._clock(), ACTOR.get()
        key = (actor, access.action, access.model, status, why)
        with self._counting:
            at, repeated = self._refused.get(key, (-_REPEAT_SECONDS, 0))
            if 0 <= now - at < _REPEAT_SECONDS:
                self._refused[key] = (at, repeated + 1)
                return
            self._refused[key] = (now, 0)
            self._refused.move_to_end(key)
            if len(self._refused) > _MOST_REPEATED:
                self._refused.popitem(last=False)
        detail: dict[str, Any] = {"status": status, "code": why, "path": storable(path, 300)}
        detail["repeated_before"] = repeated or None
        try:
            with self._store.write() as transaction:
                transaction.audit.add(
                    access.action, access.model, now=now, outcome="refused", detail=detail
                )
        except DatabaseUnavailable:
            _LOG.warning("refused, and not in the audit trail: %s by %s", access.action, actor)

    def keys_changed(self, digest: str, changes: Mapping[str, list[str]]) -> None:
        """Add a row for a key file with new text, unless another process has added it.

        The changes are empty at a start, when it is not known what the file was before.
        """
        detail = {**changes, "file": digest}
        with self._store.write() as transaction:
            newest = json.loads(transaction.audit.newest_detail("keys.change") or "{}")
            if newest.get("file") != digest:
                now = self._clock()
                transaction.audit.add("keys.change", None, now=now, actor=SERVICE, detail=detail)

    def store_uses(self) -> None:
        """Store when keys were last used, if that has changed."""
        uses = dict(self._uses())
        later = {key: at for key, at in uses.items() if self._stored_uses.get(key) != at}
        if later:
            with self._store.write() as transaction:
                transaction.key_uses.put(later)
            self._stored_uses = uses

    def prune(self) -> int:
        """Delete rows older than `keep_days`; returns how many."""
        total = n = 0
        while self._keep_days:
            now = self._clock()
            before = now - self._keep_days * _DAY_SECONDS
            with self._store.write() as transaction:
                n = transaction.audit.prune(before=before, limit=_PRUNED_ROWS, now=now)
            total += n
            if n < _PRUNED_ROWS:
                break
        return total


def verify(store: Store, *, noted: tuple[int, str] | None = None) -> tuple[str, list[str]]:
    """Check the chain; returns its head as ``ID:HASH`` and what is wrong, in sentences.

    ``noted`` is a head from before, kept elsewhere: the chain must still contain that row.
    """
    faults: list[str] = []
    with store.read() as transaction:
        head = transaction.audit.head()
        expected, before = head.pruned_id + 1, head.pruned_hash
        pruned = json.loads(transaction.audit.newest_detail(PRUNED) or "null")
        told = None if pruned is None else (pruned.get("last"), pruned.get("hash"))
        if told != ((head.pruned_id, head.pruned_hash) if head.pruned_id else None):
            faults.append("the beginning of the chain is not where its last clean-up left it")
        found_noted = noted is None or noted == (head.pruned_id, head.pruned_hash)
        for row in transaction.audit.rows():
            if row.id > expected:
                missing = f"row {expected}" if row.id == expected + 1 else (
                    f"rows {expected} to {row.id - 1}"
                )  # fmt: skip
                faults.append(f"{missing} missing")
            elif row.id < expected:
                faults.append(f"row {row.id} is before the beginning of the chain")
            elif row.hash != row.computed_hash(before):
                faults.append(
                    f"row {row.id} is not what was written, or not after row {row.id - 1}"
                )
            found_noted = found_noted or noted == (row.id, row.hash)
            expected, before = row.id + 1, row.hash
    if (expected - 1, before) != (head.last_id, head.last_hash):
        faults.append(f"the chain ends with row {expected - 1}, but {head.last_id} were written")
    if not found_noted and noted is not None:
        faults.append(f"row {noted[0]} does not have the hash that was noted")
    return f"{expected - 1}:{before}", faults
