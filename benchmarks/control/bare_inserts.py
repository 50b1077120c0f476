"""The database alone: rows of counted labels, inserted through its driver.

The table is `label_key` as the service has it, index and all; the rows are those that the service
inserts for the same labels; a transaction holds as many, and its commit is on disk.
"""

from __future__ import annotations

import itertools
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

Row = tuple[bytes, float]  # nonce, until when it is kept
ROWS = 500  # of one statement: far below SQLite's limits, and a text that its driver keeps


class Bare(Protocol):
    """A database to insert rows into."""

    name: str

    def by_rows(self, rows: Sequence[Row]) -> float:
        """Seconds of one transaction by the driver's `executemany`."""

    def by_statements(self, rows: Sequence[Row]) -> float:
        """Seconds of one transaction with many rows a statement."""

    def close(self) -> None: ...


class BareSQLite:
    """An SQLite file next to the service's, opened with the same settings."""

    name = "SQLite"

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "PRAGMA wal_autocheckpoint=8000",
            """CREATE TABLE label_key (nonce BLOB NOT NULL PRIMARY KEY, expires_at DOUBLE NOT NULL)
               WITHOUT ROWID""",
            "CREATE INDEX ix_label_key_expires_at ON label_key (expires_at)",
        ):
            self._connection.execute(statement)

    def by_rows(self, rows: Sequence[Row]) -> float:
        start = time.perf_counter()
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT INTO label_key VALUES (?, ?)", rows)
        self._connection.execute("COMMIT")
        return time.perf_counter() - start

    def by_statements(self, rows: Sequence[Row]) -> float:
        start = time.perf_counter()
        self._connection.execute("BEGIN IMMEDIATE")
        for first in range(0, len(rows), ROWS):
            some = rows[first : first + ROWS]
            places = ", ".join(["(?, ?)"] * len(some))
            values: list[Any] = list(itertools.chain.from_iterable(some))
            self._connection.execute(f"INSERT INTO label_key VALUES {places}", values)
        self._connection.execute("COMMIT")
        return time.perf_counter() - start

    def close(self) -> None:
        self._connection.close()


class BarePostgreSQL:
    """A separate schema on the PostgreSQL server of the service."""

    name = "PostgreSQL"

    def __init__(self, folder: Path) -> None:
        import psycopg

        self._connection = psycopg.connect(f"user=trueprob dbname=postgres host={folder}")
        self._connection.execute("CREATE SCHEMA bare")
        self._connection.execute("SET search_path TO bare")
        self._connection.execute(
            "CREATE TABLE label_key (nonce BYTEA PRIMARY KEY, expires_at DOUBLE PRECISION NOT NULL)"
        )
        self._connection.execute("CREATE INDEX ON label_key (expires_at)")
        self._connection.commit()

    def by_rows(self, rows: Sequence[Row]) -> float:
        start = time.perf_counter()
        with self._connection.cursor() as cursor:
            cursor.executemany("INSERT INTO label_key VALUES (%s, %s)", rows)
        self._connection.commit()
        return time.perf_counter() - start

    def by_statements(self, rows: Sequence[Row]) -> float:
        start = time.perf_counter()
        self._connection.execute(
            "INSERT INTO label_key SELECT * FROM unnest(%s::bytea[], %s::double precision[])",
            [list(column) for column in zip(*rows, strict=True)],
        )
        self._connection.commit()
        return time.perf_counter() - start

    def close(self) -> None:
        self._connection.close()
