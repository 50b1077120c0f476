"""Whether this version knows the schema of the database, asked before anything is started."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

__all__ = ["refuse_unknown_schema"]


def refuse_unknown_schema(url: str, *, apart: bool) -> None:
    """Look at a database; one that does not answer is let pass.

    Parameters
    ----------
    url : str
    apart : bool
        In a process of its own: who only supervises stays small.

    Raises
    ------
    ValueError
        The message is one line for the terminal.
    """
    if not apart:
        _look(url)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        pool.submit(_look, url).result()


def _look(url: str) -> None:
    from trueprob_service.control.store import refuse_unknown_schema as look

    look(url)
