"""High-water marks of the clean-up job, and all tables row by row for export and import."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Table,
    bindparam,
    func,
    insert,
    select,
    text,
)

from trueprob_service.control.store.remembered.blocks import remembered_block
from trueprob_service.control.store.tables import insert_into, metadata, swept

__all__ = ["AllTables", "HighWaterMarkTable"]

_KEYS: Final = "label_keys"
_SHORTEST: Final = "shortest_keep_seconds"
_BEFORE: Final = select(swept.c.before).where(swept.c.what == bindparam("what"))
_ROWS: Final = 500  # held in memory at a time


class HighWaterMarkTable:
    """The table ``swept``: high-water marks of the clean-up job, each moved in one direction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def keys_before(self) -> float:
        """Keys of receipts issued before this time may be deleted, so such receipts are refused."""
        return self._get(_KEYS) or 0.0

    def raise_keys_before(self, time: float) -> None:
        """Raise the mark of `keys_before`; an earlier time than the stored one changes nothing."""
        self._put(_KEYS, time, only_if=swept.c.before < time)

    def shortest_keep_seconds(self) -> float:
        """The shortest time for which any process has ever kept a key; 0 if unknown."""
        return self._get(_SHORTEST) or 0.0

    def lower_shortest_keep(self, seconds: float) -> None:
        """Lower the shortest time; a longer one than the stored one changes nothing."""
        self._put(_SHORTEST, seconds, only_if=swept.c.before > seconds)

    def _get(self, what: str) -> float | None:
        return self._connection.execute(_BEFORE, {"what": what}).scalar()

    def _put(self, what: str, value: float, *, only_if: ColumnElement[bool]) -> None:
        """Write a number if the condition holds, in one statement.

        The database compares, so a process cannot undo the change of another.
        """
        self._connection.execute(
            insert_into(self._connection, swept)
            .values(what=what, before=value)
            .on_conflict_do_update(
                index_elements=[swept.c.what], set_={"before": value}, where=only_if
            )
        )


class AllTables:
    """All tables, ordered so that rows follow the rows that they refer to.

    Remembered predictions are left out: they are many, and soon forgotten.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def tables(self) -> list[str]:
        """The names of the tables."""
        return [table.name for table in metadata.sorted_tables if table is not remembered_block]

    def schema(self) -> str:
        """The revision of the schema."""
        query = text("SELECT version_num FROM alembic_version")
        return str(self._connection.execute(query).scalar_one())

    def is_empty(self) -> bool:
        """Whether all tables are empty."""
        return all(
            self._connection.execute(select(func.count()).select_from(table)).scalar_one() == 0
            for table in metadata.sorted_tables
        )

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """The rows of a table for JSON, with bytes in base64."""
        table = metadata.tables[name]
        binary = _binary(table)
        statement = select(table).order_by(*table.primary_key.columns)
        for row in self._connection.execution_options(yield_per=_ROWS).execute(statement):
            yield {
                column: base64.b64encode(value).decode()
                if column in binary and value is not None
                else value
                for column, value in row._mapping.items()
            }

    def add(self, name: str, rows: Iterable[Mapping[str, Any]]) -> int:
        """Insert rows that `rows` returned, and return how many; later ids follow theirs."""
        table = metadata.tables[name]
        binary = _binary(table)
        total = 0
        remaining = iter(rows)
        while some := list(islice(remaining, _ROWS)):
            values = [
                {
                    column: base64.b64decode(value)
                    if column in binary and value is not None
                    else value
                    for column, value in row.items()
                }
                for row in some
            ]
            self._connection.execute(insert(table), values)
            total += len(values)
        if total and "id" in table.c and self._connection.dialect.name == "postgresql":
            self._connection.execute(
                text("SELECT setval(pg_get_serial_sequence(:name, 'id'), :last)"),
                {"name": name, "last": self._connection.scalar(select(func.max(table.c.id)))},
            )
        return total


def _binary(table: Table) -> set[str]:
    return {column.name for column in table.columns if isinstance(column.type, LargeBinary)}
