"""Predictions that came with the caller's own ids, on their way to be remembered.

A request appends references to its arrays to `IdentifiedQueue` and is answered; whoever remembers
them (`trueprob_service.control.remembered`) takes them from there. What an id is: any text of 1 to
128 characters without control characters; an integer stands for its digits.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trueprob_service.errors import InvalidRequest
from trueprob_service.receipts.columns import ShadowRows
from trueprob_service.receipts.receipt import Stamp

__all__ = [
    "ID_CHARACTERS",
    "IdentifiedQueue",
    "IdentifiedRows",
    "checked_ids",
    "different_ids",
    "ids_of_rows",
]

ID_CHARACTERS: Final = 128
# Arrays that wait here are held in memory; predictions beyond that are answered, not remembered.
MOST_BYTES: Final = 256 << 20
_ROW_BYTES: Final = 200  # of a row besides its logits: its id, its prediction, its place in a list
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")


class IdentifiedRows(NamedTuple):
    """The rows of one answer with the ids that the caller gave them."""

    ids: Sequence[str]
    model: str
    version: int
    revision: int
    class_list: bytes  # digest of the class list, as in receipts
    prediction: NDArray[np.int64]  # (n,), class indices
    confidence: NDArray[np.float32]  # (n,)
    logits: NDArray[np.float32]  # (n, k)
    # Compute what the calibrators in shadow would have answered to the logits; None without one.
    candidate: Callable[[NDArray[np.float32]], ShadowRows] | None
    predecessor: Callable[[NDArray[np.float32]], ShadowRows] | None
    stamp: Stamp


class IdentifiedQueue:
    """Answered rows that wait to be remembered. No request ever waits for it."""

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._rows: list[IdentifiedRows] = []
        self._bytes = 0
        self._changing = threading.Lock()
        self.filled = threading.Event()  # set while rows wait
        self.dropped = 0  # rows that found the queue full, ever

    def put(self, rows: IdentifiedRows) -> None:
        """Append rows, or drop them if too many wait."""
        size = rows.logits.nbytes + _ROW_BYTES * len(rows.ids)
        with self._changing:
            if self._bytes and self._bytes + size > self._most_bytes:
                self.dropped += len(rows.ids)
                return
            self._rows.append(rows)
            self._bytes += size
        if not self.filled.is_set():
            self.filled.set()

    def take(self) -> list[IdentifiedRows]:
        """All rows that wait, in their order."""
        with self._changing:
            self.filled.clear()
            taken, self._rows, self._bytes = self._rows, [], 0
        return taken


def checked_ids(values: object, name: str = "ids[{}]") -> list[str]:
    """Ids as texts; an `InvalidRequest` names the first value that is none, with its place."""
    if not isinstance(values, list):
        name = name.partition("[")[0]
        raise InvalidRequest(f"{name} must be a list of ids, got {_kind(values)}")
    kinds = set(map(type, values))
    if not kinds <= {str, int}:
        index = next(i for i, value in enumerate(values) if type(value) not in (str, int))
        raise InvalidRequest(
            f"{name.format(index)} must be a text or an integer, got {_kind(values[index])}"
        )
    ids: list[str] = [str(value) for value in values] if int in kinds else values
    lengths = set(map(len, ids))
    if ids and (min(lengths) < 1 or max(lengths) > ID_CHARACTERS):
        index = next(i for i, text in enumerate(ids) if not 1 <= len(text) <= ID_CHARACTERS)
        raise InvalidRequest(
            f"{name.format(index)} must have 1 to {ID_CHARACTERS} characters, got {len(ids[index])}"
        )
    joined = "".join(ids)
    # ASCII alone needs no second look: most ids are.
    if _CONTROL.search(joined) or (not joined.isascii() and _SURROGATE.search(joined)):
        index = next(i for i, x in enumerate(ids) if _CONTROL.search(x) or _SURROGATE.search(x))
        raise InvalidRequest(
            f"{name.format(index)} must have no control characters, got {ids[index][:40]!r}"
        )
    return ids


def different_ids(ids: list[str], n: int, name: str = "ids") -> list[str]:
    """The ids if there is one for each of n rows, and none twice; raises `InvalidRequest`."""
    if len(ids) != n:
        raise InvalidRequest(f"{name} must have one id for each row, {n}, got {len(ids)}")
    if len(set(ids)) != n:
        first: dict[str, int] = {}
        for index, text in enumerate(ids):
            if (before := first.setdefault(text, index)) != index:
                raise InvalidRequest(
                    f"{name} must differ: {text[:40]!r} is the id of rows {before} and {index}"
                )
    return ids


def ids_of_rows(request_id: str, n: int, name: str) -> list[str]:
    """Ids for n rows of a request with one id: for several rows ``id/0``, ``id/1`` and so on."""
    ids = [request_id] if n == 1 else [f"{request_id}/{row}" for row in range(n)]
    try:
        return checked_ids(ids)
    except InvalidRequest:
        suffix = "" if n == 1 else ', with "/" and the number of the row'
        raise InvalidRequest(
            f"{name} must have 1 to {ID_CHARACTERS} characters{suffix}, and no control "
            f"characters, got {request_id[:40]!r}"
        ) from None


def _kind(value: Any) -> str:
    """The JSON name of a value's type."""
    kinds = {bool: "a boolean", type(None): "null", dict: "an object", list: "a list"}
    return {int: "an integer", float: "a fraction", str: "a text", **kinds}.get(type(value), "none")
