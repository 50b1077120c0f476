"""`trueprob apply calibrator.json LOGITS -o PROBS`: computes calibrated probabilities."""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.class_names import class_order
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities
from trueprob.arrays.logits import as_logits
from trueprob.cli.files import (
    add_columns,
    add_input,
    add_split,
    column_choice,
    read_calibrator,
    read_logits,
    write_atomically,
)
from trueprob.cli.output import print_json, print_line
from trueprob.errors import InvalidInput
from trueprob.tables import ColumnChoice, array_of_ids, table_of_answers

__all__ = ["OrderedRows", "add_parser", "read_rows", "require_output", "write_answers"]

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "apply",
        help="turn logits into calibrated probabilities",
        description="Turn logits into calibrated probabilities. An .npy output holds the "
        "probabilities; an .npz also prediction, confidence, temperature, log_odds and, if known, "
        "class_names; .csv and .parquet have one line per row, with the columns prob_CLASS, "
        "prediction, class, confidence, temperature and log_odds. Methods without temperatures "
        "leave out temperature, and all but smart-binary log_odds. Where the rows and the "
        "calibrator both name their classes, columns are matched by name; the order of the "
        "output, and the index in prediction, are the rows'. "
        "Tables keep the ids of the rows, as their first columns, and an .npz as the array ids. "
        "--interval adds the columns (arrays) confidence_low and confidence_high, between which "
        "the probability of the prediction lies.",
    )
    parser.add_argument(
        "calibrator", metavar="calibrator.json", help="calibrator that 'trueprob fit' wrote"
    )
    parser.add_argument(
        "data", metavar="LOGITS", help="file with the rows: .npy, .npz, .csv or .parquet"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PROBS",
        required=True,
        help=f"file to write; its name ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}",
    )
    parser.add_argument(
        "--interval",
        type=float,
        metavar="LEVEL",
        help="add intervals of the confidence at this level, for instance 0.9; default: none",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    add_input(parser)
    add_columns(parser)
    add_split(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    require_output(arguments.output)
    if arguments.interval is not None and Path(arguments.output).suffix.lower() == ".npy":
        raise InvalidInput(
            f"--interval needs an output with columns, {', '.join(SUFFIXES[1:])}, "
            f"got {arguments.output}",
            field="output",
        )
    paths = [arguments.calibrator, arguments.data]
    if [Path(path).suffix.lower() == ".json" for path in paths] == [False, True]:
        paths.reverse()
    calibrator = read_calibrator(paths[0])
    rows = read_rows(
        paths[1],
        calibrator.n_classes,
        calibrator.class_names,
        split=arguments.split,
        numbers=arguments.input,
        columns=column_choice(arguments),
    )
    bounds: dict[str, NDArray[np.float64]] = {}
    if arguments.interval is not None:
        interval = calibrator.predict_interval(rows.logits, arguments.interval)
        bounds = {"confidence_low": interval.low, "confidence_high": interval.high}
    write_answers(
        arguments.output,
        rows,
        calibrator.predict_proba(rows.logits),
        calibrator.prediction(rows.logits),
        calibrator.temperature(rows.logits),
        log_odds=calibrator.log_odds(rows.logits),
        bounds=bounds,
    )
    n, k = rows.logits.shape
    if arguments.json:
        print_json({"probabilities": arguments.output, "calibrator": calibrator.id, "n": n, "k": k})
    else:
        print_line(f"{n} rows, {k} classes, written to {arguments.output}")
    return 0


@dataclass(frozen=True)
class OrderedRows:
    """Logits of a file in the order of a calibrator's classes."""

    logits: Logits
    order: NDArray[np.int64] | None  # column of the file for each class; None: the same order
    class_names: tuple[str, ...] | None  # of the file, or of the calibrator, in the file's order
    ids: Mapping[str, Sequence[Any]]  # columns of the file that are ids


def require_output(path: str) -> None:
    """InvalidInput if answers cannot be written to a file of this name."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise InvalidInput(f"output must end in {', '.join(SUFFIXES)}, got {path}", field="output")


def read_rows(
    path: str,
    n_classes: int,
    class_names: tuple[str, ...] | None,
    *,
    split: str | None,
    numbers: str | None,
    columns: ColumnChoice | None = None,
) -> OrderedRows:
    """Read logits, and match their columns by name if both sides have names."""
    given, rows = read_logits(
        path, split, numbers=numbers, columns=columns, class_names=class_names
    )
    names = rows.class_names
    order = None
    if names is not None and class_names is not None:
        order = class_order(names, class_names, name=f"classes of {path}")
    logits = as_logits(given if order is None else given[:, order], n_classes=n_classes)
    return OrderedRows(logits, order, class_names if names is None else names, rows.ids)


def write_answers(
    path: str,
    rows: OrderedRows,
    probabilities: Probabilities,
    predicted: Labels,
    temperature: NDArray[np.float64] | None,
    *,
    log_odds: NDArray[np.float64] | None = None,
    bounds: Mapping[str, NDArray[np.float64]] = MappingProxyType({}),
) -> None:
    """Write predictions for rows, with the classes in the order of the rows' file."""
    if rows.order is not None:
        probabilities = np.ascontiguousarray(probabilities[:, np.argsort(rows.order)])
        predicted = rows.order[predicted]
        if log_odds is not None and rows.order[0] != 0:
            log_odds = -log_odds  # of the second column of the output
    suffix = Path(path).suffix.lower()
    if suffix in (".csv", ".parquet"):
        content = table_of_answers(
            suffix,
            probabilities,
            predicted,
            temperature,
            rows.class_names,
            log_odds=log_odds,
            bounds=bounds,
            ids=rows.ids,
        )
    else:
        buffer = io.BytesIO()
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "probabilities": probabilities,
            "prediction": predicted,
            "confidence": probabilities[np.arange(len(predicted)), predicted],
        }
        if temperature is not None:
            arrays["temperature"] = temperature
        if log_odds is not None:
            arrays["log_odds"] = log_odds
        arrays |= bounds
        if rows.ids:
            arrays |= {"ids": array_of_ids(rows.ids), "id_columns": np.array([*rows.ids])}
        if rows.class_names is not None:
            arrays["class_names"] = np.array(rows.class_names)
        if suffix == ".npy":
            np.save(buffer, probabilities, allow_pickle=False)
        else:
            np.savez(buffer, allow_pickle=False, **arrays)
        content = buffer.getvalue()
    write_atomically(path, content)
