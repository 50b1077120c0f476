"""Class labels as indices: integers are class indices, strings are class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.errors import InvalidInput

__all__ = ["Labels", "as_labels"]

Labels = NDArray[np.int64]


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
    values : array_like of shape (n,)
        Integers in 0 … k − 1, or class names, or (in a list) both.
    n_classes : int
    name : str
        The caller's name of the array, for error messages.
    n_rows : int, optional
        The n that is required.
    class_names : sequence of str, optional
        Needed when there are strings.

    Returns
    -------
    ndarray of shape (n,), int64

    Raises
    ------
    InvalidInput
        Wrong shape, booleans or floats, an index out of range or an unknown class name.
    """
    array = _label_array(values, name)
    if array.ndim != 1:
        raise InvalidInput(f"{name} must have shape (n,), got {array.shape}", field=name)
    if n_rows is not None and array.shape[0] != n_rows:
        raise InvalidInput(f"{name} must have shape ({n_rows},), got {array.shape}", field=name)
    if array.dtype.kind == "O":
        return _labels_from_objects(array, n_classes, name, class_names)
    if array.dtype.kind not in "iu":
        raise InvalidInput(
            f"{name} must be integers (class indices) or strings (class names), got {array.dtype}",
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


def _label_array(values: ArrayLike | Sequence[int | str], name: str) -> NDArray[Any]:
    if not isinstance(values, np.ndarray) and isinstance(values, Sequence):
        if any(isinstance(value, str | bool | np.bool_) for value in values):
            # NumPy would turn [1, "7"] into two strings and [True, 1] into two integers.
            array = np.empty(len(values), dtype=object)
            array[:] = list(values)
            return array
        if not values:
            return np.zeros(0, dtype=np.int64)
    try:
        array = np.asarray(values)
        if array.dtype.kind in "UST":
            return np.array(array.tolist(), dtype=object)
    except (ValueError, TypeError, OverflowError):
        raise InvalidInput(f"{name} must hold one integer or string per row", field=name) from None
    return array


def _labels_from_objects(
    array: NDArray[Any], n_classes: int, name: str, class_names: Sequence[str] | None
) -> Labels:
    index = {text: position for position, text in enumerate(class_names or ())}
    labels = np.empty(array.shape[0], dtype=np.int64)
    for row, value in enumerate(array.tolist()):
        if isinstance(value, bytes):
            value = value.decode("utf-8", errors="replace")
        if isinstance(value, str):
            if class_names is None:
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
