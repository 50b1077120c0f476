"""Tensors of the Open Inference Protocol: JSON numbers or little-endian bytes, to arrays and back.

Nothing is allocated before shape, datatype and size are found to agree, and a binary tensor is a
view of the body.

As in `json_rows`, plain numbers are parsed directly into arrays: `simd_request` parses the whole
JSON part, `request_in_blocks` a long one in blocks. Both return None for anything unusual or wrong;
`oip.decode` then parses lists and writes the error message.
"""

from __future__ import annotations

import array
import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
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
from trueprob_service.errors import BadRequest, InvalidRequest
from trueprob_service.inference.wire.json_rows import (
    BYTE_ORDER_MARK,
    matrix_in_blocks,
    numbers,
    parser_for,
)

__all__ = [
    "DATATYPES",
    "INTEGERS",
    "MAX_DIMENSIONS",
    "OipInput",
    "OipOutput",
    "from_binary",
    "from_json",
    "from_raw",
    "request_in_blocks",
    "simd_request",
    "text_field",
]

# Datatype → NumPy dtype of its bytes, and typecode of the `array` that its JSON numbers must fit.
# FP16 and BF16 are not read from JSON (Triton and KServe refuse them there too). NumPy has no
# bfloat16: it is the upper half of a float32, which holds each of its numbers.
_TYPES: Final[Mapping[str, tuple[str, str | None]]] = MappingProxyType(
    {
        "BF16": ("<u2", None), "FP16": ("<f2", None), "FP32": ("<f4", "f"), "FP64": ("<f8", "d"),
        "UINT8": ("<u1", "B"), "UINT16": ("<u2", "H"), "UINT32": ("<u4", "I"),
        "UINT64": ("<u8", "Q"), "INT8": ("<i1", "b"), "INT16": ("<i2", "h"),
        "INT32": ("<i4", "i"), "INT64": ("<i8", "q"), "BOOL": ("?", "B"),
    }
)  # fmt: skip
DATATYPES: Final = tuple(_TYPES)
INTEGERS: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {name: np.dtype(dtype) for name, (dtype, _) in _TYPES.items() if "INT" in name}
)
_FLOATS: Final = ("FP32", "FP64")
MAX_DIMENSIONS: Final = 8  # pictures have 4; NumPy allows 64
_MAX_LISTS: Final = 8  # most models take one to three inputs; finding each end may cost a block
# A quote after a backslash would be inside a longer name.
_DATA: Final = re.compile(rb'(?<!\\)"data"[ \t\n\r]*:[ \t\n\r]*\[')


@dataclass(frozen=True)
class OipInput:
    """One input; `values` has the declared shape and datatype."""

    name: str
    datatype: str
    values: NDArray[Any]


@dataclass(frozen=True)
class OipOutput:
    """One output; a list of strings has the datatype BYTES."""

    name: str
    datatype: str
    values: NDArray[Any] | list[str]
    binary: bool

    def to_wire(self) -> tuple[dict[str, Any], bytes | None]:
        """The output's entry in the JSON (arrays stay arrays), and its bytes if it is binary."""
        values = self.values
        texts = isinstance(values, list)
        shape = [len(values)] if isinstance(values, list) else list(values.shape)
        entry: dict[str, Any] = {"name": self.name, "shape": shape, "datatype": self.datatype}
        if self.binary:
            part = _bytes_tensor(values) if isinstance(values, list) else values.tobytes()
            return {**entry, "parameters": {"binary_data_size": len(part)}}, part
        return {
            **entry,
            "data": values if texts else np.ascontiguousarray(values).reshape(-1),
        }, None


def text_field(item: dict[str, Any], name: str, where: str) -> str:
    """The value of a required string field; `where` is the object's name in messages."""
    value = item.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{where}.{name} must be a string")
    return value


