"""Files of the command line: reads inputs and calibrators, writes outputs atomically.

Nothing is guessed: the name of an array or a column says whether numbers are logits or
probabilities, or --input does; without either they are logits. Where the data and a calibrator both
name their classes, columns are matched by name.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import secrets
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.calibration_set import INPUTS, CalibrationSet
from trueprob.arrays.class_names import as_class_names
from trueprob.arrays.files import UNNAMED, read_arrays
from trueprob.arrays.logit_functions import Logits
from trueprob.calibrators import Calibrator, loads_calibrator
from trueprob.calibrators.input_stage import ZEROS, InputStage, mask_stage
from trueprob.errors import InvalidInput
from trueprob.tables import ColumnChoice, Rows, read_csv, read_parquet
from trueprob.tables.columns import UNSPECIFIED

__all__ = [
    "LABELLED_ROWS",
    "UnusableFile",
    "add_columns",
    "add_input",
    "add_labels",
    "add_masks",
    "add_split",
    "column_choice",
    "join_negative",
    "labels_file",
    "masks_of",
    "names_of",
    "read_calibration_set",
    "read_calibrator",
    "read_logits",
    "write_atomically",
]

SPLITS = ("val", "test")
TABLES = {".csv": read_csv, ".parquet": read_parquet}
LABELLED_ROWS = (
    "file with labelled rows: .npz with the arrays labels and logits (or probabilities, or "
    "log_probabilities); .csv or .parquet with a column label and a column for each class, named "
    "logit_CLASS, prob_CLASS, logprob_CLASS or CLASS"
)
EXTRA_ARRAYS = {"labels", "weights", "groups", "class_names"}


class UnusableFile(Exception):
    """A file cannot be read or written, or a needed package is not installed."""


def add_split(parser: argparse.ArgumentParser) -> None:
    """Add --split, for an .npz that holds several splits."""
    parser.add_argument(
        "--split",
        choices=SPLITS,
        help="of an .npz that holds several splits, read the arrays whose names begin with this "
        "(val_logits, val_labels); default: names without a prefix",
    )


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add --input, which says what the numbers are."""
    parser.add_argument(
        "--input",
        choices=tuple(INPUTS),
        help="what the numbers are, if names in the file do not say it; default: logits",
    )


