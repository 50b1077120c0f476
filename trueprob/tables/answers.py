"""Writes predictions as a table, with a column `prob_<class>` for each class.

The other columns are prediction, class, confidence and, for methods that have them, temperature and
log_odds; then the bounds of the confidence, if they were asked for.
`evaluate` and `fit` read such a table again if you add a column `label`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Probabilities
from trueprob.tables.parquet_file import require_pyarrow

__all__ = ["table_of_answers"]

PIECE_CELLS: Final = 1 << 20  # cells converted at a time
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

    Returns
    -------
    bytes
        The content of the file.

    Raises
    ------
    InvalidInput
        The suffix is `.parquet` and pyarrow is not installed.
    """
    n, k = probabilities.shape
    names = list(class_names) if class_names is not None else [str(i) for i in range(k)]
    confidence = probabilities[np.arange(n), predicted]
    columns = [f"prob_{name}" for name in names]
    given = {"temperature": temperature, "log_odds": log_odds}
    optional = {name: column for name, column in given.items() if column is not None}
    optional |= bounds
    if suffix == ".parquet":
        require_pyarrow(suffix)
        return _parquet(
            dict(zip(columns, np.ascontiguousarray(probabilities.T), strict=True))
            | {
                "prediction": predicted,
                "class": np.array(names, dtype=object)[predicted],
                "confidence": confidence,
            }
            | optional
        )
    header = [*columns, "prediction", "class", "confidence", *optional]
    formats = [EXACT] * k + ["%d", "%s", EXACT] + ["%r"] * len(optional)
    line = ",".join(formats) + "\n"
    quoted = [_csv_line([name]).rstrip("\n") for name in names]
    text = io.StringIO()
    text.write(_csv_line(header))
    last_columns = np.stack([*optional.values()], axis=1) if optional else np.empty((n, 0))
    step = max(1, PIECE_CELLS // k)
    last_columns = np.stack([*optional.values()], axis=1) if optional else np.empty((n, 0))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        tops = predicted[rows].tolist()
        cells: list[Any] = [probabilities[rows].tolist(), tops, confidence[rows].tolist()]
        cells.append(last_columns[rows].tolist())
        for row, top, confident, last in zip(*cells, strict=True):
            text.write(line % (*row, top, quoted[top], confident, *last))
    return text.getvalue().encode()


def _csv_line(cells: Sequence[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _parquet(columns: dict[str, NDArray[Any]]) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content
