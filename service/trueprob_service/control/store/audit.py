"""The audit trail: who did what, as rows that a hash chain ties together; and last uses of keys.

The hash of a row covers all its columns and the hash of the row before it. ``audit_head`` has one
row: the end of the chain, and where it begins once old rows were deleted. A writer locks that row
last in its transaction, right before the commit, so rows have the order of commits on both
databases, without gaps. A deletion of old rows is itself a row, which names the last one deleted.

Whoever can write to the database can compute a whole new chain. `AuditHead` names a row and its
hash, to be kept elsewhere and compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
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
    delete,
    func,
    insert,
    select,
    update,
)

from trueprob_service.control.store.tables import insert_into, metadata, upsert
from trueprob_service.edge.auth import ACTOR

__all__ = ["PRUNED", "AuditHead", "AuditQuery", "AuditRow", "AuditTable", "KeyUseTable", "storable"]

audit_entry: Final = Table(
    "audit_entry",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1, 2, 3, … without gaps
    Column("at", Double, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(40), nullable=False),
    Column("model", String(100)),
    Column("outcome", String(10), nullable=False),  # done, refused
    Column("revision", Integer),  # the model's live one afterwards
    Column("request_id", String(128), nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    Column("hash", String(64), nullable=False),
    Index(None, "model", "id"),
    Index(None, "actor", "id"),
)
audit_head: Final = Table(
    "audit_head",
    metadata,
    Column("chain", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("last_id", Integer, nullable=False),
    Column("last_hash", String(64), nullable=False),
    Column("pruned_id", Integer, nullable=False),  # the last row that was deleted, 0 for none
    Column("pruned_hash", String(64), nullable=False),
)
key_use: Final = Table(
    "key_use",
    metadata,
    Column("key_id", String(100), primary_key=True),
    Column("last_used_at", Double, nullable=False),
)

PRUNED: Final = "audit.prune"
_START: Final = "0" * 64  # the hash before the first row
_ACTOR_CHARACTERS: Final = 200
_READ_ROWS: Final = 1_000


@dataclass(frozen=True)
class AuditRow:
    """A row of the audit trail."""

    id: int
    at: float  # seconds since 1970 UTC
    actor: str  # key:ID, oidc:SUBJECT, anonymous or service
    action: str
    model: str | None
    outcome: str  # `done` or `refused`
    revision: int | None
    request_id: str
    detail: str  # JSON
    hash: str

    def computed_hash(self, before: str) -> str:
        """The hash that the row must have after a row with the hash ``before``."""
        values = [getattr(self, name) for name in _HASHED]
        text = json.dumps([before, *values], separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


_HASHED: Final = ("id", "at", "actor", "action", "model", "outcome", "revision", "request_id",
                  "detail")  # fmt: skip


@dataclass(frozen=True)
class AuditHead:
    """The end of the chain, and the last row that was deleted at its beginning."""

    last_id: int = 0
    last_hash: str = _START
    pruned_id: int = 0
    pruned_hash: str = _START


@dataclass(frozen=True)
class AuditQuery:
    """Which rows a client asks for; None leaves a field open."""

    model: str | None = None
    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    since: float | None = None
    until: float | None = None
    models_pattern: str | None = None  # regular expression for the models that the client may see


@dataclass
class AuditTable:
    """The tables ``audit_entry`` and ``audit_head``."""

    connection: Connection
    _waiting: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self,
        action: str,
        model: str | None,
        *,
        now: float,
        revision: int | None = None,
        outcome: str = "done",
        actor: str | None = None,  # default: who sends the request, else the service
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a row when the transaction commits."""
        sender, request_id = ACTOR.get()
        known = {name: value for name, value in (detail or {}).items() if value is not None}
        self._waiting.append(
            {
                "at": float(now),
                "actor": storable(actor or sender, _ACTOR_CHARACTERS),
                "action": action,
                "model": None if model is None else storable(model, 100),
                "outcome": outcome,
                "revision": revision,
                "request_id": request_id,
                "detail": json.dumps(known, separators=(",", ":"), allow_nan=False),
            }
        )

    def flush(self) -> None:
        """Append the rows that were added. Last in a transaction: it locks the end of the chain."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        head = self._lock()
        number, before, rows = head.last_id, head.last_hash, []
        for values in waiting:
            number += 1
            row = AuditRow(id=number, hash="", **values)
            before = row.computed_hash(before)
            rows.append({**values, "id": number, "hash": before})
        self.connection.execute(insert(audit_entry), rows)
        self.connection.execute(update(audit_head).values(last_id=number, last_hash=before))

    def head(self) -> AuditHead:
        """The ends of the chain as they are stored."""
        row = self.connection.execute(_HEAD).first()
        return AuditHead() if row is None else AuditHead(*row)

    def _lock(self) -> AuditHead:
        first = {"chain": 1, **vars(AuditHead())}
        self.connection.execute(
            insert_into(self.connection, audit_head).values(first).on_conflict_do_nothing()
        )
        return AuditHead(*self.connection.execute(_HEAD.with_for_update()).one())

    def rows(self) -> Iterator[AuditRow]:
        """Every row from the oldest on."""
        after: int | None = None
        while True:
            statement = select(audit_entry)
            if after is not None:
                statement = statement.where(audit_entry.c.id > after)
            page = self.connection.execute(
                statement.order_by(audit_entry.c.id).limit(_READ_ROWS)
            ).all()
            for row in page:
                yield AuditRow(**row._mapping)
            if len(page) < _READ_ROWS:
                return
            after = page[-1].id

    def page(self, query: AuditQuery, *, before: int | None, limit: int) -> list[AuditRow]:
        """Rows that match, below an id, newest first."""
        column = audit_entry.c
        statement = select(audit_entry).order_by(column.id.desc()).limit(limit)
        for name in ("model", "actor", "action", "outcome"):
            value = getattr(query, name)
            if value is not None:
                statement = statement.where(column[name] == value)
        if query.since is not None:
            statement = statement.where(column.at >= query.since)
        if query.until is not None:
            statement = statement.where(column.at < query.until)
        if query.models_pattern is not None:
            statement = statement.where(column.model.regexp_match(query.models_pattern))
        if before is not None:
            statement = statement.where(column.id < before)
        return [AuditRow(**row._mapping) for row in self.connection.execute(statement)]

    def newest_detail(self, action: str) -> str | None:
        """The detail of the newest row with an action."""
        statement = select(audit_entry.c.detail).where(audit_entry.c.action == action)
        return self.connection.execute(
            statement.order_by(audit_entry.c.id.desc()).limit(1)
        ).scalar()

    def prune(self, *, before: float, limit: int, now: float) -> int:
        """Delete the oldest rows up to a time, at most so many; returns how many.

        The first row that is young enough stays, and so do all after it. The deletion is a row too.
        """
        head = self._lock()
        young = select(func.min(audit_entry.c.id)).where(audit_entry.c.at >= before)
        first_kept = self.connection.execute(young).scalar()
        last = head.last_id if first_kept is None else first_kept - 1
        last = min(last, head.pruned_id + limit)
        hash_ = select(audit_entry.c.hash).where(audit_entry.c.id == last)
        found = self.connection.execute(hash_).scalar()
        if last <= head.pruned_id or found is None:
            return 0
        self.connection.execute(delete(audit_entry).where(audit_entry.c.id <= last))
        self.connection.execute(update(audit_head).values(pruned_id=last, pruned_hash=found))
        detail = {"first": head.pruned_id + 1, "last": last, "hash": found}
        self.add(PRUNED, None, now=now, detail=detail)
        return last - head.pruned_id


def storable(text: str, most: int) -> str:
    """A text that both databases take: paths of refused requests may have anything in them."""
    return text.encode("utf-8", "replace").decode().replace("\0", "?")[:most]


_HEAD: Final = select(
    audit_head.c.last_id, audit_head.c.last_hash, audit_head.c.pruned_id, audit_head.c.pruned_hash
).where(audit_head.c.chain == 1)


class KeyUseTable:
    """The table ``key_use``: when each key was last used, to the minute."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, uses: Mapping[str, float]) -> None:
        """Store later uses; several processes write, and the latest time stays."""
        known = self.all()
        later = {key: at for key, at in uses.items() if at > known.get(key, 0.0)}
        if later:
            rows = [{"key_id": key[:100], "last_used_at": at} for key, at in sorted(later.items())]
            self._connection.execute(upsert(self._connection, key_use), rows)

    def all(self) -> dict[str, float]:
        """The last use of each key, by id."""
        return {row.key_id: row.last_used_at for row in self._connection.execute(select(key_use))}
