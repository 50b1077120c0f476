"""A whole service's state in one file, for backup and for moving to another database.

A zip: ``state.json`` (format, schema, rows of each table), ``tables/NAME.jsonl`` and the files of
the calibration sets under their digests. It is written from one snapshot while the service goes on,
and read into a database that is empty. The secrets that sign receipts are not in it.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from trueprob.arrays.calibration_set import load_calibration_set
from trueprob_service.control.bodies import part_file
from trueprob_service.control.fitting.set_files import SetFiles
from trueprob_service.control.store import Store
from trueprob_service.errors import Conflict, InvalidRequest

__all__ = ["export_state", "import_state"]

_FORMAT: Final = 1
_PREFIX: Final = "sha256:"


def export_state(store: Store, artifacts: SetFiles, path: Path) -> dict[str, int]:
    """Write everything to a new file; how many rows each table has.

    Raises `Conflict`: there is a file of that name.
    """
    if path.exists():
        raise Conflict(f"{path} is there already")
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
            file_path = artifacts.find(digest)
            if file_path is not None:  # else it lies on another host, and is exported there
                archive.write(file_path, _member(digest))
        head = {"format": _FORMAT, "schema": schema, "rows": counts}
        archive.writestr("state.json", json.dumps(head))
        archive.close()
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(path)
    return counts


def import_state(store: Store, artifacts: SetFiles, path: Path) -> dict[str, int]:
    """Read such a file into an empty database; how many rows each table has.

    Raises `InvalidRequest`: it is not such a file, is damaged, or is of another schema. Raises
    `Conflict`: the database is not empty.
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
                _restore_sets(archive, artifacts)
                counts = {
                    table: state.add(table, _rows(archive, f"tables/{table}.jsonl"))
                    for table in state.tables
                }
                if counts != head["rows"]:
                    raise InvalidRequest(f"{path} is damaged: it lacks rows")
    except (zipfile.BadZipFile, KeyError, ValueError, OSError) as error:
        raise InvalidRequest(f"{path} is not an exported state: {error}") from None
    return counts


def _member(digest: str) -> str:
    return f"calibration-sets/{digest.removeprefix(_PREFIX)}.npz"


def _rows(archive: zipfile.ZipFile, member: str) -> Iterator[dict[str, Any]]:
    with archive.open(member) as file:
        for line in file:
            yield json.loads(line)


def _restore_sets(archive: zipfile.ZipFile, artifacts: SetFiles) -> None:
    for member in archive.namelist():
        if not member.startswith("calibration-sets/"):
            continue
        with archive.open(member) as file:
            rows = load_calibration_set(file.read())
        if _member(rows.digest) != member:
            raise InvalidRequest(f"{member} does not hold the rows that its name says")
        artifacts.keep(rows)
