"""Real faults of a disk: a small one that is full, a file and a folder that cannot be written."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of a few megabytes; mounting one takes root."""
    folder.mkdir(exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fill a disk to the last byte; deleting the file frees it again."""
    path = folder / "fills-the-disk"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return path


@contextlib.contextmanager
def unchangeable(*paths: Path) -> Iterator[None]:
    """Files or folders that nobody can write, not even root."""
    change = shutil.which("chattr")
    if change is None or subprocess.run([change, "+i", *paths], check=False).returncode:
        subprocess.run([change or "true", "-i", *paths], check=False)
        pytest.skip("needs chattr, and a file system that knows it")
    try:
        yield
    finally:
        subprocess.run([change, "-i", *paths], check=True)


@contextlib.contextmanager
def overwritten(file: Path, offset: int, length: int) -> Iterator[None]:
    """A file with other bytes in one place."""
    with file.open("r+b") as opened:
        opened.seek(offset)
        before = opened.read(length)
        opened.seek(offset)
        opened.write(os.urandom(length))
    try:
        yield
    finally:
        with file.open("r+b") as opened:
            opened.seek(offset)
            opened.write(before)
