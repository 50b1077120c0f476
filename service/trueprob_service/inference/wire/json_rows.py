"""JSON bodies of the hot route: arrays in, the answer out.

A body has exactly one of ``logits``, ``probabilities``, ``log_probabilities`` or ``images``
(base64 of encoded pictures). The field's name says what the numbers are: nothing is guessed.

Rows of numbers out of JSON text without a Python object for each of them.

Ten times as fast as lists are, and in a tenth of their memory; only of plain bodies. Whatever is
unusual or wrong is left to the slow reader, which finds the words for it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, cast

import numpy as np
import orjson
import simdjson
from numpy.typing import NDArray

from trueprob_service.edge.json_blocks import (
    BLOCK_BYTES,
    elements_in_blocks,
    numbers_in_blocks,
    skip_space,
)
from trueprob_service.errors import BadRequest, InvalidRequest
from trueprob_service.inference.wire.images import pictures_from_base64

__all__ = [
    "ARRAYS",
    "BYTE_ORDER_MARK",
    "INPUTS",
    "MEDIA_TYPE",
    "MIN_BYTES",
    "decode",
    "encode",
    "matrix_in_blocks",
    "numbers",
    "parser_for",
    "simd_rows",
]


# Below this the slow reader is as fast: 150 numbers or so.
MIN_BYTES: Final = 1 << 10
# A parser keeps what its largest body needed, some four times the body.
_KEPT_BYTES: Final = 4 << 20
# Whole numbers above are not all exact in float64, which they go through here.
_EXACT: Final = 2.0**53
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # simdjson skips it, JSON does not allow it

_parsers = threading.local()


def simd_rows(body: bytes, names: tuple[str, ...]) -> tuple[str, NDArray[np.float64]] | None:
    """The one array of a body ``{"name": [[…], …]}``."""
    if body.startswith(BYTE_ORDER_MARK):
        return None
    try:
        document = parser_for(len(body)).parse(body)
        if not isinstance(document, simdjson.Object) or len(document) != 1:
            return None
        (name,) = document
        if name not in names:
            return None
        values = _matrix(document[name], body)
    except (ValueError, TypeError, RuntimeError):
        return None
    return None if values is None else (name, values)


def matrix_in_blocks(
    text: bytes, start: int, *, block_bytes: int = BLOCK_BYTES
) -> tuple[NDArray[np.float64], int] | None:
    """The rows of a list in JSON text, parsed some at a time."""

    def parse(block: bytes) -> NDArray[np.float64] | None:
        # Its own brackets are two more.
        return _rows(block) if len(block) <= block_bytes + 2 else _long_row(block, block_bytes)

    blocks, stop = elements_in_blocks(text, start, b"]", parse, block_bytes=block_bytes)
    if blocks is None or len({block.shape[1] for block in blocks}) != 1:
        return None
    return np.concatenate(blocks), stop


def numbers(block: bytes) -> NDArray[np.int64] | NDArray[np.float64] | None:
    """The numbers of a JSON list of nothing else; whole ones, if all are and fit, as integers."""
    try:
        values = parser_for(len(block)).parse(block)
        if not isinstance(values, simdjson.Array) or block.count(b"[") != 1:
            return None
        try:
            return np.frombuffer(values.as_buffer(of_type="i"), np.int64)
        except (ValueError, TypeError):
            return np.frombuffer(values.as_buffer(of_type="d"), np.float64)
    except (ValueError, TypeError, RuntimeError):
        return None


def _rows(block: bytes) -> NDArray[np.float64] | None:
    try:
        return _matrix(parser_for(len(block)).parse(block), block)
    except (ValueError, TypeError, RuntimeError):
        return None


def _long_row(block: bytes, block_bytes: int) -> NDArray[np.float64] | None:
    start = skip_space(block, 1) + 1
    if block[start - 1 : start] != b"[":
        return None
    parts, stop = numbers_in_blocks(block, start, numbers, block_bytes=block_bytes)
    if parts is None or stop != len(block) - 1:
        return None
    row = np.concatenate(parts).astype(np.float64, copy=False)
    return row[np.newaxis] if _exact(row) else None


def _matrix(rows: Any, text: bytes) -> NDArray[np.float64] | None:
    if not isinstance(rows, simdjson.Array) or not len(rows):
        return None
    widths = {len(row) for row in cast("Iterable[Sized]", rows)}
    flat = np.frombuffer(rows.as_buffer(of_type="d"), np.float64)
    n = len(rows)
    # Rows within rows come out flat as well; no other bracket can be in a text without strings.
    if len(widths) != 1 or flat.size != n * widths.pop() or text.count(b"[") != n + 1:
        return None
    return flat.reshape(n, -1) if _exact(flat) else None


def _exact(values: NDArray[np.float64]) -> bool:
    return not values.size or max(values.max(), -values.min()) < _EXACT


def parser_for(size: int) -> Any:
    """A parser for so many bytes: this thread's own, or one to be thrown away."""
    if size > _KEPT_BYTES:
        return simdjson.Parser()
    parser = getattr(_parsers, "parser", None)
    if parser is None:
        parser = _parsers.parser = simdjson.Parser()
    return parser


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
