"""Writes predictions as a table, with a column `prob_<class>` for each class.

Ids come first. The other columns are prediction, class, confidence and, for methods that have
them, temperature and log_odds; then the bounds of the confidence, if they were asked for.
`evaluate` and `fit` read such a table again if you add a column `label`.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Probabilities
from trueprob.errors import InvalidInput
from trueprob.tables.parquet_file import require_pyarrow

__all__ = ["array_of_ids", "table_of_answers"]

PIECE_CELLS: Final = 1 << 20  # cells converted at a time
WHOLE: Final = re.compile("-?[0-9]{1,18}")  # fits in int64
EXACT: Final = "%.9g"  # nine digits distinguish any two float32


def table_of_answers(
    suffix: str,
    probabilities: Probabilities,
    predicted: Labels,
    temperature: NDArray[np.float64] | None,
    class_names: Sequence[str] | None,
    *,
    log_odds: NDArray[np.float64] | None = None,
    bounds: Mapping[str, NDArray[np.float64]] = MappingProxyType({}),
    ids: Mapping[str, Sequence[Any]] = MappingProxyType({}),
) -> bytes:
    """Encode predictions as a `.csv` or `.parquet` file.

    Parameters
    ----------
    suffix : {".csv", ".parquet"}
        The format.
    probabilities : ndarray of shape (n, k), float32
        Written so that reading gives the same bits.
    predicted : ndarray of shape (n,), int64
        Class indices.
    temperature : ndarray of shape (n,), float64, or None
        None leaves out the column.
    class_names : sequence of k strings, or None
        None stands for 0 … k − 1.
    log_odds : ndarray of shape (n,), float64, or None
        log P(1) − log P(0), in nats; None leaves out the column.
    bounds : mapping of name to ndarray of shape (n,), float64
        More columns, written last.
    ids : mapping of name to sequence of n values
        Written first. In a `.parquet`, texts that are all integers become integers.

    Returns
    -------
    bytes
        The content of the file.

    Raises
    ------
    InvalidInput
        The suffix is `.parquet` and pyarrow is not installed, or an id has the name of another
        column.
    """
    n, k = probabilities.shape
    names = list(class_names) if class_names is not None else [str(i) for i in range(k)]
    confidence = probabilities[np.arange(n), predicted]
    columns = [f"prob_{name}" for name in names]
    given = {"temperature": temperature, "log_odds": log_odds}
    optional = {name: column for name, column in given.items() if column is not None}
    optional |= bounds
    for column in (*columns, "prediction", "class", "confidence", *optional):
        if column in ids:
            raise InvalidInput(
                f"the output has a column {column[:40]!r} already: rename that of the ids",
                field="id_column",
            )
    if suffix == ".parquet":
        require_pyarrow(suffix)
        return _parquet(
            {name: _typed(values) for name, values in ids.items()}
            | dict(zip(columns, np.ascontiguousarray(probabilities.T), strict=True))
            | {
                "prediction": predicted,
                "class": np.array(names, dtype=object)[predicted],
                "confidence": confidence,
            }
            | optional
        )
    header = [*ids, *columns, "prediction", "class", "confidence", *optional]
    formats = [EXACT] * k + ["%d", "%s", EXACT] + ["%r"] * len(optional)
    line = ",".join(["%s"] * bool(ids) + formats) + "\n"
    quoted = [_csv_line([name]).rstrip("\n") for name in names]
    text = io.StringIO()
    text.write(_csv_line(header))
    step = max(1, PIECE_CELLS // k)
    last_columns = np.stack([*optional.values()], axis=1) if optional else np.empty((n, 0))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        tops = predicted[rows].tolist()
        cells: list[Any] = [probabilities[rows].tolist(), tops, confidence[rows].tolist()]
        cells.append(last_columns[rows].tolist())
        cells.append(_id_cells(ids, rows) if ids else [()] * len(tops))
        for row, top, confident, last, first in zip(*cells, strict=True):
            text.write(line % (*first, *row, top, quoted[top], confident, *last))
    return text.getvalue().encode()


def array_of_ids(ids: Mapping[str, Sequence[Any]]) -> NDArray[Any]:
    """The ids of n rows as an array, for an `.npz`.

    Parameters
    ----------
    ids : mapping of name to sequence of n values
        At least one.

    Returns
    -------
    ndarray of shape (n,), or (n, m) for m > 1 columns of ids
        Integers if all columns hold integers, also as texts that writing them gives again; else
        texts. An id that is missing is an empty text.
    """
    typed = [_typed(values) for values in ids.values()]
    columns = [np.array(column) for column in typed if all(map(_is_integer, column))]
    # Integers beyond int64 and uint64 become objects, which an .npz cannot have.
    if len(columns) < len(typed) or len({c.dtype for c in columns} - {np.dtype(object)}) != 1:
        texts = (["" if value is None else str(value) for value in each] for each in ids.values())
        columns = [np.array(each, dtype=np.str_) for each in texts]
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _id_cells(ids: Mapping[str, Sequence[Any]], rows: slice) -> list[tuple[str]]:
    """The cells of the ids of each row, quoted and joined."""
    given = zip(*(values[rows] for values in ids.values()), strict=True)
    texts = (["" if value is None else str(value) for value in row] for row in given)
    # The line of one empty cell is "".
    return [(_csv_line(row).rstrip("\n"),) for row in texts]


def _typed(values: Sequence[Any]) -> Sequence[Any] | NDArray[np.int64]:
    """Texts of integers as integers, if writing these gives the same texts."""
    if not all(isinstance(v, str) and WHOLE.fullmatch(v) for v in values):
        return values
    numbers = [int(value) for value in values]
    return np.array(numbers) if [*map(str, numbers)] == list(values) else values


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _parquet(columns: dict[str, Any]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content
