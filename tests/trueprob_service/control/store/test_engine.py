"""The database: one schema, one set of statements, two databases."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, inspect, make_url, text

from trueprob.calibrators import IdentityCalibrator, dumps_calibrator
from trueprob.scores.binned import BinnedCalibration
from trueprob_service.__main__ import main
from trueprob_service.control.models.catalogue import add_version, promote_first
from trueprob_service.control.store import Store, UnknownSchema, open_store, refuse_unknown_schema
from trueprob_service.control.store.label_sums import by_part
from trueprob_service.control.store.migrations import upgrade
from trueprob_service.control.store.tables import metadata
from trueprob_service.errors import DatabaseUnavailable


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


def register(store: Store, model: str = "m") -> str:
    identity = IdentityCalibrator(3)
    with store.write() as transaction:
        transaction.models.add(model, declared=True, now=1.0)
        add_version(
            transaction,
            model,
            1,
            class_names=("a", "b", "c"),
            factory=identity,
            document=dumps_calibrator(identity).decode(),
            now=1.0,
        )
        promote_first(transaction, model, 1, identity.id, by=None, now=1.0)
    return identity.id


def test_migrations_build_exactly_the_tables(database_url: str) -> None:
    open_store(database_url).close()
    engine = create_engine(make_url(database_url.replace("postgresql:", "postgresql+psycopg:")))
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        assert set(inspect(connection).get_table_names()) == {*metadata.tables, "alembic_version"}
    engine.dispose()


@pytest.mark.parametrize("schema", ["0001", "0005", "0009", "0011", "newer"])
def test_a_database_of_a_schema_that_is_not_known_is_refused_and_left_alone(
    database_url: str, schema: str
) -> None:
    engine = create_engine(make_url(database_url.replace("postgresql:", "postgresql+psycopg:")))
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        connection.execute(text(f"INSERT INTO alembic_version VALUES ('{schema}')"))
    for attempt in (open_store, refuse_unknown_schema):
        with pytest.raises(UnknownSchema, match=f"has schema {schema}, .*move state_dir or the"):
            attempt(database_url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["alembic_version"]
    engine.dispose()


def test_a_database_of_the_schema_before_keeps_its_sums(database_url: str) -> None:
    engine = create_engine(make_url(database_url.replace("postgresql:", "postgresql+psycopg:")))
    statements = (
        "INSERT INTO model (name, declared, created_at) VALUES ('m', true, 1)",
        "INSERT INTO promotion VALUES ('m', 1, 1, 'c', 'factory', NULL, NULL, NULL, 1)",
        "INSERT INTO bin_running VALUES ('m', 1, 'c', 13, 5, 4.5, 4, 0.45)",
        "INSERT INTO alarm_state VALUES ('m', 1, '{}', '{}', 5, 0, 1, NULL)",
    )
    with engine.begin() as connection:
        upgrade(connection, to="0013")
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()
    opened = open_store(database_url)
    with opened.write() as transaction:
        transaction.models.lock("m")
        new = by_part(np.array([0.9]), np.array([True]), np.array([1]), n_classes=2)
        transaction.bins.add("m", 1, version=1, calibrator="c", hour=0, new=new)
        parts = transaction.bins.running()["m", 1, "c"]
        assert (parts.unknown.count[13], parts.class_1.count[13], parts.labels.n) == (5, 1, 6)
        assert transaction.class_totals.running(replaced_since=0.0) == {}
        assert transaction.alarm_states.figures() == {"m": (None, None, None, None)}
        row = transaction.alarm_states.get("m", 1)
        assert row is not None
        assert (row.counted, row.rules) == (5, None)
    opened.close()


def test_what_can_be_opened_is_not_refused(database_url: str, tmp_path: Path) -> None:
    refuse_unknown_schema(database_url)
    open_store(database_url).close()
    refuse_unknown_schema(database_url)
    with pytest.raises(DatabaseUnavailable):
        refuse_unknown_schema(f"sqlite:///{tmp_path / 'no' / 'folder.sqlite3'}")


@pytest.mark.parametrize("command", [["--port", "0"], ["--replicas", "2"], ["export-state", "a"]])
def test_the_command_line_says_in_one_line_that_it_cannot_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    database = tmp_path / "trueprob.sqlite3"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('0007')")
    connection.close()
    assert main([*command, "--state-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trueprob-service: error: the database has schema 0007")
    assert "run the version that wrote it" in line


def test_numbers_of_the_sweep_move_one_way_only(database_url: str) -> None:
    store = open_store(database_url)
    for time, seconds in ((5.0, 30.0), (9.0, 60.0), (7.0, 20.0)):
        with store.write() as transaction:
            transaction.high_water_marks.raise_keys_before(time)
            transaction.high_water_marks.lower_shortest_keep(seconds)
    with store.read() as transaction:
        assert transaction.high_water_marks.keys_before() == 9.0
        assert transaction.high_water_marks.shortest_keep_seconds() == 20.0
    store.close()


def test_opening_again_changes_nothing(database_url: str) -> None:
    first = open_store(database_url)
    register(first)
    first.close()
    second = open_store(database_url)
    with second.read() as transaction:
        assert [model.name for model in transaction.models.all()] == ["m"]
    second.close()


def test_processes_that_start_together_migrate_once(database_url: str) -> None:
    errors: list[BaseException] = []

    def open_and_close() -> None:
        try:
            open_store(database_url).close()
        except BaseException as error:  # noqa: BLE001 - reported by the test
            errors.append(error)

    threads = [threading.Thread(target=open_and_close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_sqlite_is_durable_and_waits(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'd.sqlite3'}")
    with store._engine.connect() as connection:
        pragma = {
            name: connection.execute(text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    store.close()
    assert pragma == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "busy_timeout": 10000,
    }


def test_a_block_that_raises_stores_nothing(store: Store) -> None:
    def add_and_fail() -> None:
        with store.write() as transaction:
            transaction.models.add("m", declared=True, now=1.0)
            raise KeyError

    with pytest.raises(KeyError):
        add_and_fail()
    with store.read() as transaction:
        assert transaction.models.get("m") is None


def test_writers_that_read_first_do_not_lose_updates(store: Store) -> None:
    register(store)
    new = BinnedCalibration.of(np.array([0.7]), np.array([True]))

    def add() -> None:
        for _ in range(20):
            with store.write() as transaction:
                transaction.models.lock("m")
                transaction.bins.add("m", 1, version=1, calibrator="c", hour=0, new=[new])

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with store.read() as transaction:
        assert transaction.bins.running()["m", 1, "c"].labels.n == 60


def test_a_nonce_is_claimed_once_in_any_number_of_rows(store: Store) -> None:
    nonces = [index.to_bytes(24, "big") for index in range(25_000)]
    with store.write() as transaction:
        first = transaction.label_keys.claim(nonces[:15_000], [1.0] * 15_000)
        again = transaction.label_keys.claim(nonces, [1.0] * 25_000)
        nothing = transaction.label_keys.claim([], [])
    assert first.all()
    assert again.tolist() == [False] * 15_000 + [True] * 10_000
    assert not len(nothing)


@pytest.mark.parametrize("n", [99, 100, 1700])
def test_new_nonces_among_known_ones_are_told_from_them(store: Store, n: int) -> None:
    nonces = [index.to_bytes(24, "big") for index in range(n)]
    with store.write() as transaction:
        transaction.label_keys.claim(nonces[::3], [1.0] * len(nonces[::3]))
    with store.write() as transaction:
        fresh = transaction.label_keys.claim(nonces, [2.0] * n)
    assert fresh.tolist() == [index % 3 != 0 for index in range(n)]
    with store.write() as transaction:
        # Those that were known keep their own time, and none was put in twice.
        assert transaction.label_keys.prune(expired_before=1.5, limit=n) == len(nonces[::3])
        assert transaction.label_keys.prune(expired_before=9.0, limit=n) == fresh.sum()


def test_a_database_that_is_away_is_one_kind_of_error(
    new_postgres_url: Callable[[], str], tmp_path: Path
) -> None:
    url = new_postgres_url()
    with pytest.raises(DatabaseUnavailable):
        open_store(url.rpartition("host=")[0] + f"host={tmp_path}")
    folder = tmp_path / "no" / "folder"
    with pytest.raises(DatabaseUnavailable):
        open_store(f"sqlite:///{folder / 'd.sqlite3'}")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:pw@h/d", "no url"])
def test_a_database_that_is_not_supported_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="database_url") as refusal:
        open_store(url)
    assert "pw" not in str(refusal.value)
