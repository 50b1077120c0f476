"""What the demo reads from the service, and how it prints it."""

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
    """What the service says at one moment; the demo computes no number of its own."""

    said: Calibration  # GET /v1/models/digits/calibration: what labels say
    predictions: float | None  # this and the others: GET /metrics
    expected_accuracy: float | None  # mean confidence of recent predictions, no label needed
    gap_shift: float | None  # how unlike the calibration split they are; about 1 if alike

    @property
    def both_passed(self) -> bool:
        """Whether evidence and change are both at their thresholds or above."""
        pairs = (
            (self.said.evidence_log10, self.said.evidence_threshold_log10),
            (self.said.change_log10, self.said.change_threshold_log10),
        )
        return all(v is not None and t is not None and v >= t for v, t in pairs)


def read(client: Client, model: str) -> Reading:
    """Ask the service."""
    said = client.calibration(model)
    live = {"model": model, "version": str(said.version), "calibrator": said.calibrator}
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(client.metrics())
        for sample in family.samples
        if sample.labels == live
    }
    return Reading(
        said,
        values.get("trueprob_predictions_total"),
        values.get("trueprob_expected_accuracy_ratio"),
        values.get("trueprob_gap_shift_ratio"),
    )


def say(text: str) -> None:
    """Print a paragraph."""
    print(textwrap.fill(text, 96, subsequent_indent="   "), flush=True)


def header(reading: Reading) -> None:
    """Print the names of the columns and from where on evidence and change raise an alarm."""
    thresholds = (reading.said.evidence_threshold_log10, reading.said.change_threshold_log10)
    _line(COLUMNS)
    _line((*[""] * 6, "alarm:", *(_number(value, ".2f") for value in thresholds)))


def row(reading: Reading) -> None:
    """Print a reading; a dash is a number that the service does not have yet."""
    said = reading.said
    cells = (
        _number(reading.predictions, ".0f"),
        str(said.labels),
        percent(reading.expected_accuracy),
        percent(said.observed_accuracy),
        percent(said.ece),
        percent(said.ece_floor),
        _number(reading.gap_shift, ".1f"),
        _number(said.evidence_log10, ".2f"),
        _number(said.change_log10, ".2f"),
    )
    _line(cells, "  ALARM" if said.alarm else "")


def percent(value: float | None) -> str:
    """A fraction as the demo prints it."""
    return "–" if value is None else f"{value:.1%}".replace("%", " %")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _line(cells: tuple[str, ...], mark: str = "") -> None:
    aligned = [cell.rjust(max(len(title), 7)) for cell, title in zip(cells, COLUMNS, strict=True)]
    print("  ".join(aligned) + mark, flush=True)
