"""A scripted service, to test the steps of the demo without a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trueprob.client import (
    AlarmSummary,
    Calibration,
    CalibrationVerdict,
    FitSummary,
    FitVerdict,
    LabelOutcomes,
    Prediction,
)

ALARM = AlarmSummary(
    id="1", model="digits", version=1, calibrator="smart-8af4e5cf4aaa", revision=1,
    statistic="change", log10=5.4, threshold_log10=5.0, tolerance=0.02, labels=610,
    raised_at="2026-05-04T09:12:30.000Z", acknowledged_at=None, acknowledged_by=None,
)  # fmt: skip


def verdict(state: str, sentence: str) -> CalibrationVerdict:
    """A verdict; the demo shows its sentence."""
    return CalibrationVerdict(state, sentence, 0.0, 0.09, 384, None)


def calibration(**changes: Any) -> Calibration:
    """A calm answer of ``GET /v1/models/digits/calibration``."""
    values: dict[str, Any] = {
        "model": "digits", "version": 1, "calibrator": "smart-8af4e5cf4aaa", "revision": 1,
        "window": "24h", "labels": 384, "ece": 0.0181, "ece_floor": 0.0274,
        "drift_ratio": 0.66, "expected_accuracy": 0.9297,
        "observed_accuracy": 0.9453, "evidence_log10": -0.31, "evidence_threshold_log10": 2.0,
        "change_log10": 2.41, "change_threshold_log10": 5.0, "alarm": None,
        "verdict": verdict("unknown", "Too few labels to tell."), "advice": "Send labels.",
        "class_error_low": 0.0, "class_error_high": 0.2, "classes": (),
        "bins": (), "baseline": {},
    }  # fmt: skip
    return Calibration(**{**values, **changes})


@dataclass
class ScriptedService:
    """Has the methods of the client that the story uses.

    ``said`` gets the number of labels counted and whether the candidate is live, and changes the
    calm answer; ``expected`` gets the number of pictures answered.
    """

    said: Callable[[int, bool], dict[str, Any]]
    expected: Callable[[int], float] = lambda n: 0.92 if n <= 512 else 0.85
    promotes: bool = True
    uncounted: int = 0
    answered: int = 0
    labels: list[int] = field(default_factory=list)
    owed: list[int] = field(default_factory=list)
    live: bool = False
    uploads: list[Any] = field(default_factory=list)

    def predict(self, model: str, *, images: list[bytes]) -> Prediction:
        self.owed.append(self.answered - len(self.labels))
        first, self.answered = self.answered, self.answered + len(images)
        assert all(image.startswith(b"\x89PNG") for image in images)
        ids = tuple(str(first + i) for i in range(len(images)))
        nothing = np.zeros(len(images))
        return Prediction(
            model, 1, "smart-8af4e5cf4aaa", 1, nothing, nothing, (), nothing, None, None, ids
        )

    def label(self, model: str, ids: tuple[str, ...], labels: list[int]) -> LabelOutcomes:
        assert len(ids) == len(labels)
        self.labels += [int(text) for text in ids]
        lost, self.uncounted = self.uncounted, 0
        return LabelOutcomes(len(ids) - lost, 0, lost, ())

    def calibration(self, model: str) -> Calibration:
        return calibration(**self.said(len(self.labels), self.live))

    def metrics(self) -> str:
        pair = '{model="digits",version="1",calibrator="smart-8af4e5cf4aaa"}'
        return f"trueprob_expected_accuracy_ratio{pair} {self.expected(self.answered)}\n"

    def upload(self, model: str, rows: Any, **options: Any) -> FitSummary:
        assert options == {"method": "auto", "allow_prediction_change": True}
        self.uploads.append(rows)
        self.live = self.promotes
        return self.wait_for_fit(model, "1", seconds=0)

    def wait_for_fit(self, model: str, fit: str, *, seconds: float) -> FitSummary:
        return FitSummary(
            fit, "done", "sha256:…", 1, "smart", len(self.uploads[0]["labels"]),
            verdict=FitVerdict(self.live, ("NLL 1.9 → 1.3 nats",)),
            calibrator="smart-91be7d20c4aa",
            promoted=self.live, revision=2 if self.live else None,
        )  # fmt: skip
