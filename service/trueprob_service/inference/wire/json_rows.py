"""JSON bodies of the hot route: arrays in, the answer out.

A body has exactly one of ``logits``, ``probabilities``, ``log_probabilities`` or ``images``
(base64 of encoded pictures). The field's name says what the numbers are: nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from trueprob_service.base64_pictures import pictures_from_base64
from trueprob_service.edge.json_blocks import BLOCK_BYTES, elements_in_blocks
from trueprob_service.errors import BadRequest, InvalidRequest
from trueprob_service.inference.simd_rows import MIN_BYTES, matrix_in_blocks, simd_rows

__all__ = ["ARRAYS", "INPUTS", "MEDIA_TYPE", "decode", "encode"]

MEDIA_TYPE: Final = "application/json"
_AT_ONCE: Final = 1 << 15  # elements: about a millisecond of writing
ARRAYS: Final = ("logits", "probabilities", "log_probabilities")
INPUTS: Final = (*ARRAYS, "images")
_SPACE: Final = rb"[ \t\n\r]*"
_OPENING: Final = re.compile(
    _SPACE.join((b"", rb"\{", b'"(' + "|".join(ARRAYS).encode() + b')"', b":", rb"\["))
)
_CLOSING: Final = re.compile(_SPACE.join((b"", rb"\}", b"")))


def decode(
    body: bytes, *, block_bytes: int = BLOCK_BYTES
) -> tuple[str, NDArray[Any] | list[bytes]]:
    """The one input of a JSON body.

    Raises `BadRequest`: not JSON. (NaN and Infinity are not JSON.). Raises `InvalidRequest`: not
    an object with exactly one input, ragged rows, or elements that are no numbers.
    """
    if len(body) > block_bytes:
        if (found := _decode_in_blocks(body, block_bytes)) is not None:
            return found
    elif len(body) >= MIN_BYTES and (found := simd_rows(body, ARRAYS)) is not None:
        return found
    if not body:
        raise BadRequest(f"expected a JSON object with one of {_listed()}, got an empty body")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_json(error.msg, error.pos) from None
    if not isinstance(document, dict):
        raise InvalidRequest(f"expected a JSON object with one of {_listed()}")
    for name in document:
        if name not in INPUTS:
            raise InvalidRequest(f"unknown field {name!r}: expected one of {_listed()}")
    if len(document) != 1:
        raise InvalidRequest(f"expected exactly one of {_listed()}, got {len(document)}")
    ((name, values),) = document.items()
    if name == "images":
        return name, pictures_from_base64(values)
    if not isinstance(values, list):
        raise InvalidRequest(f"{name} must be a list of rows, each a list of numbers")
    return name, _joined(name, [_Rows.of(values, suspicious=_suspicious(body, quotes=2))])


def _decode_in_blocks(body: bytes, block_bytes: int) -> tuple[str, NDArray[Any]] | None:
    """As `decode`; None for what has to be parsed at once, to be used or to be refused."""
    opening = _OPENING.match(body)
    if opening is None:
        return None
    name, start = opening[1].decode(), opening.end()
    if (plain := matrix_in_blocks(body, start, block_bytes=block_bytes)) is not None:
        values, stop = plain
        return (name, values) if _CLOSING.fullmatch(body, stop) else None

    def parse(block: bytes) -> _Rows | None:
        try:
            rows = orjson.loads(block)
        except orjson.JSONDecodeError:
            return None
        return _Rows.of(rows, suspicious=_suspicious(block, quotes=0))

    # Only what is needed of each block is kept: freeing all lists at once would take long, too.
    blocks, stop = elements_in_blocks(body, start, b"]", parse, block_bytes=block_bytes)
    if blocks is None:
        _raise_not_json(body, b'{"":[' if stop == start else b'{"":[0,', stop)
        return None
    return (name, _joined(name, blocks)) if _CLOSING.fullmatch(body, stop) else None


def _raise_not_json(body: bytes, opening: bytes, start: int) -> None:
    """Say where a body is no JSON, if that is at `start` or later.

    A short text in place of what was parsed already leaves the parser little to do.
    """
    if not body[:start].isascii():  # the parser counts characters
        return
    try:
        orjson.loads(opening + body[start:])
    except orjson.JSONDecodeError as error:
        if error.pos >= len(opening):  # at 0 it tells of bytes that are no UTF-8
            raise _not_json(error.msg, error.pos - len(opening) + start) from None


def _not_json(message: str, position: int) -> BadRequest:
    return BadRequest(
        f"the body is not JSON: {message} at byte {position} "
        "(logits must be finite: NaN and Infinity are not JSON)"
    )


def _listed() -> str:
    return ", ".join(INPUTS)


def _suspicious(text: bytes, *, quotes: int) -> bool:
    """Whether rows may hold what NumPy takes for numbers though it is none.

    It takes true for 1, and one long text makes all elements as wide as itself. A text without
    the words, with no quotes but those of the name, needs no closer look.
    """
    return text.count(b'"') > quotes or b"true" in text or b"false" in text


@dataclass(frozen=True)
class _Rows:
    """What some rows are: their lengths (None: some are no lists), then an array or a fault."""

    n: int
    lengths: list[int] | None
    array: NDArray[Any] | None = None
    fault: tuple[int, int, str] | None = None  # row, column, what is there

    @classmethod
    def of(cls, rows: list[Any], *, suspicious: bool) -> _Rows:
        if not all(isinstance(row, list) for row in rows):
            return cls(len(rows), None)
        lengths = [len(row) for row in rows]
        fault = _first_fault(rows) if suspicious else None
        if fault is not None or len(set(lengths)) != 1:  # none or ragged: refused by lengths alone
            return cls(len(rows), lengths, None, fault)
        try:
            array = np.asarray(rows)
        except ValueError:  # lists in the rows, of several lengths or too deep
            array = np.empty(0)
        if array.ndim == 2 and array.dtype.kind in "fiu":
            return cls(len(rows), lengths, array)
        return cls(len(rows), lengths, None, _first_fault(rows))

    def __len__(self) -> int:
        return self.n


def _first_fault(rows: list[list[Any]]) -> tuple[int, int, str] | None:
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if isinstance(value, bool) or not isinstance(value, int | float):
                return i, j, "null" if value is None else type(value).__name__
    return None


def _joined(name: str, blocks: Sequence[_Rows]) -> NDArray[Any]:
    """One array of the rows in all blocks."""
    lengths = [block.lengths for block in blocks if block.lengths is not None]
    if len(lengths) < len(blocks):
        raise InvalidRequest(f"{name} must be a list of rows, each a list of numbers")
    if not lengths[0]:
        raise InvalidRequest(f"{name} must have at least one row, got none")
    k = lengths[0][0]
    for i, length in enumerate(chain.from_iterable(lengths)):
        if length != k:
            raise InvalidRequest(f"{name} is ragged: row 0 has {k} numbers, row {i} has {length}")
    arrays, first = [], 0
    for block in blocks:
        if block.array is None:
            other = "one that does not fit 64 bits"
            if block.fault is not None:
                i, j, kind = block.fault
                other = f"{kind} at {name}[{first + i}][{j}]"
            raise InvalidRequest(f"{name} must hold numbers only, got {other}")
        arrays.append(block.array)
        first += block.n
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def encode(answer: dict[str, Any]) -> bytes:
    """The JSON text of an answer whose values may be contiguous arrays.

    Large arrays are written some rows at a time: orjson holds the interpreter's lock while it
    writes, and between two writes other threads get it.
    """
    for value in answer.values():
        if isinstance(value, np.ndarray) and value.size > _AT_ONCE:
            break
    else:
        return _text(answer)
    members = (_text(name) + b":" + _array(value) for name, value in answer.items())
    return b"{" + b",".join(members) + b"}"


def _array(value: Any) -> bytes:
    if not isinstance(value, np.ndarray) or value.size <= _AT_ONCE:
        return _text(value)
    step = max(1, _AT_ONCE * len(value) // value.size)
    blocks = (value[start : start + step] for start in range(0, len(value), step))
    return b"[" + b",".join(_text(block)[1:-1] for block in blocks) + b"]"


def _text(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
