"""Class labels as indices: integers are class indices, strings are class names.

Whole floats are integers that a table or a framework wrote as floats. Booleans are the labels of
two classes, and a matrix of zeros with a 1 in each row (one-hot) is the labels of its columns, or
of the classes that a table names its columns by. Bytes are texts in UTF-8.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.array_types import column_names, plain_array, relative_error
from trueprob.errors import InvalidInput

__all__ = ["Labels", "as_labels", "mark_ignored"]

Labels = NDArray[np.int64]

READY: Final = "?bBhHiIlLqQefdU"  # characters of NumPy's types that need no conversion
MISSING: Final = "missing: fill it or leave the row out"


def as_labels(
    values: ArrayLike | Sequence[int | str],
    *,
    n_classes: int,
    name: str = "labels",
    n_rows: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Labels:
    """Check labels and return them as class indices.

    Parameters
    ----------
    values : array_like of shape (n,), (n, 1), or (n, k) if one-hot
        Integers in 0 … k − 1, as floats too, or class names, or (in a list) both. With two classes
        also booleans, True for class 1. Columns of pandas, polars and PyArrow, also nullable and
        categorical, torch tensors, and what has ``__array__`` or ``__dlpack__`` are taken.
    n_classes : int
    name : str
        The caller's name of the array, for error messages.
    n_rows : int, optional
        The n that is required.
    class_names : sequence of str, optional
        Needed when there are strings other than the indices "0" … "k − 1".

    Returns
    -------
    ndarray of shape (n,), int64

    Raises
    ------
    InvalidInput
        Wrong shape, a fraction, a missing value, an index out of range, an unknown class name, or
        booleans for more than two classes; floats of a type that cannot tell the classes apart.
    """
    array = _label_array(values, name)
    if array.ndim == 2 and class_names is not None:
        array = _in_class_order(array, column_names(values), class_names)
    if array.ndim == 2 and array.shape[1] == n_classes:
        array = _from_one_hot(array, name)
    elif array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InvalidInput(f"{name} must have shape (n,), got {array.shape}", field=name)
    if n_rows is not None and array.shape[0] != n_rows:
        raise InvalidInput(f"{name} must have shape ({n_rows},), got {array.shape}", field=name)
    if array.dtype.kind == "O":
        return _labels_from_objects(array, n_classes, name, class_names)
    if array.dtype.kind == "f":
        error = 0.0 if array.dtype == np.float64 else relative_error(values)
        if error * n_classes > 1.0:
            raise InvalidInput(
                f"{name} must be integers: {getattr(values, 'dtype', array.dtype)} does not tell "
                f"{n_classes} classes apart; convert where they were integers",
                field=name,
            )
        array = _whole(array, n_classes, name)
    elif array.dtype.kind == "b" and n_classes == 2:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        remedy = {"b": ": booleans are for two classes, convert with .astype(int)"}
        raise InvalidInput(
            f"{name} must be integers (class indices) or strings (class names), got {array.dtype}"
            + remedy.get(array.dtype.kind, ""),
            field=name,
        )
    outside = (array < 0) | (array >= n_classes)
    if outside.any():
        row = int(np.argmax(outside))
        raise InvalidInput(
            f"{name} must lie in 0 … {n_classes - 1}, row {row} does not", field=name
        )
    result: Labels = np.ascontiguousarray(array, dtype=np.int64)
    return result


def mark_ignored(
    values: ArrayLike | Sequence[int | str], ignored: float | str, name: str = "labels"
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Labels with 0 in place of `ignored`, and where that was; one-hot labels have none.

    NaN as `ignored` stands for every missing value.
    """
    array = _label_array(values, name)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        return array, np.zeros(len(array) if array.ndim else 0, dtype=bool)
    test = _is_missing if _is_missing(ignored) else partial(operator.eq, ignored)
    where = np.array([test(value) is True for value in array.tolist()], dtype=bool)
    if where.any():
        array = array.copy()
        array[where] = 0
    return array, where


