"""`trueprob apply calibrator.json LOGITS -o PROBS`: computes calibrated probabilities."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.class_names import class_order
from trueprob.arrays.logits import as_logits
from trueprob.cli.files import add_input, add_split, read_calibrator, read_logits, write_atomically
from trueprob.cli.output import print_json, print_line
from trueprob.errors import InvalidInput
from trueprob.tables import table_of_answers

__all__ = ["add_parser"]

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "apply",
        help="turn logits into calibrated probabilities",
        description="Turn logits into calibrated probabilities. An .npy output holds the "
        "probabilities; an .npz also prediction, confidence, temperature and, if known, "
        "class_names; .csv and .parquet have one line per row, with the columns prob_CLASS, "
        "prediction, class, confidence and temperature. Methods without temperatures leave out "
        "temperature. Where the rows and the calibrator both name their classes, columns are "
        "matched by name; the order of the output, and the index in prediction, are the rows'. "
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
    add_split(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    suffix = Path(arguments.output).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(
            f"output must end in {', '.join(SUFFIXES)}, got {arguments.output}", field="output"
        )
    if arguments.interval is not None and suffix == ".npy":
        raise InvalidInput(
            f"--interval needs an output with columns, {', '.join(SUFFIXES[1:])}, "
            f"got {arguments.output}",
            field="output",
        )
    calibrator = read_calibrator(arguments.calibrator)
    given, names = read_logits(arguments.data, arguments.split, numbers=arguments.input)
    order = None
    if names is not None and calibrator.class_names is not None:
        order = class_order(names, calibrator.class_names, name=f"classes of {arguments.data}")
    logits = as_logits(given if order is None else given[:, order], n_classes=calibrator.n_classes)
    probabilities = calibrator.predict_proba(logits)
    predicted = calibrator.prediction(logits)
    if order is not None:
        probabilities = np.ascontiguousarray(probabilities[:, np.argsort(order)])
        predicted = order[predicted]
    class_names = calibrator.class_names if names is None else names
    temperature = calibrator.temperature(logits)
    bounds: dict[str, NDArray[np.float64]] = {}
    if arguments.interval is not None:
        interval = calibrator.predict_interval(logits, arguments.interval)
        bounds = {"confidence_low": interval.low, "confidence_high": interval.high}
    if suffix in (".csv", ".parquet"):
        content = table_of_answers(
            suffix, probabilities, predicted, temperature, class_names, bounds=bounds
        )
    else:
        buffer = io.BytesIO()
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "probabilities": probabilities,
            "prediction": predicted,
            "confidence": probabilities[np.arange(logits.shape[0]), predicted],
        }
        if temperature is not None:
            arrays["temperature"] = temperature
        arrays |= bounds
        if class_names is not None:
            arrays["class_names"] = np.array(class_names)
        if suffix == ".npy":
            np.save(buffer, probabilities, allow_pickle=False)
        else:
            np.savez(buffer, allow_pickle=False, **arrays)
        content = buffer.getvalue()
    write_atomically(arguments.output, content)
    n, k = logits.shape
    if arguments.json:
        print_json({"probabilities": arguments.output, "calibrator": calibrator.id, "n": n, "k": k})
    else:
        print_line(f"{n} rows, {k} classes, written to {arguments.output}")
    return 0
