"""Checks at the start that the database can be used, and that the state folder can be written.

The parent of replicas runs the check in a child process, to keep its own memory small.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

__all__ = ["refuse_unusable_state"]


def refuse_unusable_state(url: str, state_dir: Path, *, in_child: bool) -> None:
    """Raise `ValueError`, with one line for the terminal, if the service could not run.

    The database does not answer, is damaged or has a schema that this version does not know, or
    the folder cannot be written. A database that is not there yet passes, and so does a full disk.
    """
    if not in_child:
        _check(url, state_dir)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(_check, url, state_dir).result()


def _check(url: str, state_dir: Path) -> None:
    from trueprob_service.control.store import folder_fault, refuse_unknown_schema
    from trueprob_service.errors import DatabaseUnavailable

    if folder_fault(state_dir) == "read_only":
        raise ValueError(f"state_dir: {state_dir} cannot be written: make it writable")
    try:
        refuse_unknown_schema(url)
    except DatabaseUnavailable as error:
        raise ValueError(f"database_url: {error.detail}") from None
