"""Calibration sets in a folder, each in a file that is named by the digest of its rows."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.synced_files import sync_directory

__all__ = [
    "ABANDONED_SECONDS",
    "PREFIX",
    "SET_ASIDE_SUFFIX",
    "SetAsideFile",
    "SetFiles",
    "part_file",
]

PREFIX: Final = "sha256:"
SET_ASIDE_SUFFIX: Final = ".swept"
# A part file unchanged for this long is a leftover of a crash; younger ones may be in use.
ABANDONED_SECONDS: Final = 3600.0


class SetAsideFile(Protocol):
    """A file that the clean-up job is about to remove."""

    def put_back(self) -> None:
        """Give the file its name again."""


class SetFiles:
    """Calibration sets in a folder."""

    def __init__(
        self,
        root: Path,  # the state directory, which receives the bodies of uploads
        sets: Path | None = None,  # folder of the sets, which several hosts may share
    ) -> None:
        self._sets = sets or root / "calibration-sets"
        # On the same file system as the sets: finished files are renamed from here to there.
        self._parts = root / "uploads" if sets is None else sets / "parts"
        self.uploads = root / "uploads"

    def start(self) -> None:
        """Make the folders and remove the leftovers of a crash."""
        for folder in (self._sets, self._parts, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """After a crash: remove half-received uploads, restore files that were set aside."""
        for part in {*self.uploads.glob("*.part"), *self._parts.glob("*.part")}:
            if _age_seconds(part) > ABANDONED_SECONDS:
                part.unlink(missing_ok=True)
        for set_aside_file in self._parts.glob(f"*{SET_ASIDE_SUFFIX}"):
            if _age_seconds(set_aside_file) > ABANDONED_SECONDS:  # the next clean-up decides
                with contextlib.suppress(FileNotFoundError):
                    set_aside_file.replace(self.path(set_aside_file.stem))

    def digests(self, *, older_than_seconds: float) -> list[str]:
        """Digests of the stored sets that were last stored longer ago than this.

        Raises `Unavailable` when the storage does not answer.
        """
        return [
            f"{PREFIX}{path.stem}"
            for path in sorted(self._sets.glob("??/*.npz"))
            if _age_seconds(path) > older_than_seconds
        ]

    @contextlib.contextmanager
    def set_aside(self, digest: str) -> Iterator[SetAsideFile]:
        """Rename a file; at the end of the block it is removed, unless it was put back."""
        path = self.path(digest)
        moved = _RenamedFile(path, self._parts / f"{path.stem}{SET_ASIDE_SUFFIX}")
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            path.replace(moved.set_aside_path)
            os.utime(moved.set_aside_path)
        try:
            yield moved
        finally:
            moved.set_aside_path.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """The path of a set on this host, whether the file exists or not."""
        name = digest.removeprefix(PREFIX)
        return self._sets / name[:2] / f"{name}.npz"

    def exists(self, digest: str) -> bool:
        """Whether the set is stored."""
        return self.path(digest).exists()

    def find(self, digest: str) -> Path | None:
        """The file of a set on this host, fetched if need be; None when it is not stored.

        Raises `Unavailable` when the storage does not answer or returns other rows.
        """
        path = self.path(digest)
        return path if path.exists() else None

    def keep(self, rows: CalibrationSet) -> int:
        """Store a set durably and return the size of its file in bytes.

        Raises `Unavailable` when the storage does not accept it.
        """
        path = self.path(rows.digest)
        try:
            os.utime(path)  # the clean-up job leaves recently stored files alone
        except FileNotFoundError:
            with part_file(self._parts) as part:
                with part.open("wb") as file:
                    rows.save(file)
                    file.flush()
                    os.fsync(file.fileno())
                self._put(part, path)
        return path.stat().st_size

    def _put(self, part: Path, path: Path) -> None:
        """Give a complete file its final name, durably."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)
        for folder in (path.parent, path.parent.parent):
            sync_directory(folder)


class _RenamedFile:
    """A `SetAsideFile` on this host."""

    def __init__(self, path: Path, set_aside_path: Path) -> None:
        self.path, self.set_aside_path = path, set_aside_path

    def put_back(self) -> None:
        """Give the file its name again."""
        with contextlib.suppress(FileNotFoundError):
            self.set_aside_path.replace(self.path)


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


@contextlib.contextmanager
def part_file(folder: Path) -> Iterator[Path]:
    """A path in a folder that nothing else uses; the file is removed when the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{secrets.token_hex(16)}.part"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
