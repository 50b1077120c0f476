"""The outbox of webhook events, each written by the transaction that it reports."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Index,
    Integer,
    String,
    Table,
    Text,
    Update,
    delete,
    func,
    insert,
    select,
    update,
)

from trueprob_service.control.store.tables import metadata
from trueprob_service.logs import TRACEPARENT

__all__ = ["EventRow", "EventTable", "webhook_event"]

webhook_event: Final = Table(
    "webhook_event",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("message", String(40), nullable=False, unique=True),  # id for the receiver
    Column("kind", String(40), nullable=False),
    Column("model", String(100), nullable=False),  # no foreign key: events outlive their model
    Column("body", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("state", String(10), nullable=False),  # waiting, delivered, dead
    Column("attempts", Integer, nullable=False),
    Column(
        "due_at", Double, nullable=False
    ),  # of the next attempt; while one runs, the end of its lease
    Column("owner", String(100)),
    Column("ended_at", Double),
    Index(None, "state", "due_at"),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True)
class EventRow:
    """A webhook event."""

    id: int
    message: str  # its id for the receiver, the same at every attempt
    kind: str
    model: str
    body: str  # JSON, as it is signed and sent
    created_at: float
    state: str
    attempts: int  # the running one included
    due_at: float  # of the next attempt; while one runs, the end of its lease
    owner: str | None
    ended_at: float | None


class EventTable:
    """The table ``webhook_event``."""

    def __init__(self, connection: Connection, *, kept: bool) -> None:
        self._connection = connection
        self._kept = kept

    def add(self, kind: str, model: str, data: Mapping[str, Any], *, now: float) -> None:
        """Queue an event; it is sent once this transaction has committed."""
        if not self._kept:
            return
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        traceparent = TRACEPARENT.get()
        body = {
            "type": kind,
            "timestamp": at.replace("+00:00", "Z"),
            "data": {"model": model, **data},
            **({"traceparent": traceparent} if traceparent else {}),
        }
        self._connection.execute(
            insert(webhook_event).values(
                message=f"msg_{secrets.token_hex(16)}",
                kind=kind,
                model=model,
                body=json.dumps(body, separators=(",", ":"), allow_nan=False),
                created_at=now,
                state="waiting",
                attempts=0,
                due_at=now,
            )
        )

    def claim(self, *, owner: str, now: float, held_until: float) -> EventRow | None:
        """Lease the oldest due event to a process, until ``held_until``.

        It is one statement, so only one of several processes that claim at the same time gets it.
        """
        due = (
            select(webhook_event.c.id)
            .where(webhook_event.c.state == "waiting", webhook_event.c.due_at <= now)
            .order_by(webhook_event.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        statement = (
            update(webhook_event)
            .where(webhook_event.c.id == due)
            .values(owner=owner, due_at=held_until, attempts=webhook_event.c.attempts + 1)
            .returning(webhook_event)
        )
        row = self._connection.execute(statement).first()
        return None if row is None else EventRow(**row._mapping)

    def end(self, event_id: int, state: str, *, owner: str, now: float) -> None:
        """Set ``delivered`` or ``dead``; does nothing when another process has the lease."""
        self._connection.execute(
            _leased(event_id, owner).values(state=state, ended_at=now, owner=None)
        )

    def retry(self, event_id: int, *, owner: str, due_at: float) -> None:
        """Set the time of the next attempt; does nothing when another process has the lease."""
        self._connection.execute(_leased(event_id, owner).values(due_at=due_at, owner=None))

    def any_due(self, *, now: float) -> bool:
        """Whether `claim` would find an event."""
        statement = select(webhook_event.c.id).where(
            webhook_event.c.state == "waiting", webhook_event.c.due_at <= now
        )
        return self._connection.execute(statement.limit(1)).first() is not None

    def waiting(self) -> dict[str, int]:
        """Number of undelivered events, by kind."""
        statement = (
            select(webhook_event.c.kind, func.count().label("n"))
            .where(webhook_event.c.state == "waiting")
            .group_by(webhook_event.c.kind)
        )
        return {row.kind: int(row.n) for row in self._connection.execute(statement)}

    def prune(self, *, ended_before: float, limit: int) -> int:
        """Delete events that ended before a time, at most so many; returns how many."""
        some = select(webhook_event.c.id).where(webhook_event.c.ended_at < ended_before)
        statement = delete(webhook_event).where(webhook_event.c.id.in_(some.limit(limit)))
        return self._connection.execute(statement).rowcount


def _leased(event_id: int, owner: str) -> Update:
    return update(webhook_event).where(
        webhook_event.c.id == event_id, webhook_event.c.owner == owner
    )
