"""Checks at the start that this version knows the schema of the database.

The parent of replicas runs the check in a child process, to keep its own memory small.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

__all__ = ["refuse_unknown_schema"]


def refuse_unknown_schema(url: str, *, in_child: bool) -> None:
    """Raise `ValueError` if this version does not know the schema; an absent database passes."""
    if not in_child:
        _check(url)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(_check, url).result()


def _check(url: str) -> None:
    from trueprob_service.control.store import refuse_unknown_schema as check

    check(url)
