"""What some tests need from outside: absent, the test is skipped, unless it is required."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

# Debian keeps PostgreSQL's server programs out of PATH, a folder a major version.
_MORE_FOLDERS = ("/usr/lib/postgresql/*/bin", "/usr/local/bin", "/usr/sbin")


def require_program(*names: str) -> Path:
    """Path of the first of these programs that is installed.

    Skips the test when there is none; fails it under ``REQUIRE_INTEGRATION=1``.
    """
    for name in names:
        found = shutil.which(name) or _elsewhere(name)
        if found:
            return Path(found)
    return _missing(" or ".join(names))


def require_module(name: str) -> Any:
    """A module of an optional dependency, under the same rule."""
    if importlib.util.find_spec(name) is None:
        _missing(f"the Python package {name}")
    return importlib.import_module(name)


def _missing(what: str) -> NoReturn:
    reason = f"needs {what}, which is not installed"
    if os.environ.get("REQUIRE_INTEGRATION") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _elsewhere(name: str) -> str | None:
    for pattern in _MORE_FOLDERS:
        for folder in sorted(Path("/").glob(pattern.lstrip("/")), reverse=True):
            if os.access(folder / name, os.X_OK):
                return str(folder / name)
    return None
