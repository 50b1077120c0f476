"""Files of the command line: what is read and how it is called, outputs that appear whole.

Nothing is guessed: what the numbers are is said by an array's or column's name, or by --input;
without either they are logits.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.calibration_set import INPUTS, CalibrationSet
from trueprob.arrays.files import UNNAMED, read_arrays
from trueprob.arrays.logit_functions import Logits
from trueprob.calibrators import Calibrator, loads_calibrator
from trueprob.errors import InvalidInput
from trueprob.tables import Rows, read_csv, read_parquet
from trueprob.tables.columns import UNSAID

__all__ = [
    "DATA",
    "UnusableFile",
    "add_input",
    "add_labels",
    "add_split",
    "labels_file",
    "read_calibration_set",
    "read_calibrator",
    "read_logits",
    "write_whole",
]

SPLITS = ("val", "test")
TABLES = {".csv": read_csv, ".parquet": read_parquet}
DATA = (
    ".npz with arrays logits (or probabilities, log_probabilities) and labels; .npy, followed by "
    "another of labels; .csv or .parquet with a column label and one for each class, named "
    "logit_CLASS, prob_CLASS, logprob_CLASS, or by the class alone"
)
EXTRA_ARRAYS = {"labels", "weights", "groups"}


class UnusableFile(Exception):
    """A file that cannot be opened or written."""


def add_split(parser: argparse.ArgumentParser) -> None:
    """The option for files that hold several splits side by side."""
    parser.add_argument(
        "--split",
        choices=SPLITS,
        help="use the arrays whose names begin so: val_logits, val_labels",
    )


def add_input(parser: argparse.ArgumentParser) -> None:
    """The option that says what the numbers are."""
    parser.add_argument(
        "--input",
        choices=tuple(INPUTS),
        help="what the numbers are, where the file does not say it; default logits",
    )


def add_labels(parser: argparse.ArgumentParser) -> None:
    """The labels of an `.npy`, which has none itself: after it, or as an option."""
    parser.add_argument("beside", metavar="LABELS.npy", nargs="?", help="labels of an .npy")
    parser.add_argument("--labels", metavar="FILE", help="the same as an option")


def labels_file(arguments: argparse.Namespace) -> str | None:
    """The file of labels, given at most once."""
    given = [path for path in (arguments.beside, arguments.labels) if path is not None]
    if len(given) > 1:
        raise InvalidInput(f"labels are given twice: {' and '.join(given)}", field="labels")
    return given[0] if given else None


def read_calibration_set(
    path: str,
    split: str | None,
    n_classes: int | None,
    *,
    numbers: str | None = None,
    labels: str | None = None,
) -> CalibrationSet:
    """Numbers and labels of a file, of one split of it, or of a pair of files."""
    rows = _rows(path, split, numbers)
    arrays = dict(rows.arrays)
    if labels is not None:
        if "labels" in arrays:
            raise InvalidInput(f"{path} has labels: {labels} gives them again", field="labels")
        given = read_arrays(labels, name=labels)
        lone = given.get(UNNAMED, given.get("labels"))
        if lone is None or len(given) > 1:
            raise InvalidInput(f"{labels} must be an .npy of labels", field="labels")
        arrays["labels"] = lone
    elif "labels" not in arrays:
        raise InvalidInput(
            f"{path} has no labels: give them in a second .npy, as an array labels of an .npz, "
            "or as a column label of a table",
            field="labels",
        )
    return CalibrationSet.from_arrays(arrays, n_classes=n_classes, class_names=rows.class_names)


def read_logits(
    path: str, split: str | None, n_classes: int, *, numbers: str | None = None
) -> tuple[Logits, tuple[str, ...] | None]:
    """Logits of a file whose other arrays are left aside, and the classes' names in it."""
    rows = _rows(path, split, numbers)
    given = [name for name in INPUTS if name in rows.arrays]
    if len(given) != 1:
        got = " and ".join(given) if given else "none of them"
        raise InvalidInput(
            f"{path} must hold exactly one of {', '.join(INPUTS)}, got {got}", field="logits"
        )
    return INPUTS[given[0]](rows.arrays[given[0]], n_classes=n_classes), rows.class_names


def read_calibrator(path: str) -> Calibrator:
    """The calibrator of a `calibrator.json`."""
    try:
        return loads_calibrator(Path(path).read_bytes())
    except OSError as error:
        raise UnusableFile(f"{path} cannot be read: {error.strerror}") from None


def write_whole(path: str, data: bytes) -> None:
    """Write under a temporary name beside the target, then rename."""
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


def _rows(path: str, split: str | None, numbers: str | None) -> Rows:
    """The arrays of a file; its numbers go by the name of what they are."""
    reader = TABLES.get(Path(path).suffix.lower())
    if reader is None:
        rows = Rows(_arrays(path, split))
    elif split is not None:
        raise InvalidInput(f"--split is for .npz files, {path} is a table", field="split")
    else:
        rows = reader(path, name=path)
    arrays = dict(rows.arrays)
    for unsaid in (UNNAMED, UNSAID):
        if unsaid in arrays and len(arrays) == 1 + len(EXTRA_ARRAYS & set(arrays)):
            arrays[numbers or "logits"] = arrays.pop(unsaid)
    if numbers is not None:
        named = [name for name in INPUTS if name in arrays]
        if named and numbers not in named:
            raise InvalidInput(
                f"{path} holds {' and '.join(named)} by name, --input says {numbers}",
                field="input",
            )
        # The other kinds of numbers beside those that were asked for are left aside.
        arrays = {n: a for n, a in arrays.items() if n not in INPUTS or n == numbers}
    return Rows(arrays, rows.class_names)


def _arrays(path: str, split: str | None) -> dict[str, NDArray[np.generic]]:
    arrays = read_arrays(path, name=path)
    if split is not None:
        prefix = f"{split}_"
        chosen = {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}
        if not chosen:
            raise InvalidInput(f"{path} has no array that begins with {prefix}", field="split")
        return chosen
    for name in SPLITS:
        if f"{name}_logits" in arrays:
            raise InvalidInput(f"{path} holds several splits: choose with --split", field="split")
    return arrays
