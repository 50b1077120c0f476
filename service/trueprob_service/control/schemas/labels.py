"""Bodies of the routes about labels and calibration. The examples are those of the contract."""

from __future__ import annotations

from pydantic import BaseModel, Field, StrictInt, StrictStr

from trueprob_service.control.alarm_schemas import AlarmSummary
from trueprob_service.control.schemas.documents import example

__all__ = ["Bin", "Calibration", "LabelOutcome", "LabelOutcomes", "LabelRequest", "RowsRequest"]


class LabelRequest(BaseModel):
    """Labels of earlier predictions."""

    model_config = example(prediction_ids=["VFBSMQ…", "VFBSMR…"], labels=[1, "7"])
    prediction_ids: list[StrictStr] = Field(description="As the predictions were answered.")
    labels: list[StrictInt | StrictStr] = Field(
        description="As many: integers are class indices, strings class names."
    )


class LabelledRow(BaseModel):
    """A row and what it is."""

    id: StrictStr = Field(description="Yours, for this row: it counts once.")
    logits: list[float]
    label: StrictInt | StrictStr = Field(description="Class index or class name.")
    group: StrictInt | StrictStr | None = Field(
        None, description="Shared by rows that are not independent (a patient, a video)."
    )


class RowsRequest(BaseModel):
    """Labels with the logits that they belong to."""

    model_config = example(rows=[{"id": "scan-17", "logits": [0.1, 4.2, -1.0], "label": 1}])
    rows: list[LabelledRow]


class LabelOutcome(BaseModel):
    """A label that was not accepted."""

    index: int
    outcome: str = Field(
        description="duplicate, expired, forged, foreign, unknown_class, superseded or capped"
    )


class LabelOutcomes(BaseModel):
    """What became of the labels."""

    model_config = example(
        accepted=1, duplicate=0, rejected=1, outcomes=[{"index": 1, "outcome": "expired"}]
    )
    accepted: int
    duplicate: int
    rejected: int
    outcomes: list[LabelOutcome] = Field(description="Those that were not accepted, by index.")


class Bin(BaseModel):
    """Sums over the labels whose confidence lies in (lower, upper]."""

    lower: float
    upper: float
    count: int
    confidence: float
    correct: int
    variance: float


class Calibration(BaseModel):
    """How well the live pair's confidence has held."""

    model_config = example(
        model="digits",
        version=1,
        calibrator="smart-91be7d20c4aa",
        revision=5,
        window="24h",
        labels=1200,
        ece=0.021,
        ece_floor=0.012,
        miscalibrated=False,
        drift_ratio=1.7,
        expected_accuracy=0.91,
        observed_accuracy=0.90,
        evidence_log10=0.4,
        evidence_threshold_log10=2.0,
        change_log10=1.1,
        change_threshold_log10=5.0,
        alarm=None,
        advice="Calibrated within what 1200 labels can tell.",
        bins=[
            {
                "lower": 0.8667,
                "upper": 0.9333,
                "count": 80,
                "confidence": 72.1,
                "correct": 71,
                "variance": 7.0,
            }
        ],
        baseline={},
    )
    model: str
    version: int
    calibrator: str
    revision: int
    window: str
    labels: int
    ece: float | None
    ece_floor: float | None
    miscalibrated: bool
    drift_ratio: float | None = Field(description="ece / ece_floor: a picture, not an alarm.")
    expected_accuracy: float | None
    observed_accuracy: float | None
    evidence_log10: float = Field(
        description="Evidence, since the promotion, that it is off by more than the tolerance."
    )
    evidence_threshold_log10: float
    change_log10: float = Field(
        description="That it has become so; 0 at the promotion and once its alarm is acknowledged."
    )
    change_threshold_log10: float
    alarm: AlarmSummary | None = Field(
        description="The newest alarm of the live promotion that is not acknowledged."
    )
    advice: str
    bins: list[Bin]
    baseline: dict[str, float] = Field(description="Scores on the version's calibration split.")
