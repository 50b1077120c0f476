"""What the service says about itself at one moment: every number that the demo shows.

From ``GET /v1/models/{model}/calibration`` (what labels say) and ``GET /metrics`` (what is known
without them).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from trueprob.client import AlarmSummary, Client

__all__ = ["Reading", "read", "sample"]

_SAMPLE: Final = re.compile(r"^(\w+)\{(.*)\} (\S+)$")
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Reading:
    """One look at the service.

    Attributes
    ----------
    revision, calibrator : int, str
        What is live.
    predictions : int or None
        Answered by the live pair: ``trueprob_predictions_total``.
    expected_accuracy : float or None
        Mean confidence of recent predictions, no label needed:
        ``trueprob_expected_accuracy_ratio``.
    gap_shift : float or None
        ``trueprob_gap_shift_ratio``: how unlike the calibration split they are; about 1 if alike.
    labels, observed_accuracy, ece, ece_floor, miscalibrated
        Of the live pair's labels within the window.
    evidence_log10, evidence_threshold_log10, change_log10, change_threshold_log10 : float or None
        Since the promotion.
    alarm : AlarmSummary or None
    advice : str
    """

    revision: int
    calibrator: str
    predictions: int | None
    expected_accuracy: float | None
    gap_shift: float | None
    labels: int
    observed_accuracy: float | None
    ece: float | None
    ece_floor: float | None
    miscalibrated: bool
    evidence_log10: float | None
    evidence_threshold_log10: float | None
    change_log10: float | None
    change_threshold_log10: float | None
    alarm: AlarmSummary | None
    advice: str

    @property
    def both_passed(self) -> bool:
        """Whether evidence and change are both at their thresholds or above."""
        pairs = (
            (self.evidence_log10, self.evidence_threshold_log10),
            (self.change_log10, self.change_threshold_log10),
        )
        return all(v is not None and t is not None and v >= t for v, t in pairs)


def read(client: Client, model: str) -> Reading:
    """Ask the service.

    Raises
    ------
    ServiceProblem, ServiceUnreachable
    """
    said, text = client.calibration(model), client.metrics()
    pair = {"model": said.model, "version": str(said.version), "calibrator": said.calibrator}
    predictions = sample(text, "trueprob_predictions_total", pair)
    return Reading(
        revision=said.revision,
        calibrator=said.calibrator,
        predictions=None if predictions is None else int(predictions),
        expected_accuracy=sample(text, "trueprob_expected_accuracy_ratio", pair),
        gap_shift=sample(text, "trueprob_gap_shift_ratio", pair),
        labels=said.labels,
        observed_accuracy=said.observed_accuracy,
        ece=said.ece,
        ece_floor=said.ece_floor,
        miscalibrated=said.miscalibrated,
        evidence_log10=said.evidence_log10,
        evidence_threshold_log10=said.evidence_threshold_log10,
        change_log10=said.change_log10,
        change_threshold_log10=said.change_threshold_log10,
        alarm=said.alarm,
        advice=said.advice,
    )


def sample(text: str, name: str, labels: Mapping[str, str]) -> float | None:
    """A sample of Prometheus' text format with exactly these labels; None when there is none."""
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match and match[1] == name and dict(_LABEL.findall(match[2])) == labels:
            return float(match[3])
    return None
