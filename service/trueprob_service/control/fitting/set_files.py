"""Files by content: a set of rows is written once, under the digest of what it holds."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.synced_files import sync_directory
from trueprob_service.control.bodies import part_file

__all__ = ["SWEPT", "Artifacts", "Aside"]

PREFIX: Final = "sha256:"
SWEPT: Final = ".swept"
# Another process may be writing there: what is left of a crash does not change any more.
ABANDONED_SECONDS: Final = 3600.0


class Aside(Protocol):
    """A file that is out of the way."""

    def put_back(self) -> None:
        """Give the file its name again."""


class Artifacts:
    """Calibration sets in a folder."""

    def __init__(self, root: Path, sets: Path | None = None) -> None:
        self._sets = sets or root / "calibration-sets"
        # Renamed from one to the other: both are on one file system.
        self._parts = root / "uploads" if sets is None else sets / "parts"
        self.uploads = root / "uploads"

    def start(self) -> None:
        """Make the folders; parts that a crash left behind are removed."""
        for folder in (self._sets, self._parts, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)
        self.remove_parts()

    def remove_parts(self) -> None:
        """Remove what uploads left behind that a crash cut short; put back what a sweep did."""
        for part in {*self.uploads.glob("*.part"), *self._parts.glob("*.part")}:
            if _age_seconds(part) > ABANDONED_SECONDS:
                part.unlink(missing_ok=True)
        for swept in self._parts.glob(f"*{SWEPT}"):
            if _age_seconds(swept) > ABANDONED_SECONDS:  # whether it is wanted, the sweep asks
                with contextlib.suppress(FileNotFoundError):
                    swept.replace(self.path(swept.stem))

    def digests(self, *, older_than_seconds: float) -> list[str]:
        """Sets that lie here and have not been kept anew for so long.

        Raises `Unavailable`: the place where they lie does not answer.
        """
        return [
            f"{PREFIX}{path.stem}"
            for path in sorted(self._sets.glob("??/*.npz"))
            if _age_seconds(path) > older_than_seconds
        ]

    @contextlib.contextmanager
    def set_aside(self, digest: str) -> Iterator[Aside]:
        """Rename a file, which is removed at the end of the block unless it is put back."""
        path = self.path(digest)
        aside = _Renamed(path, self._parts / f"{path.stem}{SWEPT}")
        with contextlib.suppress(FileNotFoundError):  # another process swept it
            path.replace(aside.under)
            os.utime(aside.under)
        try:
            yield aside
        finally:
            aside.under.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where the set with this digest lies on this host, or would lie."""
        name = digest.removeprefix(PREFIX)
        return self._sets / name[:2] / f"{name}.npz"

    def exists(self, digest: str) -> bool:
        """Whether the set can be had."""
        return self.path(digest).exists()

    def find(self, digest: str) -> Path | None:
        """The file of a set on this host; None when there is none anywhere.

        Raises `Unavailable`: the place where it may lie does not answer, or gave other rows.
        """
        path = self.path(digest)
        return path if path.exists() else None

    def keep(self, rows: CalibrationSet) -> int:
        """Store a set so that it survives a crash from here on.

        Returns: bytes of the file. Raises `Unavailable`: the place where sets are stored does not
        take it.
        """
        path = self.path(rows.digest)
        try:
            os.utime(path)  # the sweep leaves alone what was kept a moment ago
        except FileNotFoundError:
            with part_file(self._parts) as part:
                with part.open("wb") as file:
                    rows.save(file)
                    file.flush()
                    os.fsync(file.fileno())
                self._put(part, path)
        return path.stat().st_size

    def _put(self, part: Path, path: Path) -> None:
        """Give a whole file its name, for good."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part.replace(path)
        for folder in (path.parent, path.parent.parent):
            sync_directory(folder)


class _Renamed:
    """A file of this host that is out of the way."""

    def __init__(self, path: Path, under: Path) -> None:
        self.path, self.under = path, under

    def put_back(self) -> None:
        """Give the file its name again."""
        with contextlib.suppress(FileNotFoundError):
            self.under.replace(self.path)


def _age_seconds(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
