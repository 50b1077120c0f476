"""Reads a `.parquet` with pyarrow (extra `cli`), with the column names of `columns`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidInput
from trueprob.tables.columns import EXTRAS, PREFIXES, Columns, Rows, group_values, label_values

__all__ = ["read_parquet", "require_pyarrow"]


def require_pyarrow(name: str) -> None:
    """Raise InvalidInput that names the extra, if pyarrow is not installed."""
    try:
        import pyarrow as pa  # noqa: F401
    except ModuleNotFoundError:
        raise InvalidInput(
            f"{name} needs pyarrow, which is not installed: pip install 'trueprob[cli]'",
            field=name,
        ) from None


def read_parquet(path: str | os.PathLike[str], *, name: str = "file") -> Rows:
    """Read a `.parquet`.

    Parameters
    ----------
    path : path
    name : str
        Name of the file in error messages.

    Returns
    -------
    Rows
        Numbers in the type of the file.

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
    lists = [column for column in PREFIXES.values() if header.count(column) == 1]
    arrays: dict[str, Any] = {}
    class_names = None
    if lists:
        extras = {EXTRAS[c]: i for i, c in enumerate(header) if c in EXTRAS}
        for column in lists:
            arrays[column] = _lists(table.column(column), f"column {column} of {name}")
    else:
        columns = Columns.of(header, name)
        extras, class_names = dict(columns.extras), columns.class_names
        numbers = [
            _numbers(table.column(i), f"column {header[i][:40]!r} of {name}")
            for i in columns.class_indices
        ]
        arrays[columns.numbers] = np.stack(numbers, axis=1)
    if "labels" in extras:
        values = table.column(extras["labels"]).to_pylist()
        arrays["labels"] = label_values(values, class_names, name)
    if "weights" in extras:
        arrays["weights"] = _numbers(table.column(extras["weights"]), f"column weight of {name}")
    if "groups" in extras:
        arrays["groups"] = group_values(table.column(extras["groups"]).to_pylist())
    return Rows(arrays, class_names)


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
