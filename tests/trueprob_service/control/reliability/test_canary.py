"""The canary sees every fault of a database and its end, on real faults."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.trueprob_service.control.reliability.disks import (
    fill,
    overwritten,
    small_disk,
    unchangeable,
)
from tests.waiting import wait_until
from trueprob_service.control.canary import Canary, reason
from trueprob_service.control.store import FAULTS, Store, open_store
from trueprob_service.errors import DatabaseUnavailable
from trueprob_service.metrics.catalogue import FAULTS_OF

Watched = tuple[Store, Canary]


@contextlib.contextmanager
def watched(url: str, folder: Path, **options: float) -> Iterator[Watched]:
    """A store and its canary, which looks more often than a service's."""
    store = open_store(url, timeout_seconds=1.0)
    canary = Canary(
        store, folder, interval_seconds=0.05, deadline_seconds=0.5, lock_seconds=0.2, **options
    )
    canary.start()
    try:
        yield store, canary
    finally:
        canary.close()
        store.close()


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "trueprob.sqlite3"


@pytest.fixture
def sqlite(sqlite_file: Path) -> Iterator[Watched]:
    with watched(f"sqlite:///{sqlite_file}", sqlite_file.parent) as both:
        yield both


def add_model(store: Store, name: str) -> None:
    with store.write() as transaction:
        transaction.models.add(name, declared=True, now=1.0)


def claim_keys(store: Store, n: int) -> None:
    with store.write() as transaction:
        nonces = [index.to_bytes(24, "big") for index in range(n)]
        transaction.label_keys.claim(nonces, [1.0] * n)


def sees(canary: Canary, fault: str | None, component: str = "database") -> None:
    wait_until(lambda: canary.faults.get(component) == fault, f"{component}: {fault}")


def refuses_at_once(store: Store, fault: str) -> None:
    started = threading.Event()
    with pytest.raises(DatabaseUnavailable) as refusal, store.write():
        started.set()
    assert refusal.value.detail == FAULTS[fault]
    assert not started.is_set()


def works_again(store: Store, canary: Canary, name: str = "after") -> None:
    sees(canary, None)
    add_model(store, name)
    with store.read() as transaction:
        assert transaction.models.get(name) is not None


def test_a_disk_that_is_full_heals_when_there_is_space_again(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 4) as disk,
        watched(f"sqlite:///{disk / 'd.sqlite3'}", disk) as (store, canary),
    ):
        add_model(store, "before")
        filling = fill(disk)
        sees(canary, "disk_full")
        sees(canary, "disk_full", "files")
        refuses_at_once(store, "disk_full")
        with store.read() as transaction:  # what is there can be read
            assert transaction.models.get("before") is not None
        filling.unlink()
        works_again(store, canary)
        sees(canary, None, "files")


def test_a_transaction_that_fills_the_disk_is_no_bug_of_the_service(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        store = open_store(f"sqlite:///{disk / 'd.sqlite3'}")
        filling = fill(disk)
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="its disk is full"):
                claim_keys(store, 40_000)
        filling.unlink()
        add_model(store, "after")
        store.close()


def test_a_lock_that_another_process_holds_is_seen(sqlite: Watched, sqlite_file: Path) -> None:
    store, canary = sqlite
    with contextlib.closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        sees(canary, "locked")
        refuses_at_once(store, "locked")
        with store.read() as transaction:
            assert transaction.models.all() == []
        other.rollback()
        works_again(store, canary)


def test_another_process_that_writes_all_the_time_is_no_fault(
    sqlite: Watched, sqlite_file: Path
) -> None:
    _store, canary = sqlite
    with contextlib.closing(sqlite3.connect(sqlite_file, isolation_level=None)) as other:
        deadline = time.monotonic() + 2.0
        number = 0
        while time.monotonic() < deadline:
            number += 1
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO swept VALUES (?, 0)", (f"n{number}",))
            time.sleep(0.02)  # most of the time it has the lock
            other.execute("COMMIT")
            assert "database" not in canary.faults
    assert number > 20


def test_a_file_that_nobody_can_write_is_seen(sqlite: Watched, sqlite_file: Path) -> None:
    store, canary = sqlite
    with unchangeable(sqlite_file.parent):
        sees(canary, "read_only")
        sees(canary, "read_only", "files")
        refuses_at_once(store, "read_only")
    works_again(store, canary)


