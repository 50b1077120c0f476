"""How many labels of a day came from one API key."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Column,
    Connection,
    Index,
    Integer,
    String,
    Table,
    bindparam,
    delete,
    select,
    tuple_,
)

from service.control.store.insertion import upsert
from service.control.store.tables import metadata

__all__ = ["KeyCounts", "key_count"]

key_count: Final = Table(
    "key_count",
    metadata,
    Column("model", String(100), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # since 1970 UTC
    Column("key", String(100), primary_key=True),  # its id; empty where none is needed
    Column("labels", Integer, nullable=False),
    Index(None, "day"),
)
_COUNTED: Final = select(key_count.c.labels).where(
    *(key_count.c[name] == bindparam(name) for name in ("model", "day", "key"))
)


class KeyCounts:
    """The table ``key_count``. The caller holds the model's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, model: str, day: int, key: str) -> int:
        """Labels that were counted."""
        of = {"model": model, "day": day, "key": key}
        return self._connection.execute(_COUNTED, of).scalar() or 0

    def add(self, model: str, day: int, key: str, labels: int) -> None:
        """Count further labels."""
        row = {"model": model, "day": day, "key": key, "labels": labels}
        self._connection.execute(upsert(self._connection, key_count, adds=True), row)

    def forget(self, *, before_day: int, limit: int) -> int:
        """Drop some counts of days before this one; how many."""
        keys = list(key_count.primary_key.columns)
        some = select(*keys).where(key_count.c.day < before_day).limit(limit)
        return self._connection.execute(delete(key_count).where(tuple_(*keys).in_(some))).rowcount
