"""Every table row by row, for moving a whole database to another one."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection, LargeBinary, Table, func, insert, select, text

from trueprob_service.control.store.tables import metadata

__all__ = ["State"]

_ROWS: Final = 500


class State:
    """All tables, in an order in which each row finds those that it refers to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def tables(self) -> list[str]:
        """Their names."""
        return [table.name for table in metadata.sorted_tables]

    def schema(self) -> str:
        """The schema's revision."""
        query = text("SELECT version_num FROM alembic_version")
        return str(self._connection.execute(query).scalar_one())

    def is_empty(self) -> bool:
        """Whether no table has a row."""
        return all(
            self._connection.execute(select(func.count()).select_from(table)).scalar_one() == 0
            for table in metadata.sorted_tables
        )

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        """A table's rows as JSON can have them: bytes in base64, numbers as they are."""
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
        """Insert rows as `rows` gave them; how many. Ids given out later come after these."""
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