def from_json(item: dict[str, Any], where: str, *, may_hold_bools: bool) -> OipInput:
    """Read a tensor whose numbers are in the JSON, nested or flat; `item` is its entry."""
    name, datatype, shape = _declared(item, where)
    dtype, typecode = _TYPES[datatype]
    if typecode is None:
        raise InvalidRequest(f"{where}: {datatype} is read as binary data only, not from JSON")
    data = item.get("data")
    if isinstance(data, np.ndarray):  # flat numbers from the fast reader
        _check_count(data.size, shape, where)
        with np.errstate(over="ignore"):  # becomes infinity, as in `array`; checked later
            return OipInput(name, datatype, data.astype(dtype).reshape(shape))
    if not isinstance(data, list):
        raise InvalidRequest(f"{where} must have data (a list) or parameters.binary_data_size")
    flat = _flat(data, shape, where)
    if datatype == "BOOL":
        if not (set(map(type, flat)) <= {bool, int} and {0, 1}.issuperset(flat)):
            raise InvalidRequest(f"{where}.data must hold true and false only, for BOOL")
    elif may_hold_bools and bool in set(map(type, flat)):
        raise InvalidRequest(f"{where}.data must hold numbers only, got bool")
    try:
        # Refuses elements that are not numbers, and integers that the type cannot hold.
        numbers = array.array(typecode, flat)
    except TypeError:
        kind = "numbers" if typecode in "fd" else "integers"
        raise InvalidRequest(f"{where}.data must hold {kind} only, for {datatype}") from None
    except OverflowError:
        raise InvalidRequest(f"{where}.data has a number that {datatype} cannot hold") from None
    return OipInput(name, datatype, np.frombuffer(numbers, dtype).reshape(shape))


def from_binary(
    item: dict[str, Any], where: str, size: object, body: bytes, start: int
) -> tuple[OipInput, int]:
    """Read the tensor whose bytes begin at `start`; also returns the start of the next one.

    `item` is its entry in ``inputs``, `size` its ``binary_data_size`` as sent.
    """
    name, datatype, shape = _declared(item, where)
    if "data" in item:
        raise InvalidRequest(f"{where} has both data and binary_data_size, expected one of them")
    if type(size) is not int or size < 0:
        raise InvalidRequest(f"binary_data_size of {where} must be a whole number of bytes")
    dtype = np.dtype(_TYPES[datatype][0])
    expected = math.prod(shape) * dtype.itemsize  # Python integers do not overflow
    if size != expected:
        raise InvalidRequest(
            f"binary_data_size of {where} is {size}, but {datatype} of shape {list(shape)} "
            f"has {expected} bytes"
        )
    if size > len(body) - start:
        raise BadRequest(f"{where} has {size} bytes, but {len(body) - start} are left in the body")
    values = _view(body, dtype, start, shape)
    if datatype == "BOOL" and max(body[start : start + size], default=0) > 1:
        raise InvalidRequest(f"{where} must hold the bytes 0 and 1 only, for BOOL")
    if datatype == "BF16":
        values = (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return OipInput(name, datatype, values), start + size


def from_raw(body: bytes, *, name: str, datatype: str, row_shape: tuple[int, ...]) -> OipInput:
    """Read a body that is one tensor and nothing else; its length gives the number of rows."""
    dtype = np.dtype(_TYPES[datatype][0])
    row_bytes = math.prod(row_shape) * dtype.itemsize
    n, rest = divmod(len(body), row_bytes)
    if rest:
        raise BadRequest(
            f"{name} as raw {datatype} must be rows of {row_bytes} bytes, got {len(body)} bytes"
        )
    return OipInput(name, datatype, _view(body, dtype, 0, (n, *row_shape)))


def _declared(item: dict[str, Any], where: str) -> tuple[str, str, tuple[int, ...]]:
    name, datatype = text_field(item, "name", where), text_field(item, "datatype", where)
    if datatype not in _TYPES:
        raise InvalidRequest(
            f"{where}.datatype must be one of {', '.join(DATATYPES)}, got {datatype[:20]!r}"
        )
    shape = item.get("shape")
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= MAX_DIMENSIONS
        or not all(type(side) is int and side >= 1 - (axis == 0) for axis, side in enumerate(shape))
    ):
        raise InvalidRequest(
            f"{where}.shape must be a list of 1 to {MAX_DIMENSIONS} positive integers; the first "
            "may be 0, for no rows"
        )
    return name, datatype, tuple(shape)


