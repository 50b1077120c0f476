"""Durable writes: files and renames that are on disk when the call returns."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["copy_synced", "sync_directory", "write_synced"]


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file; FileExistsError if it exists. `sync_directory` makes its name durable."""
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def copy_synced(source: Path, path: Path) -> None:
    """Copy a file, which need not fit into memory; otherwise as `write_synced`."""
    with source.open("rb") as original, path.open("xb") as stream:
        shutil.copyfileobj(original, stream, 1 << 20)
        stream.flush()
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable: a file's name is stored there, not in the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
