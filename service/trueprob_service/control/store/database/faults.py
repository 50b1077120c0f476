"""What is wrong with a database, from the error that its driver raised.

A fault is a short name that does not change: readiness, the metric ``database_fault`` and the log
have it. Errors of a statement itself (a constraint, unknown SQL) are no faults.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

__all__ = ["FAULTS", "fault_of", "refined"]

# Fault → what clients and the log are told. `metrics.catalogue.DATABASE_FAULTS` has the names.
FAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "disk_full": "the database cannot be written because its disk is full: free some space, "
        "the service then goes on by itself",
        "read_only": "the database cannot be written because it is read-only: make its folder or "
        "its server writable, the service then goes on by itself",
        "locked": "the database is locked by another process: end that process, the service then "
        "goes on by itself",
        "damaged": "the database is damaged: stop the service and restore a backup",
        "replaced": "the file of the database was moved, deleted or replaced: put it back, or "
        "restart the service",
        "io_error": "the disk of the database gives errors or is over its quota: see the log",
        "hung": "the database does not answer in time; try again later",
        "unreachable": "the database does not answer; try again later",
    }
)
_SMALLEST_FREE_BYTES: Final = 1 << 16

# The low byte of SQLite's result codes: https://sqlite.org/rescode.html
_SQLITE: Final = {
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_NOMEM: "unreachable",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_INTERRUPT: "hung",
    sqlite3.SQLITE_IOERR: "io_error",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_CANTOPEN: "unreachable",
    sqlite3.SQLITE_PROTOCOL: "locked",
    sqlite3.SQLITE_NOTADB: "damaged",
}
# SQLSTATE, or its class: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: Final = {
    "08": "unreachable",
    "25006": "read_only",
    "28": "unreachable",  # the role or its password is refused
    "3D": "unreachable",  # there is no such database
    "40": "locked",  # a deadlock or a conflict of transactions
    "53": "unreachable",  # too many connections, out of memory
    "53100": "disk_full",
    "55P03": "locked",
    "57": "unreachable",  # the server is starting or stopping
    "57014": "hung",  # statement_timeout
    "58": "io_error",
    "F0": "damaged",
    "XX": "damaged",
}


def fault_of(error: BaseException) -> str | None:
    """The fault that an error of a driver shows; None if the database is not at fault.

    SQLite ends the whole transaction when the disk is full, and going back to a savepoint then
    fails because there is none any more. So errors that came before an error count too.
    """
    present: BaseException | None = error
    while present is not None:
        fault = _fault_of_one(present)
        if fault is not None:
            return fault
        present = present.__context__
    return None


def _fault_of_one(error: BaseException) -> str | None:
    if isinstance(error, PoolTimeout):
        return "hung"  # every connection is in use and none comes back
    if not isinstance(error, DBAPIError | sqlite3.Error):
        return None
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", None)
        return None if code is None else _SQLITE.get(code & 0xFF)
    state = getattr(original, "sqlstate", None)
    if state is None:  # the connection broke, or none was made
        if type(original).__name__ == "ConnectionTimeout":  # of psycopg, which is an extra
            return "hung"
        return "unreachable" if isinstance(error, OperationalError | InterfaceError) else None
    return _POSTGRESQL.get(state) or _POSTGRESQL.get(state[:2])


def refined(fault: str, folder: Path) -> str:
    """A fault of a SQLite file, with what its file system says about it."""
    if fault not in ("unreachable", "io_error"):
        return fault
    try:
        system = os.statvfs(folder)
    except OSError:
        return fault
    if system.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK):
        return "read_only"
    return "disk_full" if system.f_bavail * system.f_frsize < _SMALLEST_FREE_BYTES else fault
