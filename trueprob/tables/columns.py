"""Column names of tables, and the arrays that they become.

`label` is the true class; `weight` and `group` are optional. The plural is accepted too, as in an
`.npz`. The numbers of the classes are

* the columns whose names begin with `logit_`, `prob_` or `logprob_`. The prefix says what the
  numbers are, the rest is the class name;
* without such columns, all remaining columns, each named by its class;
* in Parquet also one column of lists, `logits`, `probabilities` or `log_probabilities`.

An id is never a class: an index column, text, a number that counts the rows. Ids are kept as they
are, for tables of predictions. Other columns beside those with a prefix are ignored. A
`ColumnChoice` says otherwise.

Classes keep the order of the table; if they are named 0 to k − 1 or 1 to k, they are in numerical
order, not in that of their texts. A label is a class name; if no class name is an integer, an
integer label is an index.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.class_names import INTEGER, shown
from trueprob.errors import InvalidInput

__all__ = [
    "ANSWERS",
    "EXTRAS",
    "PREFIXES",
    "SAMPLE",
    "UNSPECIFIED",
    "ColumnCells",
    "ColumnChoice",
    "Columns",
    "Rows",
    "find_extras",
    "find_ids",
    "group_values",
    "label_values",
]

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
ANSWERS: Final = (  # columns of a table of predictions; with these names nothing is an id
    "prediction",
    "class",
    "confidence",
    "temperature",
    "log_odds",
    "confidence_low",
    "confidence_high",
)
INDEX: Final = re.compile(r"|unnamed: ?[0-9]+|__index_level_[0-9]+__", re.IGNORECASE)
ID: Final = re.compile(r"(.*[_ ])?(id|uuid|index|idx)", re.IGNORECASE)
TRUTH: Final = re.compile(r"y|target|truth|y_true|(true|ground)[_ ](label|truth)", re.IGNORECASE)
WHOLE_FLOAT: Final = re.compile(r"(-?[0-9]+)\.0+")
SAMPLE: Final = 10_000  # first rows that say what a column is
RUNNING: Final = 3  # rows from which numbers that go up by one count the rows
DISTINCT: Final = 20  # rows from which whole numbers that all differ are ids


@dataclass(frozen=True)
class ColumnChoice:
    """What a caller says about the columns of a table.

    Attributes
    ----------
    label : str, optional
        Name of the column of labels; default: `label` or `labels`.
    scores : tuple of str, optional
        Names of the columns of the classes, in the order of the classes.
    ids : tuple of str
        Names of columns that are ids, besides those that are found.
    numbers : {"logits", "probabilities", "log_probabilities"}, optional
        What the numbers are if no name in the file says it.
    class_names : tuple of str, optional
        The classes of the model that the rows are for. They name the class that a lone column
        of scores leaves out.
    options : bool
        Whether sentences name the options of the commands; otherwise what to do in the file.
    """

    label: str | None = None
    scores: tuple[str, ...] | None = None
    ids: tuple[str, ...] = ()
    numbers: str | None = None
    class_names: tuple[str, ...] | None = None
    options: bool = True

    def advice(self, option: str, in_file: str) -> str:
        """What to do about columns, for a caller with options or without."""
        return option if self.options else in_file

    @property
    def otherwise(self) -> str:
        """How columns that are taken as ids become scores."""
        return self.advice(
            "--score-columns says otherwise", "columns named logit_CLASS or prob_CLASS are scores"
        )


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
    ids : mapping of str to sequence
        The columns that are ids, one value per row, as they are in the file.
    notes : tuple of str
        One sentence for each thing about the file that was found out, not said.
    """

    arrays: Mapping[str, Any]
    class_names: tuple[str, ...] | None = None
    ids: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnCells:
    """What a column holds: all `text`, all numbers (`whole` or `real`), `mixed`, or nothing."""

    kind: str  # `text`, `whole`, `real`, `mixed` or `empty`
    n: int = 0
    distinct: int = 0  # different values of `whole`
    running: bool = False  # `whole`, and each is one more than the one before

    @classmethod
    def of_numbers(cls, numbers: NDArray[Any]) -> ColumnCells:
        """Describe a column of numbers, shape (n,)."""
        values = numbers.astype(np.float64)
        n = len(values)
        if not n or not np.isfinite(values).all() or np.any(values != np.rint(values)):
            return cls("real", n)
        running = n >= RUNNING and bool(np.all(np.diff(values) == 1))
        return cls("whole", n, len(np.unique(values)), running)


