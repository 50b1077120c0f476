"""What tests of one process share, so that not every test starts a child of its own.

The child ends when it is idle, and with the process.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from trueprob_service.inspection.inspector import Inspector
from trueprob_service.inspection.verdicts import Verdicts

__all__ = ["shared_inspector", "shared_verdicts"]


@cache
def shared_inspector() -> Inspector:
    """With the limits of the settings' defaults."""
    return Inspector()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def shared_verdicts() -> Verdicts:
    """On networks that this process has inspected."""
    return Verdicts(Path(_folder().name))