def add_masks(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what else than minus infinity is a mask."""
    parser.add_argument(
        "--mask-below",
        type=float,
        metavar="LOGIT",
        help="logits at or below this, such as -1e9, mask their class: its probability is 0; the "
        "calibrator keeps the number; default: minus infinity only",
    )
    parser.add_argument(
        "--zeros",
        choices=ZEROS,
        default="learn",
        help="what a probability of 0 is: learn how often labels fall there, or mask the class; "
        "default: learn",
    )


def masks_of(arguments: argparse.Namespace) -> InputStage | None:
    """What the options of `add_masks` say; None for the defaults."""
    if arguments.mask_below is None and arguments.zeros == "learn":
        return None
    return mask_stage(arguments.mask_below, arguments.zeros)


def join_negative(words: Sequence[str]) -> list[str]:
    """The words with ``--mask-below -1e9`` as one: argparse takes -1e9 and -inf for options."""
    joined: list[str] = []
    for word in words:
        if joined[-1:] == ["--mask-below"]:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose columns of a table."""
    parser.add_argument(
        "--label-column", metavar="NAME", help="column of the labels of a table; default: label"
    )
    parser.add_argument(
        "--score-columns",
        metavar="NAMES",
        help="columns of the classes of a table, with commas between them, in the order of the "
        "classes; default: those with a prefix, else all but ids and label, weight and group",
    )
    parser.add_argument(
        "--id-column",
        metavar="NAME",
        action="append",
        help="a column of a table that is an id; may be given several times; default: index "
        "columns, text, and numbers that count the rows",
    )


def column_choice(arguments: argparse.Namespace) -> ColumnChoice | None:
    """The columns that the options choose; None if they choose none."""
    label, scores, ids = arguments.label_column, arguments.score_columns, arguments.id_column
    if label is None and scores is None and not ids:
        return None
    listed = None
    if scores is not None:
        # As in a header, quotes keep the commas of a name.
        listed = tuple(text.strip() for text in next(csv.reader([scores], strict=True), []))
        if not listed or len(set(listed)) < len(listed):
            raise InvalidInput(
                f"score_columns must be different names with commas between them, got {scores!r}",
                field="score_columns",
            )
    return ColumnChoice(label, listed, tuple(ids or ()))


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Add the labels of an .npy: a second argument, or an option."""
    parser.add_argument(
        "labels_npy", metavar="LABELS.npy", nargs="?", help="labels, if the data are an .npy"
    )
    parser.add_argument("--labels", metavar="FILE", help="LABELS.npy, given as an option")


def labels_file(arguments: argparse.Namespace) -> str | None:
    """The file of labels, or None; InvalidInput if it is given twice."""
    given = [path for path in (arguments.labels_npy, arguments.labels) if path is not None]
    if len(given) > 1:
        raise InvalidInput(f"labels are given twice: {' and '.join(given)}", field="labels")
    return given[0] if given else None


def read_calibration_set(
    path: str,
    split: str | None,
    n_classes: int | None,
    *,
    class_names: Sequence[str] | None = None,
    numbers: str | None = None,
    labels: str | None = None,
    columns: ColumnChoice | None = None,
) -> CalibrationSet:
    """Read logits and labels from a file, from a split of it, or from a pair of files.

    The classes are put in the order of `class_names`, by name where the file has names.
    """
    rows = _rows(path, split, numbers, columns, class_names)
    arrays = dict(rows.arrays)
    if rows.class_names is not None:
        arrays["class_names"] = np.array(rows.class_names)
    if labels is not None:
        if "labels" in arrays:
            raise InvalidInput(f"{path} has labels already: leave out {labels}", field="labels")
        given = read_arrays(labels, name=labels)
        lone = given.get(UNNAMED, given.get("labels"))
        if lone is None or len(given) > 1:
            raise InvalidInput(f"{labels} must be an .npy of labels", field="labels")
        kind = next((name for name in INPUTS if name in arrays), "logits")
        scores = arrays.get(kind)
        if scores is not None and _are_labels(scores, lone):
            sys.stderr.write(f"trueprob: note: {path} holds the labels, {labels} the scores\n")
            arrays[kind], lone = lone, scores
        arrays["labels"] = lone
    elif "labels" not in arrays:
        raise InvalidInput(
            f"{path} has no labels: give them in a second .npy, as an array labels of an .npz, "
            "or as a column label of a table",
            field="labels",
        )
    return CalibrationSet.from_arrays(arrays, n_classes=n_classes, class_names=class_names)


def _are_labels(first: NDArray[np.generic], second: NDArray[np.generic]) -> bool:
    """Whether the first of two files has the labels of the scores in the second."""
    discrete = first.dtype.kind in "iuUS"
    return first.ndim == 1 and (second.ndim == 2 or (discrete and second.dtype.kind == "f"))


def names_of(data: CalibrationSet) -> Sequence[str]:
    """The names of the classes; without names, their indices."""
    return data.class_names or [str(index) for index in range(data.n_classes)]


def read_logits(
    path: str,
    split: str | None,
    *,
    numbers: str | None = None,
    columns: ColumnChoice | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[Logits, Rows]:
    """Read the logits of a file, and its class names and ids; other arrays are ignored.

    `class_names` are those of the calibrator; they complete a table with the scores of one class.
    """
    rows = _rows(path, split, numbers, columns, class_names)
    given = [name for name in INPUTS if name in rows.arrays]
    if len(given) != 1:
        got = " and ".join(given) if given else "none of them"
        raise InvalidInput(
            f"{path} must hold exactly one of {', '.join(INPUTS)}, got {got}", field="logits"
        )
    logits = INPUTS[given[0]](rows.arrays[given[0]])
    names = rows.class_names
    if names is not None:
        names = as_class_names(names, n_classes=logits.shape[1])
    return logits, replace(rows, class_names=names)


def read_calibrator(path: str) -> Calibrator:
    """Read a `calibrator.json`."""
    try:
        return loads_calibrator(Path(path).read_bytes())
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}") from None


def write_atomically(path: str, data: bytes) -> None:
    """Write a file atomically: under a temporary name, then renamed."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
            temporary.replace(target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise UnusableFile(f"{path} cannot be written: {error.strerror}") from None


def _rows(
    path: str,
    split: str | None,
    numbers: str | None,
    columns: ColumnChoice | None,
    class_names: Sequence[str] | None,
) -> Rows:
    """Read a file; the array of numbers is named logits, probabilities or log_probabilities.

    What was found out about a table is said on standard error.
    """
    reader = TABLES.get(Path(path).suffix.lower())
    if reader is None:
        if columns is not None:
            raise InvalidInput(
                f"--label-column, --score-columns and --id-column are for .csv and .parquet files, "
                f"{path} is neither",
                field="file",
            )
        rows = Rows(_arrays(path, split))
    elif split is not None:
        raise InvalidInput(f"--split is for .npz files, {path} is a table", field="split")
    else:
        known = None if class_names is None else tuple(class_names)
        choice = replace(columns or ColumnChoice(), numbers=numbers, class_names=known)
        rows = reader(path, name=path, choice=choice)
        for note in rows.notes:
            sys.stderr.write(f"trueprob: note: {note}\n")
    arrays = dict(rows.arrays)
    for name in (UNNAMED, UNSPECIFIED):
        if name in arrays and len(arrays) == 1 + len(EXTRA_ARRAYS & set(arrays)):
            arrays[numbers or "logits"] = arrays.pop(name)
    if numbers is not None:
        named = [name for name in INPUTS if name in arrays]
        if named and numbers not in named:
            raise InvalidInput(
                f"{path} holds {' and '.join(named)}, but --input says {numbers}",
                field="input",
            )
        # The other kinds of numbers in the file are ignored.
        arrays = {n: a for n, a in arrays.items() if n not in INPUTS or n == numbers}
    named = arrays.pop("class_names", None)
    names = rows.class_names if named is None else as_class_names(named, n_classes=named.size)
    return replace(rows, arrays=arrays, class_names=names)


def _arrays(path: str, split: str | None) -> dict[str, NDArray[np.generic]]:
    arrays = read_arrays(path, name=path)
    if split is not None:
        prefix = f"{split}_"
        chosen = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        if not chosen:
            raise InvalidInput(f"{path} has no array that begins with {prefix}", field="split")
        return {n: a for n, a in arrays.items() if n == "class_names"} | chosen
    for name in SPLITS:
        if f"{name}_logits" in arrays:
            raise InvalidInput(
                f"{path} holds several splits: choose one with --split", field="split"
            )
    return arrays
