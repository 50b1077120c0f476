"""Reads a `.csv`: UTF-8, a header row, and the column names of `columns`.

Cells are separated by commas, semicolons or tabs. Decimals have a point or, throughout the file, a
comma. Both are found out from the file.
"""

from __future__ import annotations

import contextlib
import csv
import os
import re
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any, Final, TextIO

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidInput
from trueprob.tables.columns import (
    SAMPLE,
    ColumnCells,
    ColumnChoice,
    Columns,
    Rows,
    group_values,
    label_values,
)
from trueprob.tables.one_score import two_columns

__all__ = ["read_csv"]

PIECE_CELLS: Final = 1 << 20  # cells held as text at a time, never the whole file
SEPARATORS: Final = {",": "commas", ";": "semicolons", "\t": "tabs"}
ROWS_TRIED: Final = 20  # where several separators are possible
SAID: Final = re.compile(r'"?sep=([,;\t])"?\s*')  # first line of some spreadsheets
THOUSANDS: Final = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")


def read_csv(
    path: str | os.PathLike[str],
    *,
    name: str = "file",
    choice: ColumnChoice = ColumnChoice(),  # noqa: B008
) -> Rows:
    """Read a `.csv`.

    Parameters
    ----------
    path : path
    name : str
        Name of the file in error messages.
    choice : ColumnChoice
        Columns that are not known by their names.

    Returns
    -------
    Rows
        Numbers as float64, ids as text.

    Raises
    ------
    InvalidInput
        The file cannot be read, a row has another number of cells than the header, a cell is
        not a number, or commas in numbers could be decimal or thousands separators.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:  # noqa: PTH123
            separator, skipped = _separator(stream)
            reader = csv.reader(stream, delimiter=separator, strict=True)
            return _rows(islice(reader, skipped, None), separator, name, choice)
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}", field=name) from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} must be UTF-8 text", field=name) from None
    except csv.Error as error:
        raise InvalidInput(
            f"{name} is not a table with commas, semicolons or tabs: {error}", field=name
        ) from None


def _separator(stream: TextIO) -> tuple[str, int]:
    """The separator, and the number of lines above the header; the stream is at its start again."""
    said = SAID.fullmatch(stream.readline())
    if said is not None:
        stream.seek(0)
        return said[1], 1
    first = {separator: _first_rows(stream, separator, 2) for separator in SEPARATORS}
    widths = {separator: [*map(len, rows)] for separator, rows in first.items()}
    # The right one splits the header and the first row alike; another one may occur in names.
    alike = [s for s, w in widths.items() if w and w[0] > 1 and w[0] == w[-1]]
    if len(alike) > 1:
        shares = {s: _share_of_numbers(_first_rows(stream, s, ROWS_TRIED)) for s in alike}
        chosen = max(alike, key=lambda separator: (shares[separator], widths[separator]))
    else:
        chosen = max(alike or SEPARATORS, key=lambda separator: widths[separator][:1])
    stream.seek(0)
    return chosen, 0


def _first_rows(stream: TextIO, separator: str, n: int) -> list[list[str]]:
    """Up to n rows without blank lines, as far as this separator can read them."""
    stream.seek(0)
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # of the right one, reading all rows says it
        rows.extend(islice(filter(None, csv.reader(stream, delimiter=separator, strict=True)), n))
    return rows


def _share_of_numbers(rows: list[list[str]]) -> float:
    """The share of cells below the header that are numbers."""
    cells = [*chain.from_iterable(rows[1:])]
    return sum(_is_number(cell, "," in cell) for cell in cells) / max(1, len(cells))


def _rows(reader: Iterator[list[str]], separator: str, name: str, choice: ColumnChoice) -> Rows:
    header = next(filter(None, reader), None)
    if not header:
        raise InvalidInput(f"{name} must begin with a header row, got nothing", field=name)
    pieces = _pieces(reader, len(header), name)
    first = next(pieces, [])

    def described(index: int) -> ColumnCells:
        return _cells([row[index] for row in first[:SAMPLE]])

    columns = Columns.of(header, described, name, choice)
    notes = [*columns.notes]
    if separator != ",":
        notes.insert(0, f"{name}: cells are separated by {SEPARATORS[separator]}")
    if not first:
        raise InvalidInput(f"{name} must have at least one row below its header", field=name)
    comma = _decimal_comma(first, columns.class_indices, header, name)
    if comma:
        notes.append(f"{name}: commas in numbers are read as decimal commas")
    n_classes = len(columns.class_indices)
    pick = itemgetter(*columns.class_indices, columns.class_indices[-1])  # always a tuple
    parts: list[NDArray[np.float64]] = []
    kept = {*columns.extras.values(), *columns.ids.values()}
    columns_of_text: dict[int, list[str]] = {index: [] for index in kept}
    known: dict[str, str] = {}  # equal texts are one object
    n = 0
    for rows in chain([first], pieces):
        try:
            numbers = _numbers([*chain.from_iterable(map(pick, rows))], comma)
        except ValueError:
            raise _not_a_number(
                rows, columns.class_indices, header, n, comma, name, choice
            ) from None
        parts.append(numbers.reshape(len(rows), n_classes + 1)[:, :-1])
        for index, texts in columns_of_text.items():
            texts.extend(known.setdefault(row[index], row[index]) for row in rows)
        n += len(rows)
    extras = {array: columns_of_text[index] for array, index in columns.extras.items()}
    values, labels = np.concatenate(parts), extras.get("labels")
    numbers_name = columns.numbers
    class_names: tuple[str, ...] | None = columns.class_names
    arrays: dict[str, Any] = {}
    if n_classes == 1:
        numbers_name, values, class_names, found, note = two_columns(
            columns, values[:, 0], labels, choice, name
        )
        notes.append(note)
    else:
        found = None if labels is None else label_values(labels, class_names, name)
    arrays[numbers_name] = values
    if found is not None:
        arrays["labels"] = found
    if "weights" in extras:
        try:
            arrays["weights"] = _numbers(extras["weights"], comma)
        except ValueError:
            raise InvalidInput(f"{name} must have numbers as weights", field="weights") from None
    if "groups" in extras:
        arrays["groups"] = group_values(extras["groups"])
    ids = {column: columns_of_text[index] for column, index in columns.ids.items()}
    return Rows(arrays, class_names, ids, tuple(notes))


def _numbers(cells: Sequence[str], comma: bool) -> NDArray[np.float64]:
    """Cells as numbers; ValueError for one that is none."""
    text = "\n".join(cells)
    # Python's float takes 1_000 and digits of other scripts.
    if "_" in text or not text.isascii() or (comma and "." in text):
        raise ValueError
    if comma:
        cells = [cell.replace(",", ".") for cell in cells]
    return np.fromiter(map(float, cells), np.float64, len(cells))


def _is_number(cell: str, comma: bool) -> bool:
    try:
        _numbers([cell], comma)
    except ValueError:
        return False
    return True


def _cells(cells: Sequence[str]) -> ColumnCells:
    if not any(cell.strip() for cell in cells):
        return ColumnCells("empty", len(cells))
    try:
        return ColumnCells.of_numbers(_numbers(cells, any("," in cell for cell in cells)))
    except ValueError:
        numeric = any(_is_number(cell, "," in cell) for cell in cells)
        # A number with a slip is no text: it is an error, not an id.
        near = any(_is_number(cell.replace("_", "").replace(",", ""), False) for cell in cells)
        return ColumnCells("mixed" if numeric or near else "text", len(cells))


def _decimal_comma(
    rows: Sequence[Sequence[str]], indices: Sequence[int], header: Sequence[str], name: str
) -> bool:
    """Whether numbers have decimal commas; InvalidInput if commas could separate thousands."""
    unclear: tuple[str, str] | None = None
    for index in indices:
        column = [row[index] for row in rows]
        if "," not in "\n".join(column):
            continue
        for cell in map(str.strip, column):
            if "," in cell:
                if THOUSANDS.fullmatch(cell) is None:
                    return True
                unclear = unclear or (cell, header[index])
    if unclear is not None:
        raise InvalidInput(
            f"{name} has commas in numbers, such as {unclear[0][:40]} in column "
            f"{unclear[1][:40]!r}, that could be decimal commas or separate thousands: write a "
            "decimal point and no other separator",
            field=name,
        )
    return False


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
    rows: list[list[str]],
    indices: Sequence[int],
    header: list[str],
    start: int,
    comma: bool,
    name: str,
    choice: ColumnChoice,
) -> InvalidInput:
    advice = choice.advice(
        "--id-column names a column that is no class", "leave out a column that is no class"
    )
    hint = "decimals have commas in other cells" if comma else "a number is written as -1234.5"
    for number, row in enumerate(rows, start):
        for index in indices:
            if not _is_number(row[index], comma):
                return InvalidInput(
                    f"{name} must have numbers in column {header[index][:40]!r}, row {number} has "
                    f"something else: {row[index][:40]!r} ({hint}; {advice})",
                    field=name,
                )
    return InvalidInput(f"{name} must have numbers in the classes' columns", field=name)
