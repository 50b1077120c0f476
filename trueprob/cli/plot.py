"""`trueprob plot TEST.npz --calibrator calibrator.json -o diagram.svg`: reliability diagrams."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.calibrators import Calibrator, IdentityCalibrator
from trueprob.cli.files import (
    LABELLED_ROWS,
    UnusableFile,
    add_columns,
    add_input,
    add_split,
    column_choice,
    read_calibration_set,
    read_calibrator,
    write_atomically,
)
from trueprob.cli.output import print_json, print_line, score_document
from trueprob.diagram import Panel, png, svg
from trueprob.errors import InvalidInput

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "plot",
        help="draw a reliability diagram",
        description="Draw a reliability diagram of the plain softmax on labelled rows, and one of "
        "a calibrator beside it.",
    )
    parser.add_argument("data", metavar="TEST.npz", help=LABELLED_ROWS)
    parser.add_argument(
        "--calibrator",
        metavar="calibrator.json",
        help="calibrator to draw; default: only the plain softmax",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIAGRAM",
        required=True,
        help="file to write; its name ends in .svg, or in .png (extra plots)",
    )
    parser.add_argument("--title", help="title of the diagram; default: the name of the data file")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    add_input(parser)
    add_columns(parser)
    add_split(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    suffix = Path(arguments.output).suffix
    if suffix not in (".svg", ".png"):
        raise InvalidInput(
            f"output must end in .svg or .png, got {arguments.output}", field="output"
        )
    calibrator = None
    if arguments.calibrator is not None:
        calibrator = read_calibrator(arguments.calibrator)
    n_classes = None if calibrator is None else calibrator.n_classes
    class_names = None if calibrator is None else calibrator.class_names
    data = read_calibration_set(
        arguments.data,
        arguments.split,
        n_classes,
        class_names=class_names,
        numbers=arguments.input,
        columns=column_choice(arguments),
    )
    if calibrator is not None:
        data = calibrator.masked_set(data)
    before = _panel("uncalibrated", IdentityCalibrator(data.n_classes), data)
    after = None if calibrator is None else _panel(calibrator.id, calibrator, data)
    panels = [before] if after is None else [before, after]
    title = Path(arguments.data).name if arguments.title is None else arguments.title
    write_atomically(arguments.output, _diagram(panels, title, suffix))
    if arguments.json:
        print_json(
            {
                "diagram": arguments.output,
                "n": data.n,
                "k": data.n_classes,
                "uncalibrated": score_document(before.scores),
                "calibrated": None if after is None else score_document(after.scores),
            }
        )
        return 0
    for panel in panels:
        print_line(
            f"{panel.title}: ECE {100 * panel.scores.ece:.2f} % "
            f"(floor {100 * panel.scores.ece_floor:.2f} %), {panel.n_outside} of "
            f"{len(panel.bins)} bins outside the band of a calibrated model"
        )
    print_line(f"{data.n} rows, {data.n_classes} classes, written to {arguments.output}")
    return 0


def _panel(title: str, calibrator: Calibrator, data: CalibrationSet) -> Panel:
    return Panel.of(
        title,
        calibrator.predict_proba(data.logits),
        data.labels,
        prediction=calibrator.prediction(data.logits),
        weights=data.weights,
    )


def _diagram(panels: list[Panel], title: str, suffix: str) -> bytes:
    if suffix == ".svg":
        return svg(panels, title=title).encode()
    try:
        return png(panels, title=title)
    except ModuleNotFoundError as error:
        raise UnusableFile(
            f"a .png needs {error.name}: pip install 'trueprob[plots]', or write an .svg"
        ) from None
