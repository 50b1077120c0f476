"""Files of the command line: splits of a NumPy file, outputs that appear whole or not at all."""

from __future__ import annotations

import argparse
import contextlib
import secrets
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trueprob.array_files import UNNAMED, read_arrays
from trueprob.calibration_set import INPUTS, CalibrationSet
from trueprob.calibrators import Calibrator, loads_calibrator
from trueprob.errors import InvalidInput
from trueprob.softmax import Logits

__all__ = [
    "UnusableFile",
    "add_split",
    "read_calibration_set",
    "read_calibrator",
    "read_logits",
    "write_whole",
]

SPLITS = ("val", "test")


class UnusableFile(Exception):
    """A file that cannot be opened or written."""


def add_split(parser: argparse.ArgumentParser) -> None:
    """The option for files that hold several splits side by side."""
    parser.add_argument(
        "--split",
        choices=SPLITS,
        help="use the arrays whose names begin so: val_logits, val_labels",
    )


def read_calibration_set(path: str, split: str | None, n_classes: int | None) -> CalibrationSet:
    """Logits and labels of a file, or of one split of it."""
    arrays = _arrays(path, split)
    if UNNAMED in arrays:
        raise InvalidInput(f"{path} must be an .npz with labels, got a lone array", field="file")
    return CalibrationSet.from_arrays(arrays, n_classes=n_classes)


def read_logits(path: str, split: str | None, n_classes: int) -> Logits:
    """Logits of an `.npy`, or of an `.npz` whose other arrays are left aside."""
    arrays = _arrays(path, split)
    if UNNAMED in arrays and len(arrays) == 1:
        return INPUTS["logits"](arrays[UNNAMED], n_classes=n_classes)
    given = [name for name in INPUTS if name in arrays]
    if len(given) != 1:
        got = " and ".join(given) if given else "none of them"
        raise InvalidInput(
            f"{path} must hold exactly one of {', '.join(INPUTS)}, got {got}", field="logits"
        )
    return INPUTS[given[0]](arrays[given[0]], n_classes=n_classes)


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