@dataclass(frozen=True)
class Columns:
    """The columns of a table that become arrays."""

    numbers: str  # what the numbers are: `logits`, `probabilities`, `log_probabilities` or `values`
    class_names: tuple[str, ...]  # one name: a lone column of scores, for `two_columns`
    class_indices: tuple[
        int, ...
    ]  # positions of the columns of the classes, in the order of the classes
    extras: Mapping[str, int]  # `labels`, `weights`, `groups`, if present → column index
    ids: Mapping[str, int] = field(default_factory=dict)  # name → column index
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        header: Sequence[str],
        cells: Callable[[int], ColumnCells],
        name: str,
        choice: ColumnChoice,
    ) -> Columns:
        """Find the columns by a choice, by their names, and by what their cells are.

        Raises InvalidInput for a chosen column that is not there, two columns with one meaning,
        two kinds of numbers, and no class.
        """
        names = [column.strip() for column in header]
        extras = find_extras(names, name, choice)
        id_indices = [_position(names, column, name, "id_column") for column in choice.ids]
        taken = {*extras.values()} & {*id_indices}
        rest = [
            index
            for index, column in enumerate(names)
            if column not in EXTRAS and index not in extras.values() and index not in id_indices
        ]
        notes: list[str] = []
        if choice.scores is not None:
            scores = [_position(names, column, name, "score_columns") for column in choice.scores]
            taken |= {*scores} & {*extras.values(), *id_indices}
            prefixes = [p for p in PREFIXES if all(names[i].startswith(p) for i in scores)]
        else:
            prefixes = [p for p in PREFIXES if any(names[i].startswith(p) for i in rest)]
            if len(prefixes) > 1:
                raise InvalidInput(
                    f"{name} must have one kind of numbers, got columns that begin with "
                    f"{' and '.join(prefixes)}",
                    field="file",
                )
            scores = [i for i in rest if prefixes and names[i].startswith(prefixes[0])]
        if taken:
            raise InvalidInput(
                f"{name} must have one meaning for each column, "
                f"{shown([names[i] for i in sorted(taken)])} is chosen for two",
                field="file",
            )
        if scores:
            described = {i: cells(i) for i in rest if i not in scores}
            found = [i for i, c in described.items() if _is_id(names[i], c, beside=True)]
            id_indices += found
            if choice.scores is None:
                notes += _ids_found(names, found, name)
                ignored = [c for i, c in enumerate(names) if i in described and i not in found]
                ignored = [c for c in ignored if c not in ANSWERS and not INDEX.fullmatch(c)]
                if ignored:
                    notes.append(
                        f"{name}: ignored, because they have no prefix {prefixes[0]}: "
                        f"{shown(ignored)}"
                    )
        else:
            described = {i: cells(i) for i in rest}
            reals = sum(c.kind == "real" for c in described.values())
            found = [i for i, c in described.items() if _is_id(names[i], c, beside=reals > 0)]
            id_indices += found
            notes += _ids_found(names, found, name)
            scores = [
                i
                for i in rest
                if i not in found and not (INDEX.fullmatch(names[i]) and cells(i).kind == "empty")
            ]
            notes += _doubts(
                names, {i: described[i] for i in scores}, "labels" in extras, name, choice
            )
        prefix = prefixes[0] if prefixes else ""
        classes = [(names[index].removeprefix(prefix), index) for index in scores]
        known, k = {c for c, _ in classes}, len(classes)
        counted = any(known == {str(i) for i in range(first, first + k)} for first in (0, 1))
        if counted and k > 1 and choice.scores is None:
            classes.sort(key=lambda pair: int(pair[0]))
        class_names = tuple(c for c, _ in classes)
        if not classes:
            left = [names[i] for i in id_indices]
            also = f"; taken as ids: {shown(left)} ({choice.otherwise})" if left else ""
            raise InvalidInput(
                f"{name} must have a column for each of at least two classes, got 0{also}",
                field="file",
            )
        if len(set(class_names)) < len(class_names):
            raise InvalidInput(f"{name} has two columns for the same class", field="file")
        numbers = PREFIXES[prefix] if prefix else UNSPECIFIED
        indices = tuple(index for _, index in classes)
        ids = _named_once(names, id_indices, name)
        return cls(numbers, class_names, indices, extras, ids, tuple(notes))


