"""Opening the database: SQLite by default, PostgreSQL by URL, one code path after that.

SQLite runs in WAL mode with ``synchronous=FULL``, so what was acknowledged is on disk. Python's
driver delays BEGIN until the first write, which turns a read-then-write transaction into a
deadlock; its own transaction handling is therefore off and BEGIN is sent here: IMMEDIATE for
writers, deferred (a snapshot) for readers. PostgreSQL writers are READ COMMITTED with row locks,
readers REPEATABLE READ, which is a snapshot too.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from trueprob_service.control.store.migrations import UnknownSchema, check_schema, upgrade
from trueprob_service.control.store.transaction import Transaction
from trueprob_service.errors import DatabaseUnavailable

__all__ = ["Store", "UnknownSchema", "open_store", "refuse_unknown_schema"]

_WRITES: Final = "trueprob_writes"
_BUSY_SECONDS: Final = 15.0
_RETRY_SECONDS: Final = 0.02
_CONNECT_SECONDS: Final = 5
# Of 4 KB, 32 MB: labels of new inputs touch pages all over their table, and at SQLite's 1 000 each
# request of 10 000 would copy what it wrote into the file once more.
_CHECKPOINT_PAGES: Final = 8_000
# One transaction-scoped advisory lock serialises migrations of replicas that start together.
_MIGRATION_LOCK: Final = 0x74727565


class Store:
    """A database with its schema up to date."""

    def __init__(self, engine: Engine, *, keep_events: bool = False) -> None:
        self._engine = engine
        self._keep_events = keep_events
        self._sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer at a time and its busy handler polls: threads of this process
        # queue here instead, in order.
        self._writing: contextlib.AbstractContextManager[object] = (
            threading.Lock() if self._sqlite else contextlib.nullcontext()
        )

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that commits when its block ends and rolls back when it raises.

        Raises `DatabaseUnavailable`: the database does not answer; nothing of the block is stored.
        """
        with self._writing, self._boundary(), self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin():
                yield Transaction(connection, keep_events=self._keep_events)

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent snapshot; writing in it is a programming error."""
        with self._boundary(), self._engine.connect() as plain:
            connection = (
                plain
                if self._sqlite
                else plain.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            )
            with connection.begin():
                yield Transaction(connection)

    def migrate(self) -> None:
        """Bring the schema up to date; processes that start together wait for one another."""
        with self._writing, self._boundary(), self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin():
                if not self._sqlite:
                    lock = text("SELECT pg_advisory_xact_lock(:key)")
                    connection.execute(lock, {"key": _MIGRATION_LOCK})
                upgrade(connection)

    def answers(self) -> bool:
        """Whether the database can be reached now."""
        try:
            with self.read() as transaction:
                return transaction.promotions.any_revision() >= 0
        except DatabaseUnavailable:
            return False

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _boundary(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise DatabaseUnavailable("the database does not answer; try again later") from error


def open_store(url: str, *, keep_events: bool = False) -> Store:
    """Open a database and migrate it.

    Raises `DatabaseUnavailable`: it cannot be reached. Raises `UnknownSchema`: a version that is
    not this one's predecessor wrote it. Raises `ValueError`: the URL names a database that is not
    supported; the password is not repeated.
    """
    engine = _engine(url)
    store = Store(engine, keep_events=keep_events)
    try:
        store.migrate()
    except BaseException:
        engine.dispose()
        raise
    return store


def refuse_unknown_schema(url: str) -> None:
    """Look at a database before anything is started on it; one that does not answer is let pass.

    Raises `ValueError`: as of `open_store`.
    """
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            check_schema(connection)
    except (OperationalError, InterfaceError, PoolTimeout):
        return  # whoever opens it says so
    finally:
        engine.dispose()


def _engine(text_url: str) -> Engine:
    try:
        url = make_url(text_url)
    except ArgumentError:
        raise ValueError("database_url is not a SQLAlchemy URL") from None
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise ValueError("database_url must name a SQLite file: sqlite:///path")
        engine = create_engine(
            url, connect_args={"timeout": _BUSY_SECONDS, "isolation_level": None}, max_overflow=40
        )
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if url.get_backend_name() == "postgresql":
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={"connect_timeout": _CONNECT_SECONDS},
            pool_pre_ping=True,
            pool_timeout=_CONNECT_SECONDS,
        )
    raise ValueError(f"database_url must be sqlite or postgresql, got {url.get_backend_name()!r}")


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
    """Write-ahead logging, which the file remembers.

    The switch needs the file for itself, and SQLite does not wait for that by the busy timeout:
    of processes that start together on a new file, the later ones ask again.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
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


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
