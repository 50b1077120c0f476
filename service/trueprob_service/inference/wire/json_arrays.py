"""What networks take, in JSON: nested lists of numbers or booleans, one list per row.

Rows must have one length. Which token pads, and whether a mask says so, only the client knows.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob_service.errors import InvalidRequest

__all__ = ["named_arrays", "nested"]


def named_arrays(values: object) -> dict[str, NDArray[Any]]:
    """The arrays of ``inputs``; which names a network has is checked later."""
    if not isinstance(values, dict) or not values:
        raise InvalidRequest("inputs must be an object with an array for each input of the network")
    return {name: nested(array, name[:100]) for name, array in values.items()}


def nested(values: object, name: str) -> NDArray[Any]:
    """An array of numbers or of booleans from nested lists of any depth, one list per row."""
    if not isinstance(values, list):
        raise InvalidRequest(f"{name} must be a list with an element for each row")
    level: list[Any] = values
    shape = [len(level)]
    while level and isinstance(level[0], list):
        if set(map(type, level)) != {list}:
            raise InvalidRequest(f"{name} must be nested to one depth: some rows are lists")
        length = len(level[0])
        for place, each in enumerate(level):
            if len(each) != length:
                row = place * shape[0] // len(level)
                where = "numbers" if len(shape) == 1 else f"elements at depth {len(shape)}"
                raise InvalidRequest(
                    f"{name} is ragged: row 0 has {length} {where}, row {row} has {len(each)}; "
                    "pad all rows to one length"
                )
        shape.append(length)
        level = list(chain.from_iterable(level))
    if not level:
        raise InvalidRequest(f"{name} must have at least one row with numbers, got none")
    kinds = set(map(type, level))
    if kinds != {bool} and not kinds <= {int, float}:
        place = next(i for i, each in enumerate(level) if type(each) not in (int, float))
        kind = "null" if level[place] is None else type(level[place]).__name__
        row = place * shape[0] // len(level)
        raise InvalidRequest(f"{name} must hold numbers only, got {kind} in row {row}")
    array = np.array(level).reshape(shape)
    if array.dtype.kind not in "biuf":
        raise InvalidRequest(f"{name} must hold numbers only, got one that does not fit 64 bits")
    return array
