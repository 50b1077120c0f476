"""Both databases, really started, and a world on each."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration_requirements import require_module, require_program
from tests.trueprob_service.control.harness import World, settings_in, start


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """A PostgreSQL server on a Unix socket; its folder."""
    initdb, postgres, pg_isready = map(require_program, ("initdb", "postgres", "pg_isready"))
    folder = Path(tempfile.mkdtemp(prefix="trueprob-pg-"))
    # The server refuses to run as root.
    user = {"user": "postgres"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    subprocess.run(
        [initdb, "-D", data, "-U", "trueprob", "-A", "trust", "--no-sync", "-E", "UTF8"],
        check=True,
        capture_output=True,
        cwd=folder,
        **user,
    )
    options = [
        "-c",
        "listen_addresses=",
        "-c",
        "fsync=off",
        "-c",
        f"unix_socket_directories={folder}",
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [postgres, "-D", data, *options],
            stdout=log,
            stderr=log,
            cwd=folder,
            **user,
        )
        try:
            while subprocess.run([pg_isready, "-q", "-h", folder], check=False).returncode:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            yield folder
        finally:
            server.send_signal(signal.SIGINT)  # waits for no client
            server.wait()
    shutil.rmtree(folder)


@pytest.fixture
def new_postgres_url(postgres: Path) -> Callable[[], str]:
    """Makes an empty database: a schema of its own, which takes less time than CREATE DATABASE."""

    psycopg = require_module("psycopg")

    def new() -> str:
        name = f"t{time.monotonic_ns()}"
        with psycopg.connect(f"user=trueprob dbname=postgres host={postgres}") as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql://trueprob@/postgres?options=-csearch_path%3D{name}&host={postgres}"

    return new


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "postgresql":
        url = request.getfixturevalue("new_postgres_url")()
        assert isinstance(url, str)
        return url
    return f"sqlite:///{tmp_path / 'test.sqlite3'}"


@pytest.fixture
def begin(tmp_path: Path, database_url: str) -> Iterator[Callable[..., World]]:
    """Starts worlds on the same state; they are closed at the end."""
    worlds: list[World] = []

    def new(*, settings: dict[str, Any] | None = None, **options: Any) -> World:
        chosen = settings_in(tmp_path, database_url=database_url, **(settings or {}))
        worlds.append(start(chosen, **options))
        return worlds[-1]

    yield new
    for world in worlds:
        world.plane.close()


@pytest.fixture
def world(begin: Callable[..., World]) -> World:
    """A plane that serves the declared model ``m`` of three classes."""
    running = begin()
    running.declare()
    return running


@pytest.fixture
def sqlite_world(tmp_path: Path) -> Iterator[World]:
    """As `world`, on SQLite only: for what does not reach the database's differences."""
    running = start(settings_in(tmp_path))
    running.declare()
    yield running
    running.plane.close()


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """As `sqlite_world`, one for all: for requests that are refused and so change nothing."""
    running = start(settings_in(tmp_path_factory.mktemp("shared")))
    running.declare()
    yield running
    running.plane.close()
