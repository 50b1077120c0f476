"""Connections to SQLite and PostgreSQL: how they are opened.

Statements and connection attempts have a timeout.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable
from typing import Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

__all__ = ["TIMEOUT_SECONDS", "new_engine", "parsed_url"]

TIMEOUT_SECONDS: Final = 10.0
_RETRY_SECONDS: Final = 0.02
_CONNECT_SECONDS: Final = 5  # at most, to PostgreSQL
# Pages of 4 KB: 32 MB. Labels of new inputs touch pages all over their table. With SQLite's default
# of 1 000 pages, each request of 10 000 labels would copy what it wrote into the file once more.
_CHECKPOINT_PAGES: Final = 8_000


def parsed_url(text_url: str) -> URL:
    """The URL of a database that is supported; raises `ValueError`, without the password."""
    try:
        url = make_url(text_url)
    except ArgumentError:
        raise ValueError("database_url is not a SQLAlchemy URL") from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("database_url must name a SQLite file: sqlite:///path")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ValueError(
            f"database_url must be sqlite or postgresql, got {url.get_backend_name()!r}"
        )
    return url


def new_engine(
    url: URL,
    *,
    timeout_seconds: float,
    begin: Callable[[Connection], None],  # begins a transaction of SQLite
    probe: bool = False,
) -> Engine:
    """An engine whose statements and connection attempts have a timeout; 0: statements have none.

    That of a probe opens SQLite's file anew each time, and has hardly any cache.
    """
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            connect_args={
                "timeout": timeout_seconds or TIMEOUT_SECONDS,
                "isolation_level": None,
                "check_same_thread": False,
            },
            **({"poolclass": NullPool} if probe else {"max_overflow": 40}),
        )
        event.listen(engine, "connect", _shrink_cache if probe else _prepare_sqlite)
        event.listen(engine, "begin", begin)
        return engine
    connect_seconds = min(_CONNECT_SECONDS, int(timeout_seconds) or _CONNECT_SECONDS)
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={
            "connect_timeout": max(2, connect_seconds),
            # A peer that is gone is noticed, though no packet says so.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 2,
            "tcp_user_timeout": 1000 * _CONNECT_SECONDS,
        },
        pool_pre_ping=True,
        pool_timeout=connect_seconds,
        **({"pool_size": 1, "max_overflow": 0} if probe else {}),
    )
    if timeout_seconds > 0:
        event.listen(engine, "connect", functools.partial(_limit_statements, timeout_seconds))
    return engine


def _limit_statements(
    seconds: float, connection: DBAPIConnection, _entry: ConnectionPoolEntry
) -> None:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute(f"SET statement_timeout = {max(1, int(1000 * seconds))}")
    connection.commit()


def _shrink_cache(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    with contextlib.closing(connection.cursor()) as cursor:
        cursor.execute("PRAGMA cache_size=1")  # page: what does not fit goes to the log


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    try:
        _switch_to_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT_PAGES}")
        cursor.execute("PRAGMA foreign_keys=ON")
    except sqlite3.Error:
        cursor.close()
        connection.close()
        raise
    cursor.close()


def _switch_to_wal(cursor: DBAPICursor) -> None:
    """Turn on write-ahead logging, which stays on for the file.

    The switch needs the file exclusively, and SQLite's busy timeout does not cover it: processes
    that start together on a new file retry here.
    """
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            # The low byte is the kind of error, the rest its variant.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return
