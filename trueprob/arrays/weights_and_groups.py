"""Optional arrays of a set: the weight of each row, and the group that it belongs to."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.array_types import number_array, plain_array
from trueprob.errors import InvalidInput

__all__ = ["Groups", "as_groups", "as_weights"]

Groups = NDArray[np.int64] | NDArray[np.str_]


def as_weights(values: ArrayLike, *, n_rows: int, name: str = "weights") -> NDArray[np.float64]:
    """Weights as float64 of shape (n,): finite, non-negative, not all zero."""
    array = plain_array(values, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (n_rows,):
        raise InvalidInput(f"{name} must have shape ({n_rows},), got {array.shape}", field=name)
    if array.dtype.kind != "b":  # a row counts or does not
        array = number_array(array, name)
    result = np.ascontiguousarray(array, dtype=np.float64)
    if not np.isfinite(result).all() or (result < 0).any():
        raise InvalidInput(f"{name} must be finite and not negative", field=name)
    largest = float(result.max())
    if largest <= 0.0:
        raise InvalidInput(f"{name} must not all be zero", field=name)
    if largest > 1e100:
        raise InvalidInput(f"{name} must be at most 1e100", field=name)
    return result


def as_groups(values: ArrayLike, *, n_rows: int, name: str = "groups") -> Groups:
    """Group keys of shape (n,): integers or strings."""
    array = plain_array(values, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (n_rows,):
        raise InvalidInput(f"{name} must have shape ({n_rows},), got {array.shape}", field=name)
    if array.dtype.kind == "O" and all(type(value) is int for value in array.tolist()):
        with suppress(OverflowError):
            array = array.astype(np.int64)
    if array.dtype.kind in "iu":
        return np.ascontiguousarray(array, dtype=np.int64)
    try:
        texts = array.tolist()
        if array.dtype.kind == "S":
            texts = [text.decode("utf-8") for text in texts]
    except (UnicodeDecodeError, ValueError):
        raise InvalidInput(f"{name} must be valid UTF-8", field=name) from None
    if array.dtype.kind in "USTO" and all(isinstance(text, str) for text in texts):
        return np.array(texts, dtype=np.str_)
    raise InvalidInput(f"{name} must be integers or strings, got {array.dtype}", field=name)
