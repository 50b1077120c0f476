"""An Open Inference request's JSON with its floating-point data as arrays, not lists.

Only of plain requests; whatever is unusual or wrong is left to the slow reader, which finds the
words for it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import simdjson

from service.inference.simd_rows import BYTE_ORDER_MARK, parser_for

__all__ = ["simd_request"]

_FLOATS: Final = ("FP32", "FP64")


def simd_request(head: bytes) -> dict[str, Any] | None:
    """The JSON of an inference request.

    Parameters
    ----------
    head : bytes

    Returns
    -------
    dict or None
        As a parser gives it, but the ``data`` of ``FP32`` and ``FP64`` inputs as float64 arrays
        of shape (m,). None when something else is in it than numbers in flat lists, or when it is
        not JSON.
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
