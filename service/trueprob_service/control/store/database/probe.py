"""Whether the database works: a row is written, read back and rolled back.

Also empties SQLite's log when it has outgrown its disk.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, select
from sqlalchemy.exc import SQLAlchemyError

from trueprob_service.control.store.database.connections import new_engine
from trueprob_service.control.store.database.faults import fault_of, refined
from trueprob_service.control.store.tables import swept

__all__ = ["Probe", "folder_fault"]

_LOG: Final = logging.getLogger(__name__)
_CONNECT_SECONDS: Final = 2.0
# SQLite's log is emptied by force above these sizes: the first one, or half of the free space.
_MOST_LOG_BYTES: Final = 64 << 20
_LEAST_LOG_BYTES: Final = 1 << 20
_CHECKPOINT_MILLISECONDS: Final = 500  # longest wait for readers; writers wait as long
_ROW_BYTES: Final = 100_000  # of the row that is written and rolled back
_CHECKED_BYTES: Final = 32 << 20  # size of the largest file that is checked as a whole
_CHECK_SHARE: Final = 0.02  # of the time, at most, goes into these checks
_ERRNO: Final = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "disk_full"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "read_only"),
    errno.ENOENT: "replaced",
}


class Probe:
    """Looks whether a database works, on a connection that nothing else uses.

    Each look at SQLite opens its file anew, as a process that starts would. The row is larger than
    the connection's cache, so that it reaches the disk although it is never committed. The whole
    file is checked when it has changed, which it does at checkpoints only.
    """

    def __init__(self, url: URL, begin: Callable[[Connection], None]) -> None:
        self.engine = new_engine(url, timeout_seconds=_CONNECT_SECONDS, begin=begin, probe=True)
        self._file = Path(url.database or "") if self.engine.dialect.name == "sqlite" else None
        self._inode: tuple[int, int] | None = None
        self._checked: tuple[int, int] = (0, 0)  # size and time of the file at its last check
        self._check_again = 0.0
        self._damaged = False

    def remember_file(self) -> None:
        """Take the file that is there now for the database."""
        if self._file is not None:
            self._inode = _inode(self._file)

    def run(self, seconds: float) -> str | None:
        """Look once, and wait for a lock for so long; the fault, None if the database works."""
        if self._file is not None:
            present = _inode(self._file)
            if present is None or present != self._inode:
                return "replaced"
            with contextlib.suppress(OSError):
                if self._file.stat().st_size == 0:  # SQLite would delete its log
                    return "damaged"
        try:
            with self.engine.connect() as connection:
                return self._run(connection, seconds)
        except (SQLAlchemyError, sqlite3.Error) as error:
            fault = fault_of(error) or "damaged"  # such as a table that is no longer there
            self._damaged = fault == "damaged"
            _LOG.debug("the probe failed", exc_info=error)
            return fault if self._file is None else refined(fault, self._file.parent)
        except FileNotFoundError:
            return "replaced"

    def _run(self, connection: Connection, seconds: float) -> str | None:
        what = f"probe-{os.getpid()}-{time.monotonic_ns()}"
        version = None
        if self._file is not None:
            what += "-" * _ROW_BYTES
            _pragma(connection, f"busy_timeout={int(1000 * seconds)}")
            version = _pragma(connection, "data_version")
        try:
            transaction = connection.begin()
        except SQLAlchemyError as error:
            if fault_of(error) != "locked" or self._file is None:
                raise
            # Whoever has the lock may be busy, or stuck.
            return None if _pragma(connection, "data_version") != version else "locked"
        with transaction:
            connection.execute(swept.insert().values(what=what, before=0.0))
            found = connection.scalar(select(swept.c.what).where(swept.c.what == what))
            transaction.rollback()
        if found != what:
            return "damaged"
        return None if self._file is None else self._after_write(connection, self._file)

    def _after_write(self, connection: Connection, file: Path) -> str | None:
        """Keep the log small, and check the whole file if it has changed."""
        log = file.with_name(f"{file.name}-wal")
        size = log.stat().st_size if log.exists() else 0
        free = os.statvfs(file.parent)
        if size > min(_MOST_LOG_BYTES, max(_LEAST_LOG_BYTES, free.f_bavail * free.f_frsize // 2)):
            _pragma(connection, f"busy_timeout={_CHECKPOINT_MILLISECONDS}")
            _pragma(connection, "wal_checkpoint(TRUNCATE)")
        now, status = time.monotonic(), file.stat()
        seen = status.st_size, status.st_mtime_ns
        due = seen != self._checked and now >= self._check_again
        if self._damaged or (due and status.st_size <= _CHECKED_BYTES):
            self._damaged = _pragma(connection, "quick_check(1)") != "ok"
            self._checked = seen
            self._check_again = now + (time.monotonic() - now) / _CHECK_SHARE
        return "damaged" if self._damaged else folder_fault(file.parent)


def folder_fault(folder: Path) -> str | None:
    """Write a new file and delete it; why that fails: ``disk_full``, ``read_only``, ``io_error``.

    SQLite's log is written over again, so it alone does not show that the disk is full.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-", buffering=0) as file:
            file.write(bytes(_ROW_BYTES))
    except OSError as error:
        return _ERRNO.get(error.errno or 0, "io_error")
    return None


def _pragma(connection: Connection, pragma: str) -> object:
    """Run a PRAGMA of SQLite outside a transaction; the first column of its first row."""
    with contextlib.closing(connection.connection.cursor()) as cursor:
        cursor.execute(f"PRAGMA {pragma}")
        row = cursor.fetchone()
    return None if row is None else row[0]


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
