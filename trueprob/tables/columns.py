"""Column names of tables, and the arrays that they become.

`label` is the true class; `weight` and `group` are optional. The plural is accepted too, as in an
`.npz`. The numbers of the classes are

* the columns whose names begin with `logit_`, `prob_` or `logprob_`. The prefix says what the
  numbers are, the rest is the class name, and all other columns are ignored;
* without such columns, all remaining columns, each named by its class;
* in Parquet also one column of lists, `logits`, `probabilities` or `log_probabilities`.

Classes keep the order of the table; if they are named 0 to k − 1 or 1 to k, they are in numerical
order, not in that of their texts. A label is a class name; if no class name is an integer, an
integer label is an index.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.class_names import INTEGER
from trueprob.errors import InvalidInput

__all__ = ["EXTRAS", "PREFIXES", "UNSPECIFIED", "Columns", "Rows", "group_values", "label_values"]

PREFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {"logit_": "logits", "prob_": "probabilities", "logprob_": "log_probabilities"}
)
EXTRAS: Final = {  # column → array of a calibration set
    "label": "labels",
    "labels": "labels",
    "weight": "weights",
    "weights": "weights",
    "group": "groups",
    "groups": "groups",
}
UNSPECIFIED: Final = "values"  # name of the numbers if the file does not say what they are


@dataclass(frozen=True)
class Rows:
    """The rows of a file, as arrays.

    Attributes
    ----------
    arrays : mapping of str to ndarray
        Arrays by the names of `CalibrationSet.from_arrays`. The numbers are named `values` if the
        file does not say what they are.
    class_names : tuple of str, or None
        In the order of the columns; None if the file does not name its classes.
    """

    arrays: Mapping[str, Any]
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Columns:
    """The columns of a table that become arrays."""

    numbers: str  # what the numbers are: `logits`, `probabilities`, `log_probabilities` or `values`
    class_names: tuple[str, ...]
    class_indices: tuple[
        int, ...
    ]  # positions of the columns of the classes, in the order of the classes
    extras: Mapping[str, int]  # `labels`, `weights`, `groups`, if present → column index

    @classmethod
    def of(cls, header: Sequence[str], name: str) -> Columns:
        """Find the columns by their names.

        Raises InvalidInput for two columns with one meaning, for two kinds of numbers, and for
        fewer than two classes.
        """
        names = [column.strip() for column in header]
        extras: dict[str, int] = {}
        for index, column in enumerate(names):
            array = EXTRAS.get(column)
            if array in extras:
                raise InvalidInput(f"{name} has two columns for {array}", field=array)
            if array is not None:
                extras[array] = index
        prefixes = [p for p in PREFIXES if any(column.startswith(p) for column in names)]
        if len(prefixes) > 1:
            raise InvalidInput(
                f"{name} must have one kind of numbers, got columns that begin with "
                f"{' and '.join(prefixes)}",
                field="file",
            )
        prefix = prefixes[0] if prefixes else ""
        classes = [
            (column.removeprefix(prefix), index)
            for index, column in enumerate(names)
            if column not in EXTRAS and column.startswith(prefix)
        ]
        found, k = {c for c, _ in classes}, len(classes)
        if any(found == {str(i) for i in range(first, first + k)} for first in (0, 1)):
            classes.sort(key=lambda pair: int(pair[0]))
        class_names = tuple(c for c, _ in classes)
        if len(classes) < 2:
            raise InvalidInput(
                f"{name} must have a column for each of at least two classes, got {len(classes)}",
                field="file",
            )
        if len(set(class_names)) < len(class_names):
            raise InvalidInput(f"{name} has two columns for the same class", field="file")
        numbers = PREFIXES[prefix] if prefix else UNSPECIFIED
        return cls(numbers, class_names, tuple(index for _, index in classes), extras)


def label_values(
    values: Sequence[Any], class_names: Sequence[str] | None, name: str
) -> list[int | str]:
    """Labels for `as_labels`: class names as strings, indices as integers.

    Raises InvalidInput for an empty cell.
    """
    named_by_integers = any(INTEGER.fullmatch(c) for c in class_names or ())
    seen: dict[Any, int | str] = {}
    labels: list[int | str] = []
    for row, value in enumerate(values):
        if value is None or value == "":
            raise InvalidInput(f"{name} must have a label in each row, row {row} has none")
        if value not in seen:
            text = str(value).strip()
            is_index = INTEGER.fullmatch(text) and not named_by_integers
            seen[value] = int(text) if is_index else text
        labels.append(seen[value])
    return labels


def group_values(values: Sequence[Any]) -> NDArray[np.int64] | NDArray[np.str_]:
    """Groups as integers if all are integers, else as text; the same for both formats."""
    texts = [str(value).strip() for value in values]
    if all(INTEGER.fullmatch(text) and len(text) < 19 for text in texts):
        return np.array([int(text) for text in texts], dtype=np.int64)
    return np.array(texts, dtype=np.str_)
