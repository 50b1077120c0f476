"""Opens the database and gives transactions: SQLite by default, PostgreSQL by URL.

SQLite runs in WAL mode with ``synchronous=FULL``, so acknowledged data are on disk. Python's driver
delays BEGIN until the first write, which turns a read-then-write transaction into a deadlock; its
own transaction handling is therefore off and BEGIN is sent here: IMMEDIATE for writers, deferred (a
snapshot) for readers. PostgreSQL writers are READ COMMITTED with row locks, readers REPEATABLE
READ, which is a snapshot too.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from trueprob_service.control.store.alarms import AlarmStateTable, AlarmTable
from trueprob_service.control.store.audit import AuditTable, KeyUseTable
from trueprob_service.control.store.calibration_sets import CalibrationSetTable
from trueprob_service.control.store.events import EventTable
from trueprob_service.control.store.fits import EarlierFitTable, FitTable, PolicyFitTable
from trueprob_service.control.store.label_sums import (
    BinTable,
    ClassTotalTable,
    WindowBlockTable,
)
from trueprob_service.control.store.labelled_rows import LabelledRowTable
from trueprob_service.control.store.labels import GroupCountTable, LabelKeyTable
from trueprob_service.control.store.migrations import UnknownSchema, check_schema, upgrade
from trueprob_service.control.store.models import DeletedModelTable, ModelTable
from trueprob_service.control.store.promotions import CalibratorTable, PromotionTable
from trueprob_service.control.store.shadows import ShadowTable
from trueprob_service.control.store.upkeep import AllTables, HighWaterMarkTable
from trueprob_service.errors import DatabaseUnavailable

__all__ = ["Store", "Transaction", "UnknownSchema", "open_store", "refuse_unknown_schema"]


_WRITES: Final = "trueprob_writes"
_BUSY_SECONDS: Final = 15.0
_RETRY_SECONDS: Final = 0.02
_CONNECT_SECONDS: Final = 5
# Pages of 4 KB: 32 MB. Labels of new inputs touch pages all over their table. With SQLite's default
# of 1 000 pages, each request of 10 000 labels would copy what it wrote into the file once more.
_CHECKPOINT_PAGES: Final = 8_000
# One transaction-scoped advisory lock serialises migrations of replicas that start together.
_MIGRATION_LOCK: Final = 0x74727565

_T = TypeVar("_T")


def _on_access(make: Callable[[Connection], _T]) -> functools.cached_property[_T]:
    """The accessor of a table, made when a transaction first uses it."""
    return functools.cached_property(lambda transaction: make(transaction._connection))


class Transaction:
    """A database transaction: one attribute for each table or group of tables.

    It ends with the block of `Store.write` or `Store.read` that gave it.
    """

    models = _on_access(ModelTable)
    deleted_models = _on_access(DeletedModelTable)
    calibrators = _on_access(CalibratorTable)
    promotions = _on_access(PromotionTable)
    calibration_sets = _on_access(CalibrationSetTable)
    fits = _on_access(FitTable)
    earlier_fits = _on_access(EarlierFitTable)
    policy_fits = _on_access(PolicyFitTable)
    label_keys = _on_access(LabelKeyTable)
    labelled_rows = _on_access(LabelledRowTable)
    state = _on_access(AllTables)
    high_water_marks = _on_access(HighWaterMarkTable)
    alarm_states = _on_access(AlarmStateTable)
    group_counts = _on_access(GroupCountTable)
    alarms = _on_access(AlarmTable)
    bins = _on_access(BinTable)
    class_totals = _on_access(ClassTotalTable)
    window_blocks = _on_access(WindowBlockTable)
    shadows = _on_access(ShadowTable)
    audit = _on_access(AuditTable)
    key_uses = _on_access(KeyUseTable)

    def __init__(self, connection: Connection, *, keep_events: bool = False) -> None:
        self._connection = connection
        self._keep_events = keep_events

    def flush(self) -> None:
        """Write what waits for the end of the transaction: the rows of the audit trail."""
        if "audit" in vars(self):
            self.audit.flush()

    @functools.cached_property
    def events(self) -> EventTable:
        """Events of the webhook; adding one does nothing without a webhook."""
        return EventTable(self._connection, kept=self._keep_events)


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

        Raises `DatabaseUnavailable` if the database does not answer; nothing is stored then.
        """
        with self._writing, self._boundary(), self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin():
                transaction = Transaction(connection, keep_events=self._keep_events)
                yield transaction
                transaction.flush()

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
        """Bring the schema up to date; processes that start together do this one at a time."""
        with self._writing, self._boundary(), self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin():
                if not self._sqlite:
                    lock = text("SELECT pg_advisory_xact_lock(:key)")
                    connection.execute(lock, {"key": _MIGRATION_LOCK})
                upgrade(connection)

    def is_reachable(self) -> bool:
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

    Raises `DatabaseUnavailable` if it cannot be reached, `UnknownSchema` if its schema is not one
    of this version's history, and `ValueError`, without the password, if the URL is not supported.
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
    """Raise `UnknownSchema` if `open_store` would; does nothing if the database does not answer.

    Raises `ValueError` for a URL that is not supported.
    """
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            check_schema(connection)
    except (OperationalError, InterfaceError, PoolTimeout):
        return  # `open_store` reports it
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
    """Turn on write-ahead logging, which stays on for the file.

    The switch needs the file exclusively, and SQLite's busy timeout does not cover it: processes
    that start together on a new file retry here.
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
