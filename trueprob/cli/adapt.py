"""`trueprob adapt CALIBRATOR --labelled CAL.npz --traffic TRAFFIC.npz`: another mix of classes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.calibrators import Calibrator, IdentityCalibrator, read_fitted_on
from trueprob.calibrators.document import parse_json
from trueprob.cli.apply import SUFFIXES, read_rows, require_output, write_answers
from trueprob.cli.files import (
    LABELLED_ROWS,
    SPLITS,
    add_columns,
    add_input,
    column_choice,
    names_of,
    read_calibration_set,
    read_calibrator,
)
from trueprob.cli.output import print_json, print_line, print_mix
from trueprob.errors import InvalidInput
from trueprob.label_shift.label_shift_check import LabelShift, check_label_shift

__all__ = ["add_parser"]

UNCALIBRATED = "-"


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "adapt",
        help="say whether traffic has another mix of classes, and adapt probabilities to it",
        description="Estimate the mix of classes of traffic without labels, and say whether "
        "adapting to it is advised. That needs three things: the mix changed, nothing else "
        "did, and on labelled rows with the new mix adapting lowers the NLL. The calibrator "
        "should be calibrated for each class (vector, smart-vector, smart-matrix, or auto with "
        "--allow-prediction-change). It is not changed. Exit code 1: not advised.",
    )
    parser.add_argument(
        "calibrator",
        metavar="CALIBRATOR",
        help=f"calibrator.json that 'trueprob fit' wrote; {UNCALIBRATED} is the plain softmax",
    )
    parser.add_argument(
        "--labelled",
        metavar="CAL.npz",
        required=True,
        help=f"rows with the old mix that the calibrator was not fitted on: {LABELLED_ROWS}",
    )
    parser.add_argument(
        "--traffic",
        metavar="TRAFFIC.npz",
        required=True,
        help="recent rows without labels: .npy, .npz, .csv or .parquet; labels are ignored",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="PROBS",
        help="if adapting is advised, file to write the adapted probabilities of the traffic to; "
        f"its name ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}; default: none",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the resamples; default: 0"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    add_input(parser)
    add_columns(parser)
    for option, file in (("--split", "the labelled file"), ("--traffic-split", "the traffic")):
        parser.add_argument(
            option,
            choices=SPLITS,
            help=f"if {file} is an .npz that holds several splits, read this one; default: names "
            "without a prefix",
        )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; the exit code is 1 if adapting is not advised."""
    if arguments.output is not None:
        require_output(arguments.output)
    calibrator = None
    if arguments.calibrator != UNCALIBRATED:
        calibrator = read_calibrator(arguments.calibrator)
    labelled = read_calibration_set(
        arguments.labelled,
        arguments.split,
        None if calibrator is None else calibrator.n_classes,
        class_names=None if calibrator is None else calibrator.class_names,
        numbers=arguments.input,
        columns=column_choice(arguments),
    )
    if calibrator is None:
        calibrator = IdentityCalibrator(labelled.n_classes)
    else:
        _require_unseen(Path(arguments.calibrator), arguments.labelled, labelled)
        labelled = calibrator.masked_set(labelled)
    traffic = read_rows(
        arguments.traffic,
        labelled.n_classes,
        labelled.class_names,
        split=arguments.traffic_split,
        numbers=arguments.input,
    )
    probabilities = calibrator.predict_proba(traffic.logits)
    found = check_label_shift(
        calibrator.predict_proba(labelled.logits),
        labelled.labels,
        probabilities,
        weights=labelled.weights,
        groups=labelled.groups,
        seed=arguments.seed,
    )
    written = arguments.output if found.advised else None
    if written is not None:
        adapted = found.adapt(probabilities).astype(np.float32)
        predicted = adapted.argmax(axis=1).astype(np.int64)
        write_answers(written, traffic, adapted, predicted, None)
    names = names_of(labelled)
    if arguments.json:
        print_json(
            {
                "calibrator": calibrator.id,
                "n": labelled.n,
                "k": labelled.n_classes,
                **found.to_dict(),
                "class_names": list(names),
                "probabilities": written,
            }
        )
    else:
        print_mix(found, names)
        print_line(_advice(found, calibrator))
        if arguments.output is not None:
            print_line(f"written to {written}" if written else "nothing written")
    return 0 if found.advised else 1


def _require_unseen(path: Path, name: str, labelled: CalibrationSet) -> None:
    """InvalidInput if the calibrator was fitted on the labelled rows."""
    source = read_fitted_on(parse_json(path.read_bytes(), "calibrator"))
    if source is not None and source.digest == labelled.digest:
        raise InvalidInput(
            f"labelled must be rows that the calibrator was not fitted on, but {name} is the set "
            f"that {path} was fitted on: keep some rows back from the fit",
            field="labelled",
        )


def _advice(found: LabelShift, calibrator: Calibrator) -> str:
    if found.advised:
        return "adapting is advised"
    one_map = calibrator.preserves_prediction and not found.checks[1].passed
    return "adapting is not advised" + (
        f"; {calibrator.kind} has one map for all classes: try vector, smart-vector, smart-matrix, "
        "or auto with --allow-prediction-change"
        if one_map
        else ""
    )
