"""Reads a `.parquet` with pyarrow (extra `cli`), with the column names of `columns`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidInput
from trueprob.tables.columns import (
    PREFIXES,
    SAMPLE,
    ColumnCells,
    ColumnChoice,
    Columns,
    Rows,
    find_extras,
    find_ids,
    group_values,
    label_values,
)
from trueprob.tables.one_score import two_columns

__all__ = ["open_parquet", "read_parquet", "require_pyarrow"]


def require_pyarrow(name: str) -> None:
    """Raise InvalidInput that names the extra, if pyarrow is not installed."""
    try:
        import pyarrow as pa  # noqa: F401
    except ModuleNotFoundError:
        raise InvalidInput(
            f"{name} needs pyarrow, which is not installed: pip install 'trueprob[cli]'",
            field=name,
        ) from None


@contextmanager
def open_parquet(
    path: str | os.PathLike[str], *, name: str = "file"
) -> Iterator[tuple[list[str], Callable[[Sequence[str]], Iterator[tuple[Any, ...]]]]]:
    """Open a table that is larger than memory may be: its columns, and a reader of their rows.

    Parameters
    ----------
    path : path
    name : str
        Of the file, for errors.

    Yields
    ------
    tuple of list of str and callable
        Names of the columns, and ``rows(columns)``, an iterator of tuples.

    Raises
    ------
    InvalidInput
        It is not a `.parquet` file, or pyarrow is not installed.
    """
    require_pyarrow(name)
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path)
    except pa.ArrowException:
        raise InvalidInput(f"{name} is not a .parquet file", field="file") from None

    def rows(columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        for batch in file.iter_batches(columns=list(columns)):
            yield from zip(*(batch.column(each).to_pylist() for each in columns), strict=True)

    with file:
        yield list(file.schema_arrow.names), rows


def read_parquet(
    path: str | os.PathLike[str],
    *,
    name: str = "file",
    choice: ColumnChoice = ColumnChoice(),  # noqa: B008
) -> Rows:
    """Read a `.parquet`.

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
        Numbers in the type of the file; two columns made of one are float64.

    Raises
    ------
    InvalidInput
        pyarrow is not installed, the file cannot be read, a column has nulls or is not numeric,
        or lists differ in length.
    """
    require_pyarrow(name)
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(os.fspath(path), partitioning=None)
    except pa.ArrowException:
        raise InvalidInput(f"{name} is a damaged .parquet file", field=name) from None
    except OSError as error:
        reason = error.strerror or "it is a damaged .parquet file"
        raise InvalidInput(f"{name} cannot be read: {reason}", field=name) from None
    header = table.column_names

    def described(index: int) -> ColumnCells:
        return _cells(table.column(index).slice(0, SAMPLE))

    lists = [column for column in PREFIXES.values() if header.count(column) == 1]
    arrays: dict[str, Any] = {}
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    labels = found = None
    if lists:
        extras = find_extras(header, name, choice)
        ids = find_ids(header, described, name, choice)
        for column in lists:
            arrays[column] = _lists(table.column(column), f"column {column} of {name}")
    else:
        columns = Columns.of(header, described, name, choice)
        extras, class_names = dict(columns.extras), columns.class_names
        ids, notes = dict(columns.ids), columns.notes
        numbers = [
            _numbers(table.column(i), f"column {header[i][:40]!r} of {name}")
            for i in columns.class_indices
        ]
        arrays[columns.numbers] = np.stack(numbers, axis=1)
    if "labels" in extras:
        labels = table.column(extras["labels"]).to_pylist()
    if not lists and len(columns.class_indices) == 1:
        scores = arrays.pop(columns.numbers)[:, 0]
        kind, values, class_names, found, note = two_columns(columns, scores, labels, choice, name)
        arrays[kind] = values
        notes = (*notes, note)
    elif labels is not None:
        found = label_values(labels, class_names, name)
    if found is not None:
        arrays["labels"] = found
    if "weights" in extras:
        arrays["weights"] = _numbers(table.column(extras["weights"]), f"column weight of {name}")
    if "groups" in extras:
        arrays["groups"] = group_values(table.column(extras["groups"]).to_pylist())
    kept = {column: table.column(index).to_pylist() for column, index in ids.items()}
    return Rows(arrays, class_names, kept, notes)


def _cells(column: Any) -> ColumnCells:
    from pyarrow import types

    kind = column.type
    if column.null_count == len(column):
        return ColumnCells("empty", len(column))
    if types.is_integer(kind) or types.is_floating(kind):
        return ColumnCells.of_numbers(column.drop_null().to_numpy())
    # Decimals are numbers of a type that `_numbers` refuses, not ids.
    return ColumnCells("real" if types.is_decimal(kind) else "text", len(column))


def _lists(column: Any, what: str) -> NDArray[Any]:
    """A column of lists of equal length, as a matrix."""
    from pyarrow import types

    column = column.combine_chunks()
    kind = column.type
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        raise InvalidInput(f"{what} must hold lists of numbers, got {kind}", field="file")
    if column.null_count:
        raise InvalidInput(f"{what} must not have nulls", field="file")
    lengths = set(column.value_lengths().to_pylist())
    if len(lengths) > 1:
        raise InvalidInput(f"{what} must hold lists of equal length", field="file")
    flat = _numbers(column.flatten(), what)
    return flat.reshape(len(column), lengths.pop() if lengths else 0)


def _numbers(column: Any, what: str) -> NDArray[Any]:
    from pyarrow import types

    kind = column.type
    if not (types.is_integer(kind) or types.is_floating(kind)):
        raise InvalidInput(f"{what} must hold numbers, got {kind}", field="file")
    if column.null_count:
        raise InvalidInput(f"{what} must not have nulls", field="file")
    return np.asarray(column.to_numpy())
