"""A PostgreSQL server with its default settings; every commit is on disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["NoServer", "postgres_server"]

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


@contextmanager
def postgres_server() -> Iterator[Path]:
    """Start a server on a Unix socket and yield the folder of the socket.

    Raises
    ------
    NoServer
        PostgreSQL or its driver is not installed.
    """
    try:
        import psycopg  # noqa: F401 - only whether it is there
    except ImportError:
        raise NoServer("psycopg is not installed (extra postgres)") from None
    initdb, postgres, ready = map(_program, ("initdb", "postgres", "pg_isready"))
    folder = Path(tempfile.mkdtemp(prefix="trueprob-pg-"))
    user = {"user": "postgres"} if os.geteuid() == 0 else {}  # it refuses to run as root
    if user:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    subprocess.run(
        [initdb, "-D", data, "-U", "trueprob", "-A", "trust", "-E", "UTF8"],
        check=True, capture_output=True, cwd=folder, **user,
    )  # fmt: skip
    server = subprocess.Popen(
        [postgres, "-D", data, "-c", "listen_addresses=", "-k", folder],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **user,
    )  # fmt: skip
    try:
        while subprocess.run([ready, "-q", "-h", folder], check=False).returncode:
            if server.poll() is not None:
                raise NoServer("PostgreSQL did not start")
            time.sleep(0.1)
        yield folder
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)
