"""JSON bodies of the prediction route: the input of a request, the fields of an answer.

A body has exactly one of ``logits``, ``probabilities``, ``log_probabilities``, or what a network
takes: ``images`` (base64 of picture files), ``rows`` (of numbers) or ``inputs`` (an object with an
array for each input of the network). The name of the field says what the numbers are: nothing is
guessed. With two classes there may be one number per row. ``-Infinity`` in ``logits`` masks a
class, and so does ``null`` if the body also has ``"masked": true``; without it a null may be a
client's NaN.

There are two readers. The fast one (`simd_rows`) parses rows of plain numbers directly into an
array, ten times as fast as lists and in a tenth of their memory. It returns None for anything
unusual or wrong; the slow one then parses lists and writes the error message. Both parse a long
body in blocks (`trueprob_service.edge.json_blocks`).
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
from trueprob_service.inference.wire.json_arrays import named_arrays, nested

__all__ = [
    "ARRAYS",
    "BYTE_ORDER_MARK",
    "INPUTS",
    "MATRICES",
    "MEDIA_TYPE",
    "MIN_BYTES",
    "decode",
    "encode",
    "matrix_in_blocks",
    "may_have_ids",
    "numbers",
    "parser_for",
    "simd_rows",
]

# The name of a body's only input, and an array, picture files, or the arrays of a network's inputs.
Decoded = tuple[str, NDArray[Any] | list[bytes] | dict[str, NDArray[Any]]]

MEDIA_TYPE: Final = "application/json"
ARRAYS: Final = ("logits", "probabilities", "log_probabilities")
INPUTS: Final = (*ARRAYS, "images", "rows", "inputs")
MATRICES: Final = (*ARRAYS, "rows")
MIN_BYTES: Final = 1 << 10  # about 150 numbers; below, the slow reader is as fast
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # simdjson skips it, JSON does not allow it
_AT_ONCE: Final = 1 << 15  # elements written in about a millisecond
# A parser keeps the memory that its largest body needed, about four times the body.
_KEPT_BYTES: Final = 4 << 20
# Larger integers are not all exact in float64.
_EXACT: Final = 2.0**53
_SPACE: Final = rb"[ \t\n\r]*"
_OPENING: Final = re.compile(
    _SPACE.join((b"", rb"\{", b'"(' + "|".join(MATRICES).encode() + b')"', b":", rb"\["))
)
_CLOSING: Final = re.compile(_SPACE.join((b"", rb"\}", b"")))
_FLAG_FIRST: Final = re.compile(
    _SPACE.join((b"", rb"\{", b'"masked"', b":", b"(true|false)", b",", b""))
)
_FLAG_LAST: Final = re.compile(
    _SPACE.join((b"", b",", b'"masked"', b":", b"(true|false)", rb"\}", b"")) + rb"\Z"
)
_FIELD: Final = re.compile(_SPACE.join((b"", rb"\{", b'"([^"]*)"')))  # the first one's name
_MASKABLE: Final = ("logits", "log_probabilities")  # that -Infinity is for
_FLAG_BYTES: Final = 200  # of the end of a body, where the flag is looked for
_ROWS_LAST: Final = re.compile(_SPACE.join((rb"\]", rb"\]", rb"\}", rb"\Z")))
_parsers = threading.local()


def decode(body: bytes, *, block_bytes: int = BLOCK_BYTES) -> Decoded:
    """Read the name and the value of a body's only input: an array, picture files, named arrays.

    Shape and finiteness of the array are not checked here. Raises `BadRequest` if the body is not
    JSON (NaN and Infinity are not), and `InvalidRequest` if it is not an object with exactly one
    input, if rows differ in length or if an element is neither a number nor a mask.
    """
    try:
        return _decode(body, block_bytes)
    except (BadRequest, InvalidRequest):
        if (found := _decode_masked(body, block_bytes)) is None:
            raise
        return found


def may_have_ids(body: bytes) -> bool:
    """Whether a body may have ``ids`` (`json_ids`); False is certain.

    In a body that ends with its rows, they come before the rows: these are not searched.
    """
    if _ROWS_LAST.search(body, max(0, len(body) - _FLAG_BYTES)):
        return body.find(b'"ids"', 0, body.find(b"[[") + 1 or len(body)) >= 0
    return b'"ids"' in body


def _decode_masked(body: bytes, block_bytes: int) -> Decoded | None:
    """As `decode`, for a body with ``masked`` or -Infinity; None for any other."""
    if opening := _FLAG_FIRST.match(body):
        flag, rest = opening[1], b"{" + body[opening.end() :]
    elif closing := _FLAG_LAST.search(body, max(0, len(body) - _FLAG_BYTES)):
        flag, rest = closing[1], body[: closing.start()] + b"}"
    else:
        flag, rest = b"", body
    field = _FIELD.match(rest)
    name = "" if field is None else field[1].decode(errors="replace")
    if flag and name != "logits":
        raise InvalidRequest(f"masked is for logits, got {name[:40]!r}")
    nulls = flag == b"true"
    if name in _MASKABLE and b"-Infinity" in rest and (nulls or b"null" not in rest):
        # Of the same length, so that positions in messages stay right.
        rest, nulls = rest.replace(b"-Infinity", b"     null"), True
    elif not flag:
        return None
    return _decode(rest, block_bytes, nulls=nulls)


def _decode(
    body: bytes,
    block_bytes: int,
    *,
    nulls: bool = False,  # whether null stands for minus infinity
) -> Decoded:
    if len(body) > block_bytes:
        if (found := _decode_in_blocks(body, block_bytes, nulls)) is not None:
            return found
    elif len(body) >= MIN_BYTES and (found := simd_rows(body, MATRICES)) is not None:
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
        if name == "masked":
            raise InvalidRequest('masked must be true or false, beside "logits"')
        if name not in INPUTS:
            raise InvalidRequest(f"unknown field {name!r}: expected one of {_listed()}")
    if len(document) != 1:
        raise InvalidRequest(f"expected exactly one of {_listed()}, got {len(document)}")
    ((name, values),) = document.items()
    if values == [] and name in INPUTS:  # an empty batch
        return name, [] if name == "images" else np.empty(0)
    if name == "images":
        return name, pictures_from_base64(values)
    if name == "inputs":
        return name, named_arrays(values)
    if name == "rows":
        return name, nested(values, name)
    if not isinstance(values, list):
        raise InvalidRequest(f"{name} must be a list of rows, each a list of numbers")
    if not isinstance(values[0], list):
        return name, _one_per_row(name, values, nulls)
    other_types = _may_hold_other_types(body, quotes=2)
    rows = _Rows.from_values(values, may_hold_other_types=other_types, nulls=nulls)
    return name, _joined(name, [rows]) if rows.array is None else rows.array


def _decode_in_blocks(
    body: bytes, block_bytes: int, nulls: bool
) -> tuple[str, NDArray[Any]] | None:
    """As `decode`, in blocks; None if the body must be parsed as a whole."""
    opening = _OPENING.match(body)
    if opening is None:
        return None
    name, start = opening[1].decode(), opening.end()
    if body[(first := skip_space(body, start)) : first + 1] != b"[":
        parts, stop = numbers_in_blocks(body, start, numbers, block_bytes=block_bytes)
        if parts is None or not _CLOSING.fullmatch(body, stop):
            return None
        row = np.concatenate(parts).astype(np.float64, copy=False)
        return (name, row) if _exact(row) else None
    if (plain := matrix_in_blocks(body, start, block_bytes=block_bytes)) is not None:
        values, stop = plain
        return (name, values) if _CLOSING.fullmatch(body, stop) else None
    if name == "rows":  # those of other networks may be nested deeper
        return None

    def parse(block: bytes) -> _Rows | None:
        try:
            rows = orjson.loads(block)
        except orjson.JSONDecodeError:
            return None
        other_types = _may_hold_other_types(block, quotes=0)
        return _Rows.from_values(rows, may_hold_other_types=other_types, nulls=nulls)

    # Each block becomes an array at once: freeing all lists together would take long.
    blocks, stop = elements_in_blocks(body, start, b"]", parse, block_bytes=block_bytes)
    if blocks is None:
        _raise_not_json(body, b'{"":[' if stop == start else b'{"":[0,', stop)
        return None
    return (name, _joined(name, blocks)) if _CLOSING.fullmatch(body, stop) else None


def _one_per_row(name: str, values: list[Any], nulls: bool) -> NDArray[Any]:
    """An array of shape (n,): one number per row, a score of class 1 of two."""
    if nulls:
        values = [-np.inf if value is None else value for value in values]
    if not {int, float}.issuperset(map(type, values)):
        raise InvalidRequest(
            f"{name} must be a list of rows, each a list of numbers, or with two classes a list of "
            "numbers"
        )
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise InvalidRequest(f"{name} must hold numbers only, got one that does not fit 64 bits")
    return array


def _raise_not_json(body: bytes, opening: bytes, start: int) -> None:
    """Raise `BadRequest` with the position of the error, if that is at `start` or later.

    The part that was parsed already is replaced by the short `opening`, so this is quick.
    """
    if not body[:start].isascii():  # the parser counts characters, not bytes
        return
    try:
        orjson.loads(opening + body[start:])
    except orjson.JSONDecodeError as error:
        if error.pos >= len(opening):  # 0 for bytes that are not UTF-8
            raise _not_json(error.msg, error.pos - len(opening) + start) from None


def _not_json(message: str, position: int) -> BadRequest:
    return BadRequest(
        f"the body is not JSON: {message} at byte {position} "
        "(logits must be finite: NaN and Infinity are not JSON, -Infinity masks a class)"
    )


def _listed() -> str:
    return ", ".join(INPUTS)


def _may_hold_other_types(text: bytes, *, quotes: int) -> bool:
    """Whether rows may hold booleans or strings, which NumPy would convert.

    NumPy reads true as 1, and one long string makes all elements that wide. A text without these
    words, and without quotes except those of the name, has neither.
    """
    return text.count(b'"') > quotes or b"true" in text or b"false" in text


@dataclass(frozen=True)
class _Rows:
    """The rows of one block: an array, or the first element that is not a number."""

    n: int
    lengths: list[int] | None  # of each row; None: a row is not a list
    array: NDArray[Any] | None = None
    fault: tuple[int, int, str] | None = None  # row, column, type of the element

    @classmethod
    def from_values(
        cls, rows: list[Any], *, may_hold_other_types: bool, nulls: bool = False
    ) -> _Rows:
        if not all(isinstance(row, list) for row in rows):
            return cls(len(rows), None)
        lengths = [len(row) for row in rows]
        fault = _first_fault(rows, nulls) if may_hold_other_types else None
        # No rows, or rows of several lengths, are refused by the lengths later.
        if fault is not None or len(set(lengths)) != 1:
            return cls(len(rows), lengths, None, fault)
        try:
            array = np.asarray(rows, np.float64 if nulls else None)
        except (ValueError, TypeError):  # lists in the rows, of several lengths or too deep
            array = np.empty(0)
        if nulls:
            array[np.isnan(array)] = -np.inf  # NaN is no JSON, so these were null
        if array.ndim == 2 and array.dtype.kind in "fiu":
            return cls(len(rows), lengths, array)
        return cls(len(rows), lengths, None, _first_fault(rows, nulls))

    def __len__(self) -> int:
        return self.n


def _first_fault(rows: list[list[Any]], nulls: bool) -> tuple[int, int, str] | None:
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if nulls and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                return i, j, "null" if value is None else type(value).__name__
    return None


def _joined(name: str, blocks: Sequence[_Rows]) -> NDArray[Any]:
    """One array of the rows in all blocks."""
    lengths = [block.lengths for block in blocks if block.lengths is not None]
    if len(lengths) < len(blocks):
        raise InvalidRequest(f"{name} must be a list of rows, each a list of numbers")
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
                if kind == "null" and name == "logits":
                    other += ', which masks a class only with "masked": true in the body'
            raise InvalidRequest(f"{name} must hold numbers only, got {other}")
        arrays.append(block.array)
        first += block.n
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def encode(answer: dict[str, Any]) -> bytes:
    """Write an answer, whose values may be contiguous arrays, as JSON.

    Large arrays are written some rows at a time: orjson holds the interpreter's lock while it
    writes, and other threads run between two writes.
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