def find_extras(names: Sequence[str], name: str, choice: ColumnChoice) -> dict[str, int]:
    """Positions of the labels, weights and groups; InvalidInput for two columns of one."""
    extras: dict[str, int] = {}
    if choice.label is not None:
        extras["labels"] = _position(names, choice.label, name, "label_column")
    for index, column in enumerate(names):
        array = EXTRAS.get(column)
        if array is None or index in extras.values():
            continue
        if array == "labels" and choice.label is not None:
            continue  # another column was chosen
        if array in extras:
            raise InvalidInput(f"{name} has two columns for {array}", field=array)
        extras[array] = index
    return extras


def find_ids(
    header: Sequence[str], cells: Callable[[int], ColumnCells], name: str, choice: ColumnChoice
) -> dict[str, int]:
    """Positions of the ids of a table whose numbers are in one column of lists."""
    names = [column.strip() for column in header]
    taken = {*find_extras(names, name, choice).values()}
    chosen = [_position(names, column, name, "id_column") for column in choice.ids]
    taken |= {*chosen}
    others = [i for i, c in enumerate(names) if c not in (*EXTRAS, *PREFIXES.values())]
    found = [i for i in others if i not in taken and _is_id(names[i], cells(i), beside=True)]
    return _named_once(names, [*chosen, *found], name)


def _position(names: Sequence[str], column: str, name: str, what: str) -> int:
    if names.count(column) != 1:
        raise InvalidInput(
            f"{what} must be one column of {name}, which has {shown(names)}, got {column[:40]!r}",
            field=what,
        )
    return names.index(column)


def _is_id(column: str, cells: ColumnCells, *, beside: bool) -> bool:
    """Whether a column is an id; `beside` columns that cannot be ids, whole numbers can."""
    if column in ANSWERS or cells.kind == "empty":
        return False
    if INDEX.fullmatch(column) or cells.kind == "text" or cells.running:
        return True
    # A class may be called id, as the language is; its scores have fractions.
    if ID.fullmatch(column) and cells.kind in ("whole", "mixed"):
        return True
    return beside and cells.kind == "whole" and cells.n >= DISTINCT and cells.distinct == cells.n


def _ids_found(names: Sequence[str], found: Sequence[int], name: str) -> list[str]:
    return [f"{name}: column {names[i][:40]!r} is taken as an id, not as a class" for i in found]


def _doubts(
    names: Sequence[str],
    classes: Mapping[int, ColumnCells],
    labelled: bool,
    name: str,
    choice: ColumnChoice,
) -> list[str]:
    """Notes on classes that look like something else; InvalidInput for what looks like labels."""
    reals = [i for i, cells in classes.items() if cells.kind == "real"]
    notes = []
    for i, cells in classes.items():
        if cells.kind != "whole" or not reals:
            continue
        if not labelled and TRUTH.fullmatch(names[i]):
            advice = choice.advice(
                f"give --label-column {names[i]} if it holds labels, and --score-columns if it "
                "holds scores",
                "name it label if it holds labels, and every score logit_CLASS or prob_CLASS if it "
                "holds scores",
            )
            raise InvalidInput(
                f"{name} has a column {names[i]!r} of whole numbers beside scores, and no column "
                f"label: {advice}",
                field="labels",
            )
        if cells.n >= DISTINCT:
            advice = choice.advice("name the classes with --score-columns", "leave it out")
            notes.append(
                f"{name}: column {names[i][:40]!r} is taken as a class, but it has whole numbers "
                f"only ({cells.distinct} values in {cells.n} rows) and other columns have "
                f"fractions: {advice} if it is none"
            )
    return notes


def _named_once(names: Sequence[str], indices: Sequence[int], name: str) -> dict[str, int]:
    ids: dict[str, int] = {}
    for index in sorted(indices):
        if names[index] in ids and ids[names[index]] != index:
            raise InvalidInput(
                f"{name} has two columns {names[index][:40]!r} that are ids: rename one",
                field="file",
            )
        ids[names[index]] = index
    return ids


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
            whole = WHOLE_FLOAT.fullmatch(text)  # how pandas writes labels of a column with gaps
            if whole and text not in (class_names or ()):
                text = whole[1]
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
