"""`trueprob evaluate TEST.npz --calibrator calibrator.json`: scores a calibrator."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.calibrators import Calibrator, IdentityCalibrator, read_fitted_on
from trueprob.calibrators.document import parse_json
from trueprob.cli.files import (
    LABELLED_ROWS,
    add_columns,
    add_input,
    add_labels,
    add_split,
    column_choice,
    labels_file,
    names_of,
    read_calibration_set,
    read_calibrator,
)
from trueprob.cli.output import (
    add_strict,
    print_classes,
    print_findings,
    print_json,
    print_line,
    print_scores,
    score_document,
)
from trueprob.drift.reference_bins import ReferenceBins
from trueprob.findings.set_check import check_conditions, check_set
from trueprob.repository.baseline import Baseline
from trueprob.scores.classes import binary_score, class_scores
from trueprob.scores.score import score

__all__ = ["add_parser"]


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "evaluate",
        help="score a calibrator on labelled rows",
        description="Score the plain softmax on labelled rows and, if given, a calibrator. The ECE "
        "is printed with its noise floor: the ECE of a perfectly calibrated model on as many rows.",
    )
    parser.add_argument(
        "data",
        metavar="TEST.npz",
        help=f"{LABELLED_ROWS}; or an .npy, with the labels in a second .npy",
    )
    add_labels(parser)
    parser.add_argument(
        "--calibrator",
        metavar="calibrator.json",
        help="calibrator to score; default: only the plain softmax",
    )
    parser.add_argument(
        "--classes",
        action="store_true",
        help="also score each class: the rows that are predicted as it, and P(class) of all rows",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    add_strict(parser)
    add_input(parser)
    add_columns(parser)
    add_split(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    calibrator = gaps = None
    if arguments.calibrator is not None:
        calibrator = read_calibrator(arguments.calibrator)
        gaps = _reference_gaps(Path(arguments.calibrator))
    n_classes = None if calibrator is None else calibrator.n_classes
    class_names = None if calibrator is None else calibrator.class_names
    data = read_calibration_set(
        arguments.data,
        arguments.split,
        n_classes,
        class_names=class_names,
        numbers=arguments.input,
        labels=labels_file(arguments),
        columns=column_choice(arguments),
    )
    if calibrator is not None:
        data = calibrator.masked_set(data)
    before = _Evaluation(IdentityCalibrator(data.n_classes), data, arguments.classes)
    after = None if calibrator is None else _Evaluation(calibrator, data, arguments.classes)
    findings = check_set(data) + check_conditions(gaps, data)
    if arguments.json:
        print_json(
            {
                "n": data.n,
                "k": data.n_classes,
                "uncalibrated": before.to_dict(),
                "calibrated": None if after is None else after.to_dict(),
                "findings": [finding.to_dict() for finding in findings],
            }
        )
        return print_findings(findings, strict=arguments.strict)
    print_line(f"{data.n} rows, {data.n_classes} classes")
    columns = {"uncalibrated": before}
    if calibrator is not None and after is not None:
        columns[calibrator.id] = after
    print_scores(
        {title: each.scores for title, each in columns.items()},
        binary=[each.binary for each in columns.values()],
        class_name=before.names[1],
    )
    for title, each in columns.items():
        if arguments.classes:
            print_classes(each.classes, each.names, title)
    return print_findings(findings, strict=arguments.strict)


def _reference_gaps(path: Path) -> ReferenceBins | None:
    """Gaps of the rows that a calibrator was fitted on, from its document or its model version."""
    source = read_fitted_on(parse_json(path.read_bytes(), "calibrator"))
    beside = path.with_name("baseline.npz")  # documents of earlier versions have no gaps
    if source is None or source.gaps is not None or not beside.is_file():
        return None if source is None else source.gaps
    baseline = Baseline.load(beside)
    if baseline.n != source.n:
        return None
    return ReferenceBins.of_percentiles(baseline.gap_quantiles, baseline.n)


class _Evaluation:
    """The scores of one calibrator; those of each class if they are asked for."""

    def __init__(self, calibrator: Calibrator, data: CalibrationSet, by_class: bool) -> None:
        p, top = calibrator.predict_proba(data.logits), calibrator.prediction(data.logits)
        given = {"prediction": top, "weights": data.weights}
        self.names = names_of(data)
        self.scores = score(p, data.labels, **given)
        self.binary = binary_score(p, data.labels, **given)
        self.classes = class_scores(p, data.labels, **given) if by_class else ()

    def to_dict(self) -> dict[str, Any]:
        classes = [{"class_name": self.names[c.class_index]} | c.to_dict() for c in self.classes]
        document = score_document(self.scores, self.binary)
        return document | {"classes": classes} if classes else document
