"""What came of requests that carried an Idempotency-Key, so that they can be sent again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    Double,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Table,
    delete,
    select,
)

from service.control.store.insertion import insert_into
from service.control.store.tables import metadata

__all__ = ["IdempotentRequests", "RequestRow", "idempotent_request"]

idempotent_request: Final = Table(  # what came of a request that may be sent again
    "idempotent_request",
    metadata,
    Column("model", String(100), primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("fingerprint", String(64), nullable=False),  # of what was asked
    Column("fit", Integer),
    Column("calibration_set", String(71), nullable=False),
    Column("created_at", Double, nullable=False),
    ForeignKeyConstraint(["model"], ["model.name"]),
    Index(None, "created_at"),
)


@dataclass(frozen=True)
class RequestRow:
    """A request that was acted on.

    Attributes
    ----------
    fingerprint : str
        Of what was asked: another request under the same key has another one.
    fit : int or None
        What it queued.
    calibration_set : str
        What it stored, by digest.
    """

    model: str
    key: str
    fingerprint: str
    fit: int | None
    calibration_set: str
    created_at: float


class IdempotentRequests:
    """The table ``idempotent_request``. The caller holds the model's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, model: str, key: str) -> RequestRow | None:
        """What came of the request with this key."""
        table = idempotent_request
        row = self._connection.execute(
            select(table).where(table.c.model == model, table.c.key == key)
        ).first()
        return None if row is None else RequestRow(**row._mapping)

    def add(self, row: RequestRow) -> None:
        """Remember a request."""
        self._connection.execute(
            insert_into(self._connection, idempotent_request).values(**vars(row))
        )

    def forget(self, *, before: float, limit: int) -> int:
        """Drop some that are older than a time; how many."""
        table = idempotent_request
        old = select(table.c.model, table.c.key).where(table.c.created_at < before).limit(limit)
        rows = self._connection.execute(old).all()
        for model, key in rows:
            self._connection.execute(
                delete(table).where(table.c.model == model, table.c.key == key)
            )
        return len(rows)
