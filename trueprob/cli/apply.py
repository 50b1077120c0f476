"""`trueprob apply calibrator.json LOGITS -o PROBS`: calibrated probabilities of new rows."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import numpy as np

from trueprob.cli.files import add_split, read_calibrator, read_logits, write_whole
from trueprob.cli.tables import print_json, print_line
from trueprob.errors import InvalidInput

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "apply",
        help="turn logits into calibrated probabilities",
        description="Turn logits into calibrated probabilities. An .npy output holds the "
        "probabilities; an .npz also prediction, confidence and temperature.",
    )
    parser.add_argument("calibrator", metavar="calibrator.json")
    parser.add_argument("data", metavar="LOGITS", help=".npy, or .npz with logits")
    parser.add_argument("-o", "--output", metavar="PROBS", required=True, help=".npy or .npz")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    add_split(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    suffix = Path(arguments.output).suffix
    if suffix not in (".npy", ".npz"):
        raise InvalidInput(
            f"output must end in .npy or .npz, got {arguments.output}", field="output"
        )
    calibrator = read_calibrator(arguments.calibrator)
    logits = read_logits(arguments.data, arguments.split, calibrator.n_classes)
    probabilities = calibrator.predict_proba(logits)
    buffer = io.BytesIO()
    if suffix == ".npy":
        np.save(buffer, probabilities, allow_pickle=False)
    else:
        predicted = calibrator.prediction(logits)
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "probabilities": probabilities,
            "prediction": predicted,
            "confidence": probabilities[np.arange(logits.shape[0]), predicted],
        }
        temperature = calibrator.temperature(logits)
        if temperature is not None:
            arrays["temperature"] = temperature
        np.savez(buffer, allow_pickle=False, **arrays)
    write_whole(arguments.output, buffer.getvalue())
    n, k = logits.shape
    if arguments.json:
        print_json({"probabilities": arguments.output, "calibrator": calibrator.id, "n": n, "k": k})
    else:
        print_line(f"{n} rows, {k} classes, written to {arguments.output}")
    return 0
