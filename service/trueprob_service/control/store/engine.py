"""Opens the database and gives transactions: SQLite by default, PostgreSQL by URL.

SQLite runs in WAL mode with ``synchronous=FULL``, so acknowledged data are on disk. Python's driver
delays BEGIN until the first write, which turns a read-then-write transaction into a deadlock; its
own transaction handling is therefore off and BEGIN is sent here: IMMEDIATE for writers, deferred (a
snapshot) for readers. PostgreSQL writers are READ COMMITTED with row locks, readers REPEATABLE
READ, which is a snapshot too.

Nothing waits for long: statements and connection attempts have a timeout, and while `Store.fault`
says that the database does not work, transactions are refused at once. Who looks, with
`Store.probe`, is `trueprob_service.control.canary`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError

from trueprob_service.control.store.alarms import AlarmStateTable, AlarmTable
from trueprob_service.control.store.audit import AuditTable, KeyUseTable
from trueprob_service.control.store.calibration_sets import CalibrationSetTable
from trueprob_service.control.store.database.connections import (
    TIMEOUT_SECONDS,
    new_engine,
    parsed_url,
)
from trueprob_service.control.store.database.faults import FAULTS, fault_of, refined
from trueprob_service.control.store.database.probe import Probe
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
from trueprob_service.control.store.remembered.blocks import RememberedBlockTable
from trueprob_service.control.store.shadows import ShadowTable
from trueprob_service.control.store.upkeep import AllTables, HighWaterMarkTable
from trueprob_service.errors import DatabaseUnavailable

__all__ = ["Store", "Transaction", "UnknownSchema", "open_store", "refuse_unknown_schema"]


_WRITES: Final = "trueprob_writes"  # execution option of connections that will write
_NO_READS: Final = frozenset({"hung", "unreachable"})  # faults with which reading would wait too
_LOG: Final = logging.getLogger(__name__)
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
    remembered = _on_access(RememberedBlockTable)
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

    def __init__(
        self, engine: Engine, *, keep_events: bool = False, timeout_seconds: float = 0.0
    ) -> None:
        self._engine = engine
        self._keep_events = keep_events
        self._timeout_seconds = timeout_seconds
        self._sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer at a time and its busy handler polls: threads of this process
        # queue here instead, in order.
        self._writing = threading.Lock() if self._sqlite else None
        self._commits = 0
        self._probe = Probe(engine.url, _begin_immediate)
        self._open = _OpenConnections(engine)
        self._open.watch(self._probe.engine)
        # Why the database does not work, a name in `FAULTS`. Whoever looks sets it; while it is
        # set, what would fail or wait is refused at once.
        self.fault: str | None = None
        self.on_fault: Callable[[str], object] = lambda _fault: None  # told of failed transactions

    @contextlib.contextmanager
    def write(self) -> Iterator[Transaction]:
        """A transaction that commits when its block ends and rolls back when it raises.

        Raises `DatabaseUnavailable` if the database does not work; nothing is stored then.
        """
        if self.fault is not None:
            raise DatabaseUnavailable(FAULTS[self.fault])
        with self._boundary(), self._one_writer(), self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin(), self._open.running(connection):
                transaction = Transaction(connection, keep_events=self._keep_events)
                yield transaction
                transaction.flush()
            self._commits += 1

    @contextlib.contextmanager
    def read(self) -> Iterator[Transaction]:
        """A consistent snapshot; writing in it is a programming error."""
        if self.fault in _NO_READS:
            raise DatabaseUnavailable(FAULTS[self.fault])
        with self._boundary(), self._engine.connect() as plain:
            connection = (
                plain
                if self._sqlite
                else plain.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            )
            with connection.begin(), self._open.running(connection):
                yield Transaction(connection)

    def migrate(self) -> None:
        """Bring the schema up to date; processes that start together do this one at a time."""
        with self._boundary(), self._one_writer(), self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin():
                if not self._sqlite:
                    connection.execute(text("SET LOCAL statement_timeout = 0"))
                    lock = text("SELECT pg_advisory_xact_lock(:key)")
                    connection.execute(lock, {"key": _MIGRATION_LOCK})
                upgrade(connection)
        self._probe.remember_file()

    def probe(self, *, seconds: float) -> str | None:
        """Write a row, read it back and roll back; the fault, None if all of that works.

        `seconds` is how long a lock is waited for. A database that hangs makes this hang too.
        """
        before = self._commits
        if self._writing is not None and not self._writing.acquire(timeout=seconds):
            return None if self._commits > before else "hung"
        try:
            return self._probe.run(seconds)
        finally:
            if self._writing is not None:
                self._writing.release()

    def interrupt_overdue(self) -> None:
        """Interrupt SQLite's statements of transactions that outlive the timeout.

        PostgreSQL does this itself, by ``statement_timeout``.
        """
        if self._sqlite and self._timeout_seconds > 0:
            self._open.interrupt(older_than=time.monotonic() - self._timeout_seconds)

    def sever(self) -> None:
        """Break the connections to a server that hangs, so that nobody waits for it any longer."""
        if not self._sqlite:
            self._open.shut_down()

    def close(self) -> None:
        """Close every connection."""
        self._probe.engine.dispose()
        self._engine.dispose()

    @contextlib.contextmanager
    def _one_writer(self) -> Iterator[None]:
        if self._writing is None:
            yield
            return
        if not self._writing.acquire(timeout=self._timeout_seconds or -1):
            raise DatabaseUnavailable(FAULTS["hung"])
        try:
            yield
        finally:
            self._writing.release()

    @contextlib.contextmanager
    def _boundary(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            fault = fault_of(error)
            if fault is None:
                raise
            _LOG.debug("a transaction failed: %s", error)
            self.on_fault(fault)
            raise DatabaseUnavailable(FAULTS[fault]) from error


class _OpenConnections:
    """The open connections of a store, for those who must not wait for them."""

    def __init__(self, engine: Engine) -> None:
        self._connections: dict[int, DBAPIConnection] = {}
        self._running: dict[int, tuple[float, DBAPIConnection]] = {}
        self.watch(engine)

    def watch(self, engine: Engine) -> None:
        """Follow the connections of an engine."""
        event.listen(engine, "connect", lambda new, _: self._connections.update({id(new): new}))
        for ended in ("close", "detach", "close_detached"):
            event.listen(engine, ended, lambda old, *_: self._connections.pop(id(old), None))

    @contextlib.contextmanager
    def running(self, connection: Connection) -> Iterator[None]:
        """A transaction on a connection."""
        driver = connection.connection.dbapi_connection
        assert driver is not None  # noqa: S101 - the connection is open
        self._running[id(driver)] = time.monotonic(), driver
        try:
            yield
        finally:
            self._running.pop(id(driver), None)

    def interrupt(self, older_than: float) -> None:
        """Interrupt SQLite's statements in transactions that began before a time."""
        for started, driver in list(self._running.values()):
            if started < older_than and isinstance(driver, sqlite3.Connection):
                with contextlib.suppress(sqlite3.Error):  # it has just been closed
                    driver.interrupt()

    def shut_down(self) -> None:
        """Shut down the sockets of psycopg's connections: whoever waits gets an error."""
        for driver in list(self._connections.values()):
            with (
                contextlib.suppress(Exception),  # it has just been closed
                socket.socket(fileno=os.dup(driver.fileno())) as same,
            ):
                same.shutdown(socket.SHUT_RDWR)


