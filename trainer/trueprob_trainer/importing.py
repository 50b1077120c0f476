"""Imports what a user names as ``package.module:attribute``, with the current folder on the path.

The console script does not have that folder on the path, ``python -m`` does; both find the same.
"""

import importlib
import sys
from pathlib import Path
from typing import Any


def imported(name: str) -> Any:
    """The attribute of a module; ValueError says why there is none. The module's code is run."""
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as problem:
        raise ValueError(f"{name} cannot be imported: {problem}") from problem
