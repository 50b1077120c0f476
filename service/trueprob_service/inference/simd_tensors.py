"""An Open Inference request's JSON with its floating-point data as arrays, not lists.

Only of plain requests; whatever is unusual or wrong is left to the slow reader, which finds the
words for it.
"""

from __future__ import annotations

import re
import secrets
from itertools import chain
from typing import Any, Final

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
from trueprob_service.inference.simd_rows import (
    BYTE_ORDER_MARK,
    matrix_in_blocks,
    numbers,
    parser_for,
)
from trueprob_service.inference.wire.oip_tensors import INTEGERS

__all__ = ["request_in_blocks", "simd_request"]

_FLOATS: Final = ("FP32", "FP64")
_MOST_LISTS: Final = 8  # models take one input; looking for the end of each costs up to a block
# The quote before the name opens it: behind a backslash it would be a part of a longer one.
_DATA: Final = re.compile(rb'(?<!\\)"data"[ \t\n\r]*:[ \t\n\r]*\[')


def simd_request(head: bytes) -> dict[str, Any] | None:
    """The JSON of an inference request.

    Returns: as a parser gives it, but the ``data`` of ``FP32`` and ``FP64`` inputs as float64
    arrays of shape (m,). None when something else is in it than numbers in flat lists, or when it
    is not JSON.
    """
    if head.startswith(BYTE_ORDER_MARK):
        return None
    try:
        document = parser_for(len(head)).parse(head)
        if not isinstance(document, simdjson.Object):
            return None
        inputs: Any = document["inputs"]
        fields = {name: document[name] for name in document if name != "inputs"}
        if len(fields) != len(document) - 1 or not isinstance(inputs, simdjson.Array):
            return None  # a name is there twice
        read = {name: _plain(value) for name, value in fields.items()}
        read["inputs"] = [_input(item) for item in inputs]
    except (KeyError, ValueError, TypeError, RuntimeError):
        return None
    # Lists within lists come out flat as well: every bracket must be one that was seen.
    return read if head.count(b"[") == _lists(read) else None


def request_in_blocks(head: bytes, *, block_bytes: int = BLOCK_BYTES) -> dict[str, Any] | None:
    """The JSON of a large inference request, its ``data`` parsed some numbers at a time.

    Each list of numbers is taken out of the text, a word that nobody can know put in its place,
    and what is left is parsed as usual.

    Returns: as a parser gives it, but with the ``data`` of inputs as arrays of shape (m,) where
    they hold plain numbers that fit the input's datatype. None for what has to be parsed at once.
    """
    word = secrets.token_hex(16)
    kept: list[bytes] = []
    starts: list[int] = []
    arrays: list[NDArray[Any] | None] = []
    position = 0
    while (opening := _DATA.search(head, position)) is not None:
        if len(starts) == _MOST_LISTS:
            return None
        start = opening.end()
        array, stop = _array(head, start, block_bytes)
        if stop is None:
            return None
        kept += [head[position : start - 1], f'"{word} {len(starts)}"'.encode()]
        starts.append(start)
        arrays.append(array)
        position = stop
    kept.append(head[position:])
    try:
        document = orjson.loads(b"".join(kept))
    except orjson.JSONDecodeError:
        return None
    items = document.get("inputs") if isinstance(document, dict) else None
    places = {f"{word} {i}": i for i in range(len(starts))}
    for item in items if isinstance(items, list) else ():
        data = item.get("data") if isinstance(item, dict) else None
        if isinstance(data, str) and (i := places.pop(data, None)) is not None:
            item["data"] = _fitting(item, arrays[i])
            if item["data"] is None and (listed := _list(head, starts[i], block_bytes)) is not None:
                item["data"], _ = listed
            if item["data"] is None:
                return None
    return None if places else document


def _array(head: bytes, start: int, block_bytes: int) -> tuple[NDArray[Any] | None, int | None]:
    """The numbers of a list, None where they are not plain, and where it ends."""
    if head[(place := skip_space(head, start)) : place + 1] == b"[":
        rows = matrix_in_blocks(head, start, block_bytes=block_bytes)
        if rows is not None:
            return rows
    else:
        blocks, stop = numbers_in_blocks(head, start, numbers, block_bytes=block_bytes)
        if blocks is not None:
            return np.concatenate(blocks), stop
    listed = _list(head, start, block_bytes)
    return None, None if listed is None else listed[1]


def _list(head: bytes, start: int, block_bytes: int) -> tuple[list[Any], int] | None:
    if head[(place := skip_space(head, start)) : place + 1] == b"[":
        blocks, stop = elements_in_blocks(head, start, b"]", _loads, block_bytes=block_bytes)
    else:
        blocks, stop = numbers_in_blocks(head, start, _loads, block_bytes=block_bytes)
    return None if blocks is None else (list(chain.from_iterable(blocks)), stop)


def _loads(block: bytes) -> list[Any] | None:
    try:
        read: list[Any] = orjson.loads(block)
    except orjson.JSONDecodeError:
        return None
    return read


def _fitting(item: dict[str, Any], values: NDArray[Any] | None) -> NDArray[Any] | None:
    """Flat numbers as the datatype and the shape of their input want them, None if they do not."""
    if values is None or (values.ndim == 2 and item.get("shape") != list(values.shape)):
        return None
    datatype, flat = item.get("datatype"), values.reshape(-1)
    if datatype in _FLOATS:
        return flat.astype(np.float64, copy=False)
    if not isinstance(datatype, str) or datatype not in INTEGERS or values.dtype != np.int64:
        return None
    limits = np.iinfo(INTEGERS[datatype])
    fits = limits.min <= int(flat.min()) and int(flat.max()) <= limits.max
    return flat if fits else None


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _input(item: Any) -> dict[str, Any]:
    if not isinstance(item, simdjson.Object):
        raise TypeError("an input is no object")
    data = item.get("data", None)
    if not isinstance(data, simdjson.Array) or item["datatype"] not in _FLOATS:
        return item.as_dict()
    read = {name: _plain(item[name]) for name in item if name != "data"}
    if len(read) != len(item) - 1:
        raise ValueError("a name is there twice")
    return {**read, "data": np.frombuffer(data.as_buffer(of_type="d"), np.float64)}


def _lists(value: Any) -> int:
    """How many lists and arrays there are in a value, itself included."""
    if isinstance(value, np.ndarray):
        return 1
    if isinstance(value, dict):
        return sum(map(_lists, value.values()))
    return 1 + sum(map(_lists, value)) if isinstance(value, list) else 0
