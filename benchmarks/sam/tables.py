"""Means over seeds with standard errors, paired differences, and the claims they support."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.sam.plan import Cell

COLUMNS = (  # heading, state, score, factor, digits
    ("accuracy %", "uncalibrated", "accuracy", 100, 1),
    ("ECE %", "uncalibrated", "ece", 100, 2),
    ("ECE % after SMART", "smart", "ece", 100, 2),
    ("NLL", "uncalibrated", "nll", 1, 4),
    ("NLL after SMART", "smart", "nll", 1, 4),
)
Results = Mapping[str, Mapping[str, Any]]


def mean_and_error(values: Iterable[float]) -> tuple[float, float]:
    """Mean and its standard error; the error of fewer than two values is not a number."""
    array = np.array(list(values))
    error = array.std(ddof=1) / math.sqrt(len(array)) if len(array) > 1 else math.nan
    return float(array.mean()), float(error)


def by_row(cells: Iterable[Cell], results: Results, part: str) -> dict[str, dict[int, Any]]:
    """Row → seed → result of one part, for the results that exist."""
    rows: dict[str, dict[int, Any]] = {}
    for cell in cells:
        if cell.part == part and cell.key in results:
            rows.setdefault(cell.row, {})[cell.config.seed] = results[cell.key]
    return rows


def part_table(rows: Mapping[str, Mapping[int, Any]], *, scored: str = "test") -> str:
    """One line per row: mean ± standard error."""
    lines = []
    for row, seeds in rows.items():
        there = [result[scored] for result in seeds.values() if scored in result]
        if not there:
            continue
        cells = [row, str(len(there))]
        for _, state, name, factor, digits in COLUMNS:
            mean, error = mean_and_error(factor * scores[state][name] for scores in there)
            spread = f" ± {error:.{digits}f}" if error == error else ""
            cells.append(f"{mean:.{digits}f}{spread}")
        lines.append(cells)
    return table(("", "seeds", *(column[0] for column in COLUMNS)), lines)


def verdict(
    first: Mapping[int, Any],
    second: Mapping[int, Any],
    state: str,
    name: str,
    *,
    scored: str = "test",
    sign: int = 1,
) -> tuple[float, float, str]:
    """Whether the first row has the smaller score, from seeds that both have.

    With `sign` -1: the larger one.

    Returns
    -------
    (float, float, str)
        Mean paired difference, its standard error, and `held` (below zero by two errors, and in
        every seed), `reversed` (above likewise) or `not told apart`.
    """
    differences = [
        first[seed][scored][state][name] - second[seed][scored][state][name]
        for seed in first
        if seed in second
    ]
    if not differences:
        return math.nan, math.nan, "not told apart"
    mean, error = mean_and_error(differences)
    for direction, word in ((-sign, "held"), (sign, "reversed")):
        if all(direction * d > 0 for d in differences) and direction * mean > 2 * error:
            return mean, error, word
    return mean, error, "not told apart"


def claims(rows: Mapping[str, Mapping[int, Any]]) -> str:
    """The papers' claims at this size: a lower ECE and NLL than SGD's, and CSAM's than SAM's."""
    lines = []
    pairs = [(name, "sgd") for name in rows if name != "sgd"] + [("csam", "sam")]
    for first, second in pairs:
        if first not in rows or second not in rows:
            continue
        for heading, state, name, factor, digits in COLUMNS[1:]:
            mean, error, word = verdict(rows[first], rows[second], state, name)
            spread = f" ± {factor * error:.{digits}f}" if error == error else ""
            shown = f"{factor * mean:+.{digits}f}{spread}"
            lines.append([f"{first} below {second}: {heading}", shown, word])
    return table(("claim", "paired difference", "at this size"), lines)