def _label_array(values: ArrayLike | Sequence[int | str], name: str) -> NDArray[Any]:
    if not isinstance(values, np.ndarray) and isinstance(values, Sequence):
        if any(isinstance(value, str | bool | np.bool_) for value in values):
            # NumPy would turn [1, "7"] into two strings and [True, 1] into two integers.
            listed = np.empty(len(values), dtype=object)
            listed[:] = list(values)
            ordinary = all(type(value) in (str, int, float, bool) for value in values)
            return listed if ordinary else plain_array(listed, name)
        if not values:
            return np.zeros(0, dtype=np.int64)
        if all(type(value) is int for value in values):
            with suppress(OverflowError):  # none of int64
                return np.array(values)
    if type(values) is np.ndarray and values.dtype.char in READY:
        array: NDArray[Any] = values
    else:
        array = plain_array(values, name)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    return np.array(array.tolist(), dtype=object) if array.dtype.kind in "UT" else array


def _is_missing(value: Any) -> bool:
    if isinstance(value, float):
        return value != value
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _in_class_order(
    array: NDArray[Any], columns: Sequence[str] | None, class_names: Sequence[str]
) -> NDArray[Any]:
    """One-hot columns that are named by classes, in their order; a class may lack its column."""
    if columns is None or len(columns) < 2 or not set(columns) <= set(class_names):
        return array
    ordered = np.zeros((len(array), len(class_names)), dtype=array.dtype)
    ordered[:, [class_names.index(column) for column in columns]] = array
    return ordered


def _from_one_hot(array: NDArray[Any], name: str) -> NDArray[Any]:
    """The column of the 1 in each row."""
    numbers = array.dtype.kind in "biuf"
    good = ((array == 0) | (array == 1)).all(axis=1) if numbers else np.zeros(len(array), bool)
    good &= np.count_nonzero(array, axis=1) == 1
    if not good.all():
        raise InvalidInput(
            f"{name} of shape (n, k) must be one-hot, a single 1 in each row and 0 elsewhere; "
            f"row {int(np.argmin(good))} is not",
            field=name,
        )
    columns: NDArray[Any] = array.argmax(axis=1)
    return columns


def _whole(array: NDArray[Any], n_classes: int, name: str) -> NDArray[np.int64]:
    """Floats that are class indices, as integers."""
    whole = np.isfinite(array) & (array == np.floor(array))
    if not whole.all():
        row = int(np.argmin(whole))
        what = MISSING if np.isnan(array[row]) else str(array[row])
        raise InvalidInput(
            f"{name} must be integers (class indices) or strings (class names), "
            f"row {row} is {what}",
            field=name,
        )
    # Clipped, as a float beyond int64 has no integer; what was outside stays outside.
    indices: NDArray[np.int64] = np.clip(array, -1, n_classes).astype(np.int64)
    return indices


def _labels_from_objects(
    array: NDArray[Any], n_classes: int, name: str, class_names: Sequence[str] | None
) -> Labels:
    given = map(str, range(n_classes)) if class_names is None else class_names
    index = {text: position for position, text in enumerate(given)}
    labels = np.empty(array.shape[0], dtype=np.int64)
    for row, value in enumerate(array.tolist()):
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        if _is_missing(value):
            raise InvalidInput(
                f"{name} must be integers (class indices) or strings (class names), "
                f"row {row} is {MISSING}",
                field=name,
            )
        whole = isinstance(value, float) and value.is_integer()
        if whole or (isinstance(value, bool) and n_classes == 2):
            value = int(value)
        if isinstance(value, str):
            if class_names is None and value not in index:
                raise InvalidInput(
                    f"{name} must be integers 0 … {n_classes - 1}: "
                    "no class names are given, got strings",
                    field=name,
                )
            found = index.get(value)
            if found is None:
                raise InvalidInput(
                    f"{name} must be among the {n_classes} class names, row {row} is not",
                    field=name,
                )
            labels[row] = found
        elif isinstance(value, int) and not isinstance(value, bool):
            if not 0 <= value < n_classes:
                raise InvalidInput(
                    f"{name} must lie in 0 … {n_classes - 1}, row {row} does not", field=name
                )
            labels[row] = value
        else:
            raise InvalidInput(
                f"{name} must be integers (class indices) or strings (class names), "
                f"row {row} is {type(value).__name__}",
                field=name,
            )
    return labels