def _view(body: bytes, dtype: np.dtype[Any], start: int, shape: tuple[int, ...]) -> NDArray[Any]:
    flat = np.frombuffer(body, dtype, math.prod(shape), start)
    # After JSON of any length the numbers are rarely aligned. One copy costs a third of the time
    # that each pass over unaligned numbers would lose (256 × 1000 FP32: 26 µs against 90 µs).
    return (flat if flat.flags.aligned else flat.copy()).reshape(shape)


def _flat(data: list[Any], shape: tuple[int, ...], where: str) -> list[Any]:
    """The numbers in row-major order, from the flat or the nested form."""
    if not any(isinstance(value, list) for value in data[:1]):
        _check_count(len(data), shape, where)
        return data
    level: list[Any] = [data]
    for axis, side in enumerate(shape):
        if any(not isinstance(rows, list) or len(rows) != side for rows in level):
            raise InvalidRequest(
                f"{where}.data is not nested as shape {list(shape)} says, at axis {axis}"
            )
        level = list(chain.from_iterable(level))
    return level


def _check_count(given: int, shape: tuple[int, ...], where: str) -> None:
    if given != (count := math.prod(shape)):
        raise InvalidRequest(
            f"{where}.data has {given} numbers, but shape {list(shape)} has {count}"
        )


def _bytes_tensor(texts: list[str]) -> bytes:
    encoded = [text.encode() for text in texts]
    return b"".join(chain.from_iterable((len(t).to_bytes(4, "little"), t) for t in encoded))


def simd_request(head: bytes) -> dict[str, Any] | None:
    """Parse the JSON of a request; ``data`` of FP32 and FP64 inputs become flat float64 arrays.

    Returns None if any ``data`` is not a flat list of numbers, or if the text is not JSON.
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
            return None  # a name occurs twice
        read = {name: _plain(value) for name, value in fields.items()}
        read["inputs"] = [_input(item) for item in inputs]
    except (KeyError, ValueError, TypeError, RuntimeError):
        return None
    # Nested lists come out flat as well, so every bracket must belong to a list that was seen.
    return read if head.count(b"[") == _lists(read) else None


def request_in_blocks(head: bytes, *, block_bytes: int = BLOCK_BYTES) -> dict[str, Any] | None:
    """Parse the JSON of a large request, its ``data`` block by block.

    Each list of numbers is parsed on its own and replaced in the text by a random word that no
    client can know; the rest is parsed as usual. ``data`` becomes a flat array where its numbers
    fit the datatype, else a list. Returns None if the text must be parsed as a whole.
    """
    word = secrets.token_hex(16)
    kept: list[bytes] = []
    starts: list[int] = []
    arrays: list[NDArray[Any] | None] = []
    position = 0
    while (opening := _DATA.search(head, position)) is not None:
        if len(starts) == _MAX_LISTS:
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
    """The numbers of a list, None if they are not plain, and where the list ends."""
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
    """The numbers as a flat array, or None if they do not fit the input's datatype and shape."""
    if (
        values is None
        or not values.size
        or (values.ndim == 2 and item.get("shape") != list(values.shape))
    ):
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
        raise TypeError("an input is not an object")
    data = item.get("data", None)
    if not isinstance(data, simdjson.Array) or item["datatype"] not in _FLOATS:
        return item.as_dict()
    read = {name: _plain(item[name]) for name in item if name != "data"}
    if len(read) != len(item) - 1:
        raise ValueError("a name occurs twice")
    return {**read, "data": np.frombuffer(data.as_buffer(of_type="d"), np.float64)}


def _lists(value: Any) -> int:
    """Number of lists and arrays in a value, including itself."""
    if isinstance(value, np.ndarray):
        return 1
    if isinstance(value, dict):
        return sum(map(_lists, value.values()))
    return 1 + sum(map(_lists, value)) if isinstance(value, list) else 0