@pytest.mark.parametrize("where", ["header", "schema", "middle", "end"])
def test_damage_is_seen_wherever_it_is(sqlite: Watched, sqlite_file: Path, where: str) -> None:
    store, canary = sqlite
    for index in range(200):
        add_model(store, f"model-{index:03}-{'x' * 100}")
    with contextlib.closing(sqlite3.connect(sqlite_file)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = sqlite_file.stat().st_size
    offset, length = {
        "header": (0, 100),
        "schema": (100, 3000),
        "middle": (size // 2 & ~4095, 8192),
        "end": (size - 8192, 8192),
    }[where]
    with overwritten(sqlite_file, offset, length):
        sees(canary, "damaged")
        refuses_at_once(store, "damaged")
    sees(canary, None)


def test_a_file_that_is_cut_to_nothing_is_damaged(sqlite: Watched, sqlite_file: Path) -> None:
    store, canary = sqlite
    os.truncate(sqlite_file, 0)
    sees(canary, "damaged")
    refuses_at_once(store, "damaged")


def test_a_file_that_is_replaced_is_not_written(sqlite: Watched, sqlite_file: Path) -> None:
    store, canary = sqlite
    moved = sqlite_file.with_name("moved")
    sqlite_file.rename(moved)
    sees(canary, "replaced")
    refuses_at_once(store, "replaced")
    shutil.copy(moved, sqlite_file)  # the same bytes in another file
    time.sleep(0.3)
    assert canary.faults == {"database": "replaced"}
    moved.rename(sqlite_file)
    works_again(store, canary)


def test_a_writer_of_this_process_that_is_stuck_does_not_stop_the_others_for_ever(
    sqlite: Watched,
) -> None:
    store, canary = sqlite
    with store.write() as transaction:
        transaction.models.add("slow", declared=True, now=1.0)
        sees(canary, "hung")
    works_again(store, canary)


def test_a_statement_of_sqlite_has_a_deadline(sqlite: Watched) -> None:
    store, _canary = sqlite
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(DatabaseUnavailable), store.read() as transaction:
        transaction._connection.exec_driver_sql(endless)


def test_a_statement_of_postgresql_has_a_deadline(
    new_postgres_url: Callable[[], str], tmp_path: Path
) -> None:
    with (
        watched(new_postgres_url(), tmp_path) as (store, canary),
        pytest.raises(DatabaseUnavailable),
        store.read() as transaction,
    ):
        transaction._connection.exec_driver_sql("SELECT pg_sleep(60)")
    assert canary.faults == {}


def test_a_postgresql_that_hangs_frees_who_waits(
    new_postgres_url: Callable[[], str], postgres: Path, tmp_path: Path
) -> None:
    server = int((postgres / "data" / "postmaster.pid").read_text().split()[0])
    with watched(new_postgres_url(), tmp_path) as (store, canary):
        add_model(store, "before")
        stopped = [server, *children(server)]
        waited: list[str] = []

        def wait_for_it() -> None:
            try:
                add_model(store, "meanwhile")
            except DatabaseUnavailable as error:
                waited.append(error.detail)

        try:
            for process in stopped:
                os.kill(process, signal.SIGSTOP)
            waiting = threading.Thread(target=wait_for_it)
            waiting.start()
            sees(canary, "hung")
            waiting.join(10)
            assert len(waited) == 1
            refuses_at_once(store, "hung")
            with pytest.raises(DatabaseUnavailable), store.read():
                pass
        finally:
            for process in stopped:
                os.kill(process, signal.SIGCONT)
        works_again(store, canary)


def children(process: int) -> list[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return [int(each) for each in path.read_text().split()]


def test_a_postgresql_that_may_only_be_read_is_seen(
    new_postgres_url: Callable[[], str], tmp_path: Path
) -> None:
    url = new_postgres_url()
    with watched(url, tmp_path) as (store, canary):
        wait_until(lambda: len(store._open._connections) == 2, "the canary's session")
        set_read_only = "ALTER ROLE trueprob SET default_transaction_read_only = "
        with store._engine.begin() as connection:
            connection.exec_driver_sql(f"{set_read_only}on")
        try:
            store.sever()  # sessions have the setting from their start
            sees(canary, "read_only")
            refuses_at_once(store, "read_only")
        finally:
            with store._engine.begin() as connection:
                connection.exec_driver_sql("SET transaction_read_only = off")
                connection.exec_driver_sql(f"{set_read_only}off")
        store.sever()
        works_again(store, canary)


def test_the_log_of_sqlite_does_not_outgrow_a_small_disk(tmp_path: Path) -> None:
    with (
        small_disk(tmp_path / "disk", 16) as disk,
        watched(f"sqlite:///{disk / 'd.sqlite3'}", disk) as (store, canary),
    ):
        stop = threading.Event()

        def read_all_the_time() -> None:
            while not stop.is_set():
                with store.read() as transaction:
                    transaction.models.all()
                    time.sleep(0.01)

        readers = [threading.Thread(target=read_all_the_time) for _ in range(3)]
        for reader in readers:
            reader.start()
        written = 0
        try:
            while written < 40 << 20:  # more than the disk has
                with store.write() as transaction:
                    transaction.models.add("m", declared=True, now=1.0)
                    transaction._connection.exec_driver_sql(
                        "INSERT INTO swept VALUES (?, 0)", (f"{written}{'x' * 200_000}",)
                    )
                with store.write() as transaction:
                    transaction._connection.exec_driver_sql("DELETE FROM swept")
                    transaction._connection.exec_driver_sql("DELETE FROM model")
                written += 400_000
                time.sleep(0.005)
        finally:
            stop.set()
            for reader in readers:
                reader.join()
        assert canary.faults == {}


def test_every_fault_has_a_name_in_the_metrics_and_a_sentence() -> None:
    assert set(FAULTS) == set(FAULTS_OF["database"])
    sentences = [reason(part, fault) for part, faults in FAULTS_OF.items() for fault in faults]
    assert len(set(sentences)) == len(sentences)
