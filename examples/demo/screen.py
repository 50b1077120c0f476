"""Reads the numbers of the demo from the service, and prints them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from trueprob.client import Calibration, Client

COLUMNS = (
    "predictions", "labels", "expected", "observed", "ECE", "floor", "shift", "evidence", "change",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """The numbers of the service at one moment; the demo computes none itself."""

    calibration: Calibration  # from labels: GET /v1/models/digits/calibration
    predictions: float | None  # from GET /metrics, as the two below
    expected_accuracy: float | None  # mean confidence of recent predictions; needs no labels
    gap_shift: float | None  # shift ratio of recent predictions; about 1 without a shift

    @property
    def both_passed(self) -> bool:
        """Whether evidence and change have both reached their thresholds."""
        pairs = (
            (self.calibration.evidence_log10, self.calibration.evidence_threshold_log10),
            (self.calibration.change_log10, self.calibration.change_threshold_log10),
        )
        return all(v is not None and t is not None and v >= t for v, t in pairs)


def read(client: Client, model: str) -> Reading:
    """Read the numbers from the service."""
    calibration = client.calibration(model)
    live = {
        "model": model,
        "version": str(calibration.version),
        "calibrator": calibration.calibrator,
    }
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(client.metrics())
        for sample in family.samples
        if sample.labels == live
    }
    return Reading(
        calibration,
        values.get("trueprob_predictions_total"),
        values.get("trueprob_expected_accuracy_ratio"),
        values.get("trueprob_gap_shift_ratio"),
    )


def say(text: str) -> None:
    """Print a paragraph; a number and its % stay on one line."""
    filled = textwrap.fill(text.replace(" %", "\xa0%"), 96, subsequent_indent="   ")
    print(filled.replace("\xa0", " "), flush=True)


def header(reading: Reading) -> None:
    """Print the column names, and the thresholds of evidence and change."""
    thresholds = (
        reading.calibration.evidence_threshold_log10,
        reading.calibration.change_threshold_log10,
    )
    _line(COLUMNS)
    _line((*[""] * 6, "alarm:", *(_number(value, ".2f") for value in thresholds)))


def row(reading: Reading) -> None:
    """Print a reading; a dash stands for a number that the service does not have yet."""
    calibration = reading.calibration
    cells = (
        _number(reading.predictions, ".0f"),
        str(calibration.labels),
        percent(reading.expected_accuracy),
        percent(calibration.observed_accuracy),
        percent(calibration.ece),
        percent(calibration.ece_floor),
        _number(reading.gap_shift, ".1f"),
        _number(calibration.evidence_log10, ".2f"),
        _number(calibration.change_log10, ".2f"),
    )
    _line(cells, "  ALARM" if calibration.alarm else "")


def percent(value: float | None) -> str:
    """A fraction as the demo prints it."""
    return "–" if value is None else f"{value:.1%}".replace("%", " %")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _line(cells: tuple[str, ...], mark: str = "") -> None:
    aligned = [cell.rjust(max(len(title), 7)) for cell, title in zip(cells, COLUMNS, strict=True)]
    print("  ".join(aligned) + mark, flush=True)