def simd_rows(body: bytes, names: tuple[str, ...]) -> tuple[str, NDArray[np.float64]] | None:
    """Name and float64 array of a body ``{"name": [[…], …]}``; None if it is anything else."""
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
    """Parse rows of numbers block by block, from just after the opening bracket of their list.

    Returns the float64 array and the position after the closing bracket; None if any row is not a
    list of plain numbers.
    """

    def parse(block: bytes) -> NDArray[np.float64] | None:
        # The block has two more brackets.
        return _rows(block) if len(block) <= block_bytes + 2 else _long_row(block, block_bytes)

    blocks, stop = elements_in_blocks(text, start, b"]", parse, block_bytes=block_bytes)
    if blocks is None or len({block.shape[1] for block in blocks}) != 1:
        return None
    return np.concatenate(blocks), stop


def numbers(block: bytes) -> NDArray[np.int64] | NDArray[np.float64] | None:
    """Parse a JSON list of numbers: as int64 if all are integers that fit, else as float64."""
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
    # Nested rows come out flat as well. Without strings, every bracket in the text is a list.
    if len(widths) != 1 or flat.size != n * widths.pop() or text.count(b"[") != n + 1:
        return None
    return flat.reshape(n, -1) if _exact(flat) else None


def _exact(values: NDArray[np.float64]) -> bool:
    return not values.size or max(values.max(), -values.min()) < _EXACT


def parser_for(size: int) -> Any:
    """The parser of this thread; a new one for a large body, whose memory is then freed."""
    if size > _KEPT_BYTES:
        return simdjson.Parser()
    parser = getattr(_parsers, "parser", None)
    if parser is None:
        parser = _parsers.parser = simdjson.Parser()
    return parser
