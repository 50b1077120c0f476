"""A service that cannot start says one sentence and ends with exit code 2, in every form of it."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from tests.running_service import ROOT
from tests.trueprob_service.control.reliability.disks import unchangeable
from trueprob_service.__main__ import main

pytestmark = pytest.mark.integration
FORMS = (("--port", "0"), ("--port", "0", "--replicas", "2"))
SECRET = ("--receipt-secrets", "0123456789abcdef")


Refused = Callable[[Path, Sequence[str]], str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """The one line of a service that does not start."""

    def one_line(state: Path, flags: Sequence[str]) -> str:
        folders = ("--state-dir", str(state), "--model-repository", str(state.parent / "models"))
        assert main(["serve", *folders, *flags]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("trueprob-service: error: "), line
        return line.removeprefix("trueprob-service: error: ")

    return one_line


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_that_cannot_be_written(
    refused: Refused, tmp_path: Path, form: Sequence[str]
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "receipt-secret").write_text("0123456789abcdef" * 4)
    with unchangeable(state):
        said = refused(state, form)
    assert str(state) in said or "receipt" in said


@pytest.mark.parametrize("form", FORMS)
def test_a_database_that_is_damaged(refused: Refused, tmp_path: Path, form: Sequence[str]) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "trueprob.sqlite3").write_bytes(os.urandom(20_000))
    assert refused(state, form).startswith("database_url: the database is damaged")


@pytest.mark.parametrize("form", FORMS)
def test_a_database_of_a_newer_version(
    refused: Refused, tmp_path: Path, form: Sequence[str]
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    with closing(sqlite3.connect(state / "trueprob.sqlite3")) as connection, connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    assert refused(state, form).startswith("the database has schema 9999")


@pytest.mark.parametrize("form", FORMS)
def test_a_server_that_is_away(refused: Refused, tmp_path: Path, form: Sequence[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"postgresql://user:the-password@127.0.0.1:{port}/trueprob"
    said = refused(tmp_path / "state", (*form, *SECRET, "--database-url", url))
    assert said.startswith("database_url: PostgreSQL does not answer: ")
    assert f"port {port}" in said
    assert "the-password" not in said


def test_a_server_that_takes_connections_and_says_nothing(refused: Refused, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://user@127.0.0.1:{silent.getsockname()[1]}/trueprob"
        said = refused(tmp_path / "state", (*FORMS[0], *SECRET, "--database-url", url))
    assert said.startswith("database_url: PostgreSQL does not answer: ")


def test_a_folder_of_the_database_that_is_not_there(refused: Refused, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/no/such/folder/d.sqlite3"
    said = refused(tmp_path / "state", (*FORMS[0], "--database-url", url))
    assert said == f"database_url: there is no folder {tmp_path}/no/such/folder"


def test_a_port_that_is_taken(refused: Refused, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(tmp_path / "state", ("--port", port))
    assert said.startswith(f"port: cannot listen on 127.0.0.1 port {port}: Address already in use")


def test_a_certificate_that_cannot_be_read(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no certificate")
    files = ("--tls-cert", str(tmp_path / "no.pem"), "--tls-key", str(tmp_path / "no.pem"))
    assert refused(tmp_path / "state", (*FORMS[0], *files)).startswith("tls_cert, tls_key: ")


def test_a_provider_that_does_not_run(tmp_path: Path) -> None:
    flags = ("--execution-providers", "tensorrt", "--model-repository", str(ROOT / "models"))
    command = [sys.executable, "-m", "trueprob_service", "serve", "--port", "0", *flags]
    done = subprocess.run(
        [*command, "--state-dir", str(tmp_path / "state")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(
        "trueprob-service: error: execution_providers asks for TensorrtExecutionProvider"
    )
