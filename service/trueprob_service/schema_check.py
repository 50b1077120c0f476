"""Checks the schema of the database before the service starts.

The parent process of replicas makes the check in a child, so that it never imports SQLAlchemy.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

__all__ = ["refuse_unknown_schema"]


def refuse_unknown_schema(url: str, *, in_child: bool) -> None:
    """Raise `ValueError`, with one line for the terminal, if this version cannot use the schema.

    A database that does not answer passes.
    """
    if not in_child:
        _check(url)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(_check, url).result()


def _check(url: str) -> None:
    from trueprob_service.control import store

    store.refuse_unknown_schema(url)
