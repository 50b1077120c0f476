"""Exports and imports the whole state of a service, for a backup or another database.

The file is a zip of ``state.json`` (format, schema, number of rows of each table),
``tables/NAME.jsonl``, and the files of the calibration sets under their digests. It is written from
one snapshot, even while the service runs, and imported into an empty database. It does not contain
the secrets that sign receipts.
"""

from __future__ import annotations

import json
import logging
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from trueprob.arrays.calibration_set import load_calibration_set
from trueprob_service.control.fitting.set_files import SetFiles, part_file
from trueprob_service.control.store import Store
from trueprob_service.errors import Conflict, DatabaseUnavailable, InvalidRequest

__all__ = ["export_state", "import_state"]

_LOG: Final = logging.getLogger(__name__)
_FORMAT: Final = 1
_PREFIX: Final = "sha256:"


def export_state(
    store: Store,
    set_files: SetFiles,
    path: Path,
    *,
    clock: Callable[[], float] = time.time,  # seconds since 1970 UTC
) -> dict[str, int]:
    """Write the state to a new file, and return the number of rows of each table.

    The audit trail tells of it, unless the database cannot be written: then a backup is needed
    most, and the log has it. Raises `Conflict` if there is a file of that name.
    """
    if path.exists():
        raise Conflict(f"{path} exists already")
    with (
        part_file(path.parent) as part,
        zipfile.ZipFile(part, "x", zipfile.ZIP_DEFLATED) as archive,
    ):
        counts: dict[str, int] = {}
        kept: list[str] = []
        with store.read() as transaction:
            state = transaction.state
            for table in state.tables:
                counts[table] = 0
                with archive.open(f"tables/{table}.jsonl", "w", force_zip64=True) as file:
                    for row in state.rows(table):
                        file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
                        counts[table] += 1
                        if table == "calibration_set" and row["deleted_at"] is None:
                            kept.append(row["digest"])
            schema = state.schema()
        for digest in sorted(set(kept)):
            file_path = set_files.find(digest)
            if file_path is not None:  # otherwise it is on another host: export there too
                archive.write(file_path, _member(digest))
        head = {"format": _FORMAT, "schema": schema, "rows": counts}
        archive.writestr("state.json", json.dumps(head))
        archive.close()
        with part.open("rb") as written:
            os.fsync(written.fileno())
        try:
            with store.write() as transaction:
                transaction.audit.add("state.export", None, now=clock(), detail={"rows": counts})
        except DatabaseUnavailable as error:
            _LOG.warning("the export is not in the audit trail: %s", error.detail)
        part.replace(path)
    return counts


def import_state(
    store: Store,
    set_files: SetFiles,
    path: Path,
    *,
    clock: Callable[[], float] = time.time,  # seconds since 1970 UTC
) -> dict[str, int]:
    """Read an exported file into an empty database; returns the number of rows of each table.

    Raises `InvalidRequest` if the file is not an export, is damaged or has another schema, and
    `Conflict` if the database is not empty.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            head = json.loads(archive.read("state.json"))
            if head.get("format") != _FORMAT:
                raise InvalidRequest(f"{path} has format {head.get('format')}, expected {_FORMAT}")
            with store.write() as transaction:
                state = transaction.state
                if state.schema() != head["schema"]:
                    raise InvalidRequest(
                        f"{path} has schema {head['schema']}, this version has {state.schema()}: "
                        "import it with the version that exported it, then start this one there"
                    )
                if not state.is_empty():
                    raise Conflict("the database is not empty: import into a new one")
                _restore_sets(archive, set_files)
                counts = {
                    table: state.add(table, _rows(archive, f"tables/{table}.jsonl"))
                    for table in state.tables
                }
                if counts != head["rows"]:
                    raise InvalidRequest(f"{path} is damaged: rows are missing")
                transaction.audit.add("state.import", None, now=clock(), detail={"rows": counts})
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise InvalidRequest(f"{path} is not an exported state: {error}") from None
    return counts


def _member(digest: str) -> str:
    return f"calibration-sets/{digest.removeprefix(_PREFIX)}.npz"


def _rows(archive: zipfile.ZipFile, member: str) -> Iterator[dict[str, Any]]:
    with archive.open(member) as file:
        for line in file:
            yield json.loads(line)


def _restore_sets(archive: zipfile.ZipFile, set_files: SetFiles) -> None:
    for member in archive.namelist():
        if not member.startswith("calibration-sets/"):
            continue
        with archive.open(member) as file:
            rows = load_calibration_set(file.read())
        if _member(rows.digest) != member:
            raise InvalidRequest(f"{member} does not contain the rows that its name says")
        set_files.keep(rows)
