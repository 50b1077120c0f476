"""Durable writes: files and renames that are on disk when the call returns."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["sync_directory", "write_synced"]


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file; FileExistsError if it exists. `sync_directory` makes its name durable."""
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def sync_directory(path: Path) -> None:
    """Make renames in a directory durable: a file's name is stored there, not in the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
