"""JSON bodies of the hot route: arrays in, the answer out.

A body has exactly one of ``logits``, ``probabilities``, ``log_probabilities`` or ``images``
(base64 of encoded pictures). The field's name says what the numbers are: nothing is guessed.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from service.base64_pictures import pictures_from_base64
from service.errors import BadRequest, InvalidRequest
from service.inference.simd_rows import MIN_BYTES, simd_rows

__all__ = ["ARRAYS", "INPUTS", "MEDIA_TYPE", "decode", "encode"]

MEDIA_TYPE: Final = "application/json"
_AT_ONCE: Final = 1 << 15  # elements: about a millisecond of writing
ARRAYS: Final = ("logits", "probabilities", "log_probabilities")
INPUTS: Final = (*ARRAYS, "images")


def decode(body: bytes) -> tuple[str, NDArray[Any] | list[bytes]]:
    """The one input of a JSON body.

    Parameters
    ----------
    body : bytes

    Returns
    -------
    name : str
        One of `INPUTS`.
    values : ndarray, or list of bytes for ``images``
        The array is not yet checked for shape or finiteness; ``images`` are encoded pictures.

    Raises
    ------
    BadRequest
        Not JSON. (NaN and Infinity are not JSON.)
    InvalidRequest
        Not an object with exactly one input, ragged rows, or elements that are no numbers.
    """
    if len(body) >= MIN_BYTES and (found := simd_rows(body, ARRAYS)) is not None:
        return found
    if not body:
        raise BadRequest(f"expected a JSON object with one of {_listed()}, got an empty body")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"the body is not JSON: {error.msg} at byte {error.pos} "
            "(logits must be finite: NaN and Infinity are not JSON)"
        ) from None
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
    # NumPy takes true for 1 in a list of numbers, and one long text makes all elements as wide as
    # itself. A body without the words, with no quotes but the name's, needs no closer look.
    suspicious = body.count(b'"') > 2 or b"true" in body or b"false" in body
    return name, _rows(name, values, suspicious=suspicious)


def _listed() -> str:
    return ", ".join(INPUTS)


def _rows(name: str, values: object, *, suspicious: bool) -> NDArray[Any]:
    if not isinstance(values, list) or not all(isinstance(row, list) for row in values):
        raise InvalidRequest(f"{name} must be a list of rows, each a list of numbers")
    if not values:
        raise InvalidRequest(f"{name} must have at least one row, got none")
    k = len(values[0])
    for i, row in enumerate(values):
        if len(row) != k:
            raise InvalidRequest(f"{name} is ragged: row 0 has {k} numbers, row {i} has {len(row)}")
    other = _first_other(name, values) if suspicious else None
    if other is None:
        try:
            array = np.asarray(values)
        except ValueError:  # lists in the rows, of several lengths or too deep
            array = np.empty(0)
        if array.ndim == 2 and array.dtype.kind in "fiu":
            return array
        other = _first_other(name, values) or "one that does not fit 64 bits"
    raise InvalidRequest(f"{name} must hold numbers only, got {other}")


def _first_other(name: str, rows: list[list[Any]]) -> str | None:
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if isinstance(value, bool) or not isinstance(value, int | float):
                kind = "null" if value is None else type(value).__name__
                return f"{kind} at {name}[{i}][{j}]"
    return None


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
