"""Reads a `.csv`: UTF-8, commas, a header row, and the column names of `columns`."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidInput
from trueprob.tables.columns import Columns, Rows, group_values, label_values

__all__ = ["read_csv"]

PIECE_CELLS: Final = 1 << 20  # cells held as text at a time, never the whole file


def read_csv(path: str | os.PathLike[str], *, name: str = "file") -> Rows:
    """Read a `.csv`.

    Parameters
    ----------
    path : path
    name : str
        Name of the file in error messages.

    Returns
    -------
    Rows
        Numbers as float64.

    Raises
    ------
    InvalidInput
        The file cannot be read, a row has another number of cells than the header, or a cell is
        not a number.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:  # noqa: PTH123
            return _rows(csv.reader(stream, strict=True), name)
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}", field=name) from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} must be UTF-8 text", field=name) from None
    except csv.Error as error:
        raise InvalidInput(f"{name} is not a table with commas: {error}", field=name) from None


def _rows(reader: Any, name: str) -> Rows:
    header = next(reader, None)
    if not header:
        raise InvalidInput(f"{name} must begin with a header row, got nothing", field=name)
    columns = Columns.of(header, name)
    pick = itemgetter(*columns.class_indices)
    n_classes = len(columns.class_indices)
    pieces: list[NDArray[np.float64]] = []
    extras: dict[str, list[str]] = {array: [] for array in columns.extras}
    n = 0
    for rows in _pieces(reader, len(header), name):
        numbers = chain.from_iterable(map(pick, rows))
        try:
            piece = np.fromiter(map(float, numbers), np.float64, n_classes * len(rows))
        except ValueError:
            raise _not_a_number(rows, columns, header, n, name) from None
        pieces.append(piece.reshape(len(rows), n_classes))
        for array, index in columns.extras.items():
            extras[array].extend(row[index] for row in rows)
        n += len(rows)
    if not n:
        raise InvalidInput(f"{name} must have at least one row below its header", field=name)
    arrays: dict[str, Any] = {columns.numbers: np.concatenate(pieces)}
    if "labels" in extras:
        arrays["labels"] = label_values(extras["labels"], columns.class_names, name)
    if "weights" in extras:
        try:
            arrays["weights"] = np.array([float(cell) for cell in extras["weights"]])
        except ValueError:
            raise InvalidInput(f"{name} must have numbers as weights", field="weights") from None
    if "groups" in extras:
        arrays["groups"] = group_values(extras["groups"])
    return Rows(arrays, columns.class_names)


def _pieces(reader: Any, width: int, name: str) -> Iterator[list[list[str]]]:
    """The rows in pieces, without blank lines."""
    start = 0
    while piece := list(islice(reader, max(1, PIECE_CELLS // width))):
        rows = [row for row in piece if row]
        for number, row in enumerate(rows, start):
            if len(row) != width:
                raise InvalidInput(
                    f"{name} must have {width} cells in each row, row {number} has {len(row)}",
                    field=name,
                )
        start += len(rows)
        if rows:
            yield rows


def _not_a_number(
    rows: list[list[str]], columns: Columns, header: list[str], start: int, name: str
) -> InvalidInput:
    for number, row in enumerate(rows, start):
        for index in columns.class_indices:
            try:
                float(row[index])
            except ValueError:
                return InvalidInput(
                    f"{name} must have numbers in column {header[index][:40]!r}, "
                    f"row {number} has something else",
                    field=name,
                )
    return InvalidInput(f"{name} must have numbers in the classes' columns", field=name)
