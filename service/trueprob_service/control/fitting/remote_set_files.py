"""Calibration sets on a file system of fsspec, with a copy of each on the hosts that used it.

Object stores show an object once it is whole and know no rename; others (SFTP, say) know one and
are written under another name first. Whatever comes back is compared with its digest.

fsspec's own caches (simplecache, filecache) are not used: they download under the final name, so a
lost connection leaves half a file that is taken for the whole.
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
from trueprob_service.control.bodies import part_file
from trueprob_service.control.fitting.set_files import (
    ABANDONED_SECONDS,
    PREFIX,
    SWEPT,
    Artifacts,
    Aside,
)
from trueprob_service.errors import Unavailable

__all__ = ["RemoteArtifacts"]

_LOG: Final = logging.getLogger(__name__)
# The sweep takes what is a day old: well before, an object is written anew when it is kept again.
_WRITE_ANEW_SECONDS: Final = 43_200.0


class RemoteArtifacts(Artifacts):
    """Sets under a root of a file system; the state directory has this host's copies."""

    def __init__(self, root: Path, files: AbstractFileSystem, folder: str) -> None:
        super().__init__(root)
        self._files = files
        self._folder = folder.rstrip("/")
        self._renames = type(files).mv is not AbstractFileSystem.mv  # else a copy and a removal

    def start(self) -> None:
        """As of a folder; a place that does not answer is none the worse for predictions."""
        try:
            super().start()
        except Unavailable as away:
            _LOG.warning("%s", away.detail)

    def remove_parts(self) -> None:
        """As of a folder, there too."""
        super().remove_parts()
        with _answering("could not be tidied"):
            for name in self._names():
                if self._age_seconds(name) <= ABANDONED_SECONDS:
                    continue
                if name.endswith(".part"):
                    self._remove(name)
                elif name.endswith(SWEPT):
                    with contextlib.suppress(FileNotFoundError):
                        self._files.mv(name, name.removesuffix(SWEPT))

    def digests(self, *, older_than_seconds: float) -> list[str]:
        """Sets that lie there and have not been written anew for so long."""
        with _answering("cannot be listed"):
            there = [
                f"{PREFIX}{name.rpartition('/')[2].removesuffix('.npz')}"
                for name in self._names()
                if name.endswith(".npz") and self._age_seconds(name) > older_than_seconds
            ]
        # And this host's copies of what another host has swept.
        return sorted({*there, *super().digests(older_than_seconds=older_than_seconds)})

    @contextlib.contextmanager
    def set_aside(self, digest: str) -> Iterator[Aside]:
        """As of a folder; this host's copy goes too, others' with a sweep of their own."""
        name = self._name(digest)
        aside = _Moved(self._files, name, f"{name}{SWEPT}")
        with _answering("cannot be swept"), contextlib.suppress(FileNotFoundError):
            self._files.mv(aside.name, aside.under)
        try:
            yield aside
        finally:
            if aside.gone:
                self.path(digest).unlink(missing_ok=True)
                with _answering("cannot be swept"):
                    self._remove(aside.under)

    def exists(self, digest: str) -> bool:
        """Whether the set can be had; not while the place does not answer."""
        if super().exists(digest):
            return True
        try:
            self._files.invalidate_cache()
            return bool(self._files.exists(self._name(digest)))
        except OSError:
            return False

    def find(self, digest: str) -> Path | None:
        """The copy of this host, which is fetched and compared with its digest first."""
        known = super().find(digest)
        if known is not None:
            return known
        path = self.path(digest)
        with part_file(self._parts) as part:
            with _answering("cannot be read"):
                try:
                    self._files.get_file(self._name(digest), str(part))
                except FileNotFoundError:
                    return None
            if not _holds(part, digest):
                raise Unavailable(
                    "what artifact_url has under this set's digest are not its rows: upload them "
                    "again"
                )
            self._put(part, path)
        return path

    def keep(self, rows: CalibrationSet) -> int:
        """Store a set here and there; it is kept once both are done."""
        size = super().keep(rows)
        name = self._name(rows.digest)
        with _answering("cannot be written"):
            if not self._is_there(name, size):
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

    def _is_there(self, name: str, size: int) -> bool:
        """Whether an object is there that is whole and too young to be swept."""
        # What it remembers of a listing may be older than another host's sweep.
        self._files.invalidate_cache()
        try:
            whole = self._files.size(name) == size
        except FileNotFoundError:
            return False
        return whole and self._age_seconds(name) < _WRITE_ANEW_SECONDS

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
        """How long ago it was written; 0 where that is not known, so that it stays."""
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


class _Moved:
    """An object that is out of the way."""

    def __init__(self, files: AbstractFileSystem, name: str, under: str) -> None:
        self._files, self.name, self.under = files, name, under
        self.gone = True

    def put_back(self) -> None:
        """Give the object its name again."""
        with _answering("cannot be swept"), contextlib.suppress(FileNotFoundError):
            self._files.mv(self.under, self.name)
        self.gone = False


def _holds(part: Path, digest: str) -> bool:
    try:
        return load_calibration_set(part).digest == digest
    except TrueprobError:
        return False


@contextlib.contextmanager
def _answering(what: str) -> Iterator[None]:
    """Errors of the file system as one of ours; its own words may name keys and hosts."""
    try:
        yield
    except OSError as error:
        raise Unavailable(
            f"the place of uploaded sets (artifact_url) {what}: {type(error).__name__}"
        ) from error