def open_store(
    url: str, *, keep_events: bool = False, timeout_seconds: float = TIMEOUT_SECONDS
) -> Store:
    """Open a database and migrate it. A timeout of 0 means none: for a command.

    Raises `DatabaseUnavailable` if it does not work, `UnknownSchema` if its schema is not one
    of this version's history, and `ValueError`, without the password, if the URL is not supported.
    """
    engine = new_engine(parsed_url(url), timeout_seconds=timeout_seconds, begin=_begin_sqlite)
    store = Store(engine, keep_events=keep_events, timeout_seconds=timeout_seconds)
    try:
        store.migrate()
    except BaseException:
        engine.dispose()
        raise
    return store


def refuse_unknown_schema(url: str) -> None:
    """Raise `UnknownSchema` if `open_store` would, and `DatabaseUnavailable` if it cannot be read.

    Raises `ValueError` for a URL that is not supported.
    """
    engine = new_engine(parsed_url(url), timeout_seconds=TIMEOUT_SECONDS, begin=_begin_sqlite)
    try:
        with engine.connect() as connection:
            check_schema(connection)
    except SQLAlchemyError as error:
        fault = fault_of(error)
        if fault is None:
            raise
        if engine.dialect.name == "sqlite":
            file = Path(engine.url.database or "")
            if not file.parent.is_dir():
                raise DatabaseUnavailable(f"there is no folder {file.parent}") from error
            raise DatabaseUnavailable(FAULTS[refined(fault, file.parent)]) from error
        # psycopg names the server and the reason, not the password.
        reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
        raise DatabaseUnavailable(f"PostgreSQL does not answer: {reason}") from error
    finally:
        engine.dispose()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
