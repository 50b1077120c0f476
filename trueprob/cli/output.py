"""Output of the commands: a JSON document, or a table of scores."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from trueprob.arrays.class_names import shown
from trueprob.findings.finding import Finding, Severity
from trueprob.fitting.report import CandidateScore
from trueprob.scores.classes import ClassScore
from trueprob.scores.score import Scores

if TYPE_CHECKING:
    from trueprob.client import FindingSummary
    from trueprob.label_shift.label_shift_check import LabelShift

__all__ = [
    "add_strict",
    "print_candidates",
    "print_classes",
    "print_findings",
    "print_json",
    "print_line",
    "print_mix",
    "print_scores",
    "score_document",
]

# score → heading, factor, decimals, unit
COLUMNS = {
    "accuracy": ("accuracy", 100, 2, "%"),
    "ece": ("ECE", 100, 2, "%"),
    "ece_floor": ("ECE floor", 100, 2, "%"),
    "adaptive_ece": ("adaptive ECE", 100, 2, "%"),
    "classwise_ece": ("classwise ECE", 100, 3, "%"),
    "mce": ("MCE", 100, 2, "%"),
    "nll": ("NLL", 1, 4, "nats"),
    "brier": ("Brier", 1, 4, ""),
    "auroc": ("AUROC", 1, 4, ""),
}
BINARY_COLUMNS = {"ece": "ECE of P({})", "probability": "mean P({})", "frequency": "share of {}"}
MOST_CLASSES = 20  # in a printed table


def score_document(scores: Scores, binary: ClassScore | None = None) -> dict[str, Any]:
    """Scores as JSON, in fractions and nats, without the number of rows."""
    document = {name: value for name, value in scores.to_dict().items() if name != "n"}
    return document if binary is None else document | {"binary": binary.to_dict()}


def print_json(document: Mapping[str, Any]) -> None:
    """Print a JSON document on one line."""
    print_line(json.dumps(document, allow_nan=False, ensure_ascii=False))


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Print a line on standard output, or on another stream."""
    (stream or sys.stdout).write(text + "\n")


def add_strict(parser: argparse.ArgumentParser) -> None:
    """Add --strict, which turns some findings into an exit code."""
    parser.add_argument(
        "--strict",
        action="store_true",
        help="exit with 1 when a finding says that the rows are very likely wrong (hold) or that "
        "the calibrator was fitted under other conditions (conditions_differ); default: 0",
    )


def print_findings(findings: Iterable[Finding | FindingSummary], *, strict: bool) -> int:
    """Print findings on standard error, and return the exit code."""
    code = 0
    for finding in findings:
        holds = finding.severity == Severity.HOLD
        print_line(f"trueprob: {'hold' if holds else 'warning'}: {finding}", sys.stderr)
        code = max(code, int(strict and (holds or finding.code == "conditions_differ")))
    return code


def print_scores(
    scores: Mapping[str, Scores],
    stream: TextIO | None = None,
    *,
    binary: Sequence[ClassScore | None] = (),  # of each predictor, with two classes
    class_name: str = "1",  # of class 1
) -> None:
    """Print a table with a row for each score and a column for each predictor.

    On a terminal rich draws it, if installed; otherwise it is aligned text.
    """
    stream = stream or sys.stdout
    values = {title: asdict(value) for title, value in scores.items()}
    header = ["score", *scores]
    rows = []
    for name, (heading, factor, decimals, unit) in COLUMNS.items():
        cells = [_cell(column[name], factor, decimals, unit) for column in values.values()]
        rows.append([heading, *cells])
    class_1 = [asdict(each) for each in binary if each is not None]
    for name, heading in BINARY_COLUMNS.items() if class_1 else ():
        cells = [_cell(column[name], 100, 2, "%") for column in class_1]
        rows.append([heading.format(shown([class_name])), *cells])
    _print_table(header, rows, stream)


def print_classes(classes: Sequence[ClassScore], names: Sequence[str], title: str) -> None:
    """Print a table of the worst classes."""
    more = len(classes) - MOST_CLASSES
    print_line(f"{title}: classes, the worst first" + (f", {more} left out" if more > 0 else ""))
    header = ["class", "predicted", "confidence", "right", "gap", "mean P(class)", "share of class"]
    rows = []
    for each in classes[:MOST_CLASSES]:
        shares = each.confidence, each.accuracy, each.gap, each.probability, each.frequency
        cells = [_cell(share, 100, 2, "%") for share in shares]
        rows.append([shown([names[each.class_index]]), str(each.n), *cells])
    _print_table(header, rows, sys.stdout)


def print_mix(found: LabelShift, names: Sequence[str]) -> None:
    """Print the classes whose shares changed most, and the checks."""
    prior = found.prior
    print_line(
        f"{found.labelled_rows} labelled rows, worth {found.effective_rows:.0f} with the new mix; "
        f"{found.traffic_rows} rows of traffic; {prior.iterations} steps of EM"
        + ("" if prior.converged else ", not converged")
    )
    rows = [
        [
            shown([names[index]]),
            _cell(prior.source[index], 100, 2, "%"),
            _cell(prior.target[index], 100, 2, "%"),
        ]
        for index in found.changed_classes()
    ]
    _print_table(["class", "old mix", "new mix"], rows, sys.stdout)
    for check in found.checks:
        print_line(f"{'yes' if check.passed else 'no'}: {check.sentence}")


def print_candidates(candidates: Iterable[CandidateScore]) -> None:
    """Print the candidates of `auto`: held-out NLL, distance from the best, weight."""
    header = ["candidate", "NLL", "standard error", "behind the best", "standard error", "weight"]
    rows = [
        [
            candidate.method,
            f"{candidate.nll:.4f} nats",
            f"{candidate.standard_error:.4f}",
            f"{candidate.behind:.4f}",
            f"{candidate.behind_standard_error:.4f}",
            _cell(candidate.weight, 100, 0, "%") if candidate.weight else "",
        ]
        for candidate in candidates
    ]
    _print_table(header, rows, sys.stdout)


def _print_table(header: list[str], rows: list[list[str]], stream: TextIO) -> None:
    if stream.isatty() and _print_rich(header, rows, stream):
        return
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print_line("  ".join([first, *others]).rstrip(), stream)


def _cell(value: float, factor: int, decimals: int, unit: str) -> str:
    if not math.isfinite(value):
        return "undefined"
    return f"{value * factor:.{decimals}f} {unit}".rstrip()


def _print_rich(header: list[str], rows: list[list[str]], stream: TextIO) -> bool:
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        return False
    table = Table()
    for index, title in enumerate(header):
        table.add_column(title, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console(file=stream).print(table)
    return True
