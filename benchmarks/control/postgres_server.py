"""A PostgreSQL server with its default settings; every commit is on disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["NoServer", "PostgresServer", "postgres_server"]

# Debian keeps the server's programs out of PATH, a folder a major version.
INSTALLED = "usr/lib/postgresql/*/bin"


class NoServer(Exception):
    """Reason why no server can be started."""


def _program(name: str) -> str:
    for folder in sorted(Path("/").glob(INSTALLED), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    found = shutil.which(name)
    if found is None:
        raise NoServer(f"PostgreSQL is not installed ({name} is not found)")
    return found


class PostgresServer:
    """A server on a Unix socket.

    Attributes
    ----------
    folder : Path
        Of the socket.
    url : str
        Of the database, for the service.

    Raises
    ------
    NoServer
        PostgreSQL or its driver is not installed, or it does not start.
    """

    def __init__(self) -> None:
        try:
            import psycopg  # noqa: F401 - only whether it is there
        except ImportError:
            raise NoServer("psycopg is not installed (extra postgres)") from None
        initdb, self._postgres, self._ready = map(_program, ("initdb", "postgres", "pg_isready"))
        self.folder = Path(tempfile.mkdtemp(prefix="trueprob-pg-"))
        self.url = f"postgresql://trueprob@/postgres?host={self.folder}"
        # It refuses to run as root.
        self._user = {"user": "postgres"} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(self.folder, "postgres")
        self._data = self.folder / "data"
        subprocess.run(
            [initdb, "-D", self._data, "-U", "trueprob", "-A", "trust", "-E", "UTF8"],
            check=True, capture_output=True, cwd=self.folder, **self._user,
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start it, after a crash too, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                self._postgres, "-D", self._data,
                "-c", "listen_addresses=", "-c", f"unix_socket_directories={self.folder}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder, **self._user,
        )  # fmt: skip
        while subprocess.run([self._ready, "-q", "-h", self.folder], check=False).returncode:
            if self._process.poll() is not None:
                raise NoServer("PostgreSQL did not start")
            time.sleep(0.1)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its processes, as to a machine that dies or hangs."""
        server = self._process.pid
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        for process_id in (server, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(process_id, number)
        if number == signal.SIGKILL:
            self._process.wait()

    def close(self) -> None:
        """Stop it and delete its data."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)  # waits for no client
            self._process.wait()
        shutil.rmtree(self.folder)


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that is stopped and deleted at the end.

    Raises
    ------
    NoServer
        PostgreSQL or its driver is not installed, or it does not start.
    """
    server = PostgresServer()
    try:
        yield server
    finally:
        server.close()
