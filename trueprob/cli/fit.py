"""`trueprob fit CAL.npz -o calibrator.json`: fits a calibrator and prints its scores."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from trueprob.calibrators import FittedOn, dumps_calibrator
from trueprob.cli.files import (
    LABELLED_ROWS,
    add_columns,
    add_input,
    add_labels,
    add_masks,
    add_split,
    column_choice,
    labels_file,
    masks_of,
    names_of,
    read_calibration_set,
    write_atomically,
)
from trueprob.cli.output import (
    add_strict,
    print_candidates,
    print_findings,
    print_json,
    print_line,
    print_scores,
    score_document,
)
from trueprob.fitting.auto import SELECTIONS
from trueprob.fitting.fit import fit_calibration_set
from trueprob.fitting.methods import METHODS

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "fit",
        help="fit a calibrator",
        description="Fit a calibrator on labelled rows that the network was not trained on. The "
        "scores after the fit are out of fold: each row is scored by a calibrator that was "
        "fitted without it.",
    )
    parser.add_argument(
        "data",
        metavar="CAL.npz",
        help=f"{LABELLED_ROWS}; or an .npy, with the labels in a second .npy",
    )
    add_labels(parser)
    parser.add_argument(
        "--method", choices=METHODS, default="smart", help="calibration method; default: smart"
    )
    change = parser.add_mutually_exclusive_group()
    change.add_argument(
        "--keep-prediction",
        action="store_true",
        help="the prediction stays the argmax of the logits; default: with two classes smart may "
        "move the threshold, never the order of rows",
    )
    change.add_argument(
        "--allow-prediction-change",
        action="store_true",
        help="let the method auto choose a calibrator that may change predictions; default: no",
    )
    parser.add_argument(
        "--select",
        choices=SELECTIONS,
        default="stack",
        help="of the method auto: mix the candidates, or take the simplest that cross-validation "
        "cannot tell from the best; default: stack",
    )
    parser.add_argument(
        "-o", "--output", metavar="PATH", help="file to write the calibrator to; default: none"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="seed of the folds, and of methods that draw random numbers; default: 0",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    add_strict(parser)
    add_input(parser)
    add_masks(parser)
    add_columns(parser)
    add_split(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    data = read_calibration_set(
        arguments.data,
        arguments.split,
        None,
        numbers=arguments.input,
        labels=labels_file(arguments),
        columns=column_choice(arguments),
    )
    fitted = fit_calibration_set(
        data,
        arguments.method,
        seed=arguments.seed,
        keep_prediction=arguments.keep_prediction,
        allow_prediction_change=arguments.allow_prediction_change,
        select=arguments.select,
        masks=masks_of(arguments),
    )
    report, stage = fitted.report, fitted.calibrator.input_stage
    candidates = report.to_dict()["candidates"]
    if arguments.output is not None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        source = FittedOn.of(data, now, masks=fitted.calibrator.masks)
        write_atomically(arguments.output, dumps_calibrator(fitted.calibrator, source))
    if arguments.json:
        print_json(
            {
                "calibrator": arguments.output,
                "method": report.method,
                "outcome": str(report.outcome),
                "n": report.n,
                "k": report.k,
                "seconds": report.seconds,
                "scores": {
                    "before": score_document(report.before, report.binary_before),
                    "after": score_document(report.after, report.binary_after),
                },
                "findings": report.to_dict()["findings"],
                **({"candidates": candidates} if candidates else {}),
                **({} if stage is None else {"input_stage": stage.parameters()}),
            }
        )
    else:
        print_line(
            f"{fitted.calibrator.id}: {report.n} rows, {report.k} classes, "
            f"{report.seconds:.3f} s, {report.outcome}"
        )
        print_scores(
            {"before": report.before, "after (out of fold)": report.after},
            binary=[report.binary_before, report.binary_after],
            class_name=names_of(data)[1],
        )
        if report.candidates:
            print_candidates(report.candidates)
        for sentence in () if stage is None else stage.sentences():
            print_line(sentence)
        if arguments.output is not None:
            print_line(f"written to {arguments.output}")
    return print_findings(report.findings, strict=arguments.strict)
