"""Labels by name, as scikit-learn has them, turned into columns of a matrix of logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import column_or_1d

from trueprob.errors import InvalidInput

__all__ = ["labels_of_columns"]


def labels_of_columns(
    y: ArrayLike, classes: Sequence[Any] | NDArray[Any] | None, k: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The name of each column, and the column of each label.

    Raises `InvalidInput`: not k names, or a label that is none of them.
    """
    y = column_or_1d(y, warn=True)
    names = np.unique(y) if classes is None else np.asarray(classes)
    if names.shape != (k,):
        raise InvalidInput(
            f"classes must name the {k} columns of X, got {names.shape[0]} of them"
            + (" in y: give them as classes=" if classes is None else ""),
            field="classes",
        )
    order = np.argsort(names)
    place = np.minimum(np.searchsorted(names, y, sorter=order), k - 1)
    labels = order[place]
    unknown = names[labels] != y
    if np.any(unknown):
        raise InvalidInput(
            f"y must be among the {k} classes, row {int(np.argmax(unknown))} is not", field="y"
        )
    return names, labels.astype(np.int64)
