"""How many labels of a day came from one API key, or were of one input."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Column, Connection, Index, Integer, String, Table, delete, select, tuple_

from service.control.store.insertion import insert_into
from service.control.store.tables import metadata

__all__ = ["Counted", "LabelCounts", "label_count"]

label_count: Final = Table(
    "label_count",
    metadata,
    Column("model", String(100), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),  # since 1970 UTC
    Column("what", String(5), primary_key=True),  # key, input
    Column("name", String(100), primary_key=True),  # id of the key, digest of the input
    Column("labels", Integer, nullable=False),
    Index(None, "day"),
)
# What it is (``key`` or ``input``), and which.
Counted = tuple[str, str]


class LabelCounts:
    """The table ``label_count``. The caller holds the model's lock."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, model: str, day: int, more: Mapping[Counted, int]) -> dict[Counted, int]:
        """Count further labels; how many each has then.

        Notes
        -----
        Reading them first would cost PostgreSQL a scan of the day's rows for each chunk of names,
        until it has statistics of a table that is new every day.
        """
        if not more:
            return {}
        statement = insert_into(self._connection, label_count)
        result = self._connection.execute(
            statement.on_conflict_do_update(
                index_elements=list(label_count.primary_key.columns),
                set_={"labels": label_count.c.labels + statement.excluded.labels},
            ).returning(label_count.c.what, label_count.c.name, label_count.c.labels),
            [
                {"model": model, "day": day, "what": what, "name": name, "labels": n}
                for (what, name), n in more.items()
            ],
        )
        return {(what, name): n for what, name, n in result}

    def forget(self, *, before_day: int, limit: int) -> int:
        """Drop some counts of days before this one; how many."""
        keys = list(label_count.primary_key.columns)
        some = select(*keys).where(label_count.c.day < before_day).limit(limit)
        return self._connection.execute(delete(label_count).where(tuple_(*keys).in_(some))).rowcount
