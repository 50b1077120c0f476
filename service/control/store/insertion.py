"""INSERT that may meet a row: the one statement whose spelling hangs on the database."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

__all__ = ["insert_into", "insert_new"]

# SQLite parses each new text: one of 500 rows is kept by its driver, and far below its limits.
_ROWS: Final = 500


def insert_into(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT with ``on_conflict_do_nothing`` and ``on_conflict_do_update``.

    Parameters
    ----------
    connection : Connection
        Its dialect decides.
    table : Table
    """
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)


def insert_new(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], *, returning: bool
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Text and parameters of INSERTs of the rows whose keys are not there yet.

    Parameters
    ----------
    connection : Connection
        Its dialect decides.
    table : Table
        With a key of one column, its first.
    rows : sequence of tuple
        A value for each column.
    returning : bool
        Whether they give back the keys of those rows.
    """
    columns = list(table.columns)
    names, key = ", ".join(column.name for column in columns), columns[0].name
    end = f"ON CONFLICT ({key}) DO NOTHING" + f" RETURNING {key}" * returning
    into = f"INSERT INTO {table.name} ({names})"
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        # An array a column: one parameter each, however many rows there are.
        kinds = [column.type.compile(connection.dialect) for column in columns]
        arrays = ", ".join(f"%s::{kind}[]" for kind in kinds)
        values = tuple(list(column) for column in zip(*rows, strict=True))
        # Names are those of our own table, here and below; values go beside the text.
        yield f"{into} SELECT * FROM unnest({arrays}) {end}", values  # noqa: S608
        return
    row = f"({', '.join('?' for _ in columns)})"
    for start in range(0, len(rows), _ROWS):
        some = rows[start : start + _ROWS]
        text = f"{into} VALUES {', '.join([row] * len(some))} {end}"
        yield text, tuple(itertools.chain.from_iterable(some))
