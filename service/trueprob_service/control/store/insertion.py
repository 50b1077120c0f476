"""INSERT that may meet a row: the one statement whose spelling hangs on the database.

Building a statement takes SQLAlchemy longer than most statements take the database. Those of a
request's path are built once: selects as constants beside their table's noun, these here.
"""

from __future__ import annotations

import functools

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["insert_into", "upsert"]


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT with ``on_conflict_do_nothing`` and ``on_conflict_do_update``."""
    return _insert(connection.dialect.name, table)


def upsert(
    connection: Connection, table: Table, *, adds: bool = False
) -> sqlite.Insert | postgresql.Insert:
    """An INSERT of whole rows that replaces what stands beside their keys, built once a table."""
    return _upsert(connection.dialect.name, table, adds)


@functools.cache
def _upsert(dialect: str, table: Table, adds: bool) -> sqlite.Insert | postgresql.Insert:
    statement = _insert(dialect, table)
    given = statement.excluded
    values = [column.name for column in table.columns if not column.primary_key]
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: table.c[name] + given[name] if adds else given[name] for name in values},
    )


def _insert(dialect: str, table: Table) -> sqlite.Insert | postgresql.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
