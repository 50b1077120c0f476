"""Calibration sets on a file system of fsspec; each host caches those that it used.

Object stores show an object only when it is complete, and cannot rename. File systems that can
(SFTP, for example) are written under another name first. Downloads are checked against their
digest.

The caches of fsspec (simplecache, filecache) are not used: they download under the final name, so
after a lost connection a partial file would be taken for a complete one.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from fsspec import AbstractFileSystem

from trueprob.arrays.calibration_set import CalibrationSet, load_calibration_set
from trueprob.errors import TrueprobError
from trueprob_service.control.fitting.set_files import (
    ABANDONED_SECONDS,
    PREFIX,
    SET_ASIDE_SUFFIX,
    SetAsideFile,
    SetFiles,
    part_file,
)
from trueprob_service.errors import Unavailable

__all__ = ["RemoteSetFiles"]

_LOG: Final = logging.getLogger(__name__)
# The clean-up job removes unused objects after a day. An object older than this is rewritten.
_REWRITE_SECONDS: Final = 43_200.0


class RemoteSetFiles(SetFiles):
    """Sets in a folder of a remote file system; this host's copies are in the state directory."""

    def __init__(self, root: Path, files: AbstractFileSystem, folder: str) -> None:
        super().__init__(root)
        self._files = files
        self._folder = folder.rstrip("/")
        self._renames = type(files).mv is not AbstractFileSystem.mv  # else `mv` copies and deletes

    def start(self) -> None:
        """As in a folder. Storage that does not answer is logged: predictions do not need it."""
        try:
            super().start()
        except Unavailable as error:
            _LOG.warning("%s", error.detail)

    def remove_leftovers(self) -> None:
        """As in a folder, on this host and remotely."""
        super().remove_leftovers()
        with _storage_errors("could not be cleaned up"):
            for name in self._names():
                if self._age_seconds(name) <= ABANDONED_SECONDS:
                    continue
                if name.endswith(".part"):
                    self._remove(name)
                elif name.endswith(SET_ASIDE_SUFFIX):
                    with contextlib.suppress(FileNotFoundError):
                        self._files.mv(name, name.removesuffix(SET_ASIDE_SUFFIX))

    def digests(self, *, older_than_seconds: float) -> list[str]:
        """Digests of remote sets and local copies that are older than this."""
        with _storage_errors("cannot be listed"):
            remote = [
                f"{PREFIX}{name.rpartition('/')[2].removesuffix('.npz')}"
                for name in self._names()
                if name.endswith(".npz") and self._age_seconds(name) > older_than_seconds
            ]
        # Another host may have removed the object, so that only copies on this host are left.
        return sorted({*remote, *super().digests(older_than_seconds=older_than_seconds)})

    @contextlib.contextmanager
    def set_aside(self, digest: str) -> Iterator[SetAsideFile]:
        """As in a folder. This host's copy is removed too; other hosts clean up their own."""
        name = self._name(digest)
        moved = _MovedObject(self._files, name, f"{name}{SET_ASIDE_SUFFIX}")
        with _storage_errors("cannot be cleaned up"), contextlib.suppress(FileNotFoundError):
            self._files.mv(moved.name, moved.set_aside_name)
        try:
            yield moved
        finally:
            if moved.removed:
                self.path(digest).unlink(missing_ok=True)
                with _storage_errors("cannot be cleaned up"):
                    self._remove(moved.set_aside_name)

    def exists(self, digest: str) -> bool:
        """Whether the set is stored; False while the storage does not answer."""
        if super().exists(digest):
            return True
        try:
            self._files.invalidate_cache()
            return bool(self._files.exists(self._name(digest)))
        except OSError:
            return False

    def find(self, digest: str) -> Path | None:
        """The copy of this host, which is downloaded and checked against its digest if need be."""
        copy = super().find(digest)
        if copy is not None:
            return copy
        path = self.path(digest)
        with part_file(self._parts) as part:
            with _storage_errors("cannot be read"):
                try:
                    self._files.get_file(self._name(digest), str(part))
                except FileNotFoundError:
                    return None
            if not _holds(part, digest):
                raise Unavailable(
                    "the file at artifact_url does not have the rows of this set: upload them again"
                )
            self._put(part, path)
        return path

    def keep(self, rows: CalibrationSet) -> int:
        """Store a set on this host and remotely."""
        size = super().keep(rows)
        name = self._name(rows.digest)
        with _storage_errors("cannot be written"):
            if not self._is_stored(name, size):
                self._write(self.path(rows.digest), name)
        return size

    def _write(self, path: Path, name: str) -> None:
        self._files.makedirs(name.rpartition("/")[0], exist_ok=True)
        if not self._renames:
            self._files.put_file(str(path), name)
            return
        part = f"{name}.{secrets.token_hex(8)}.part"
        try:
            self._files.put_file(str(path), part)
            self._files.mv(part, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self._remove(part)
            raise

    def _is_stored(self, name: str, size: int) -> bool:
        """Whether the object is complete, and too young to be removed."""
        # A cached listing may be older than another host's clean-up.
        self._files.invalidate_cache()
        try:
            complete = self._files.size(name) == size
        except FileNotFoundError:
            return False
        return complete and self._age_seconds(name) < _REWRITE_SECONDS

    def _names(self) -> list[str]:
        try:
            self._files.invalidate_cache()
            return [str(name) for name in self._files.find(self._folder)]
        except FileNotFoundError:
            return []

    def _name(self, digest: str) -> str:
        name = digest.removeprefix(PREFIX)
        return f"{self._folder}/{name[:2]}/{name}.npz"

    def _age_seconds(self, name: str) -> float:
        """Seconds since it was written; 0 where that is unknown, so that it is kept."""
        try:
            modified: Any = self._files.modified(name)
        except (FileNotFoundError, NotImplementedError, KeyError):
            return 0.0
        if not isinstance(modified, datetime):
            return 0.0
        if modified.tzinfo is None:
            modified = modified.replace(tzinfo=UTC)
        return float((datetime.now(UTC) - modified).total_seconds())

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(name)


class _MovedObject:
    """A `SetAsideFile` on the remote file system."""

    def __init__(self, files: AbstractFileSystem, name: str, set_aside_name: str) -> None:
        self._files, self.name, self.set_aside_name = files, name, set_aside_name
        self.removed = True

    def put_back(self) -> None:
        """Give the object its name again."""
        with _storage_errors("cannot be cleaned up"), contextlib.suppress(FileNotFoundError):
            self._files.mv(self.set_aside_name, self.name)
        self.removed = False


def _holds(part: Path, digest: str) -> bool:
    try:
        return load_calibration_set(part).digest == digest
    except TrueprobError:
        return False


@contextlib.contextmanager
def _storage_errors(what: str) -> Iterator[None]:
    """Raise `Unavailable` for errors of the file system; their texts may name keys and hosts."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the storage of uploaded sets (artifact_url) {what}: {type(error).__name__}"
        ) from error
