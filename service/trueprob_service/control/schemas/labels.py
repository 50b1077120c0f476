"""Bodies of the routes of labels, calibration and alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field, StrictInt, StrictStr

from trueprob.drift import LiveVerdict, VerdictState
from trueprob.scores.binned import BinnedCalibration
from trueprob_service.control.schemas.base import EXAMPLE_CALIBRATOR, example, timestamp
from trueprob_service.control.store.alarms import AlarmRow

__all__ = [
    "AlarmSummary",
    "Bin",
    "BinaryCalibration",
    "Calibration",
    "CalibrationVerdict",
    "ClassCalibration",
    "IdLabelRequest",
    "IdLabelsRequest",
    "LabelOutcome",
    "LabelOutcomes",
    "LabelRequest",
    "RowsRequest",
]


class LabelRequest(BaseModel):
    """Labels of earlier predictions."""

    model_config = example(prediction_ids=["VFBSMQ…", "VFBSMR…"], labels=[1, "7"])
    prediction_ids: list[StrictStr] = Field(description="`prediction_ids` of earlier answers.")
    labels: list[StrictInt | StrictStr] = Field(
        description="One for each id; integers are class indices, strings class names."
    )


class IdLabelRequest(BaseModel):
    """Labels by your own ids of predictions, in two lists."""

    model_config = example(ids=["order-1", "order-2"], labels=[1, "7"])
    ids: list[StrictStr | StrictInt] = Field(description="Your ids, as they came with the rows.")
    labels: list[StrictInt | StrictStr]


class IdLabel(BaseModel):
    """A label by your own id of a prediction."""

    id: StrictStr | StrictInt
    label: StrictInt | StrictStr = Field(description="Class index or class name.")


class IdLabelsRequest(BaseModel):
    """Labels by your own ids of predictions, as pairs."""

    model_config = example(labels=[{"id": "order-1", "label": 1}])
    labels: list[IdLabel]


class LabelledRow(BaseModel):
    """The logits of a row and its label."""

    id: StrictStr = Field(description="Your id of the row: it counts once.")
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
    """A label that was not accepted, or was accepted for the latest of several predictions."""

    index: int
    outcome: str = Field(
        description="duplicate, expired, forged, foreign, unknown_class, superseded or capped; by "
        "id also unknown_id, conflict, or replaced, which counts"
    )


class LabelOutcomes(BaseModel):
    """The outcomes of the labels of a request."""

    model_config = example(
        accepted=1, duplicate=0, rejected=1, outcomes=[{"index": 1, "outcome": "expired"}]
    )
    accepted: int
    duplicate: int
    rejected: int
    outcomes: list[LabelOutcome] = Field(description="All but `accepted`, by index.")

    @classmethod
    def from_outcomes(cls, outcomes: Sequence[str]) -> LabelOutcomes:
        """Counts of the outcomes, and the index of each label whose outcome is another one."""
        accepted, duplicate = outcomes.count("accepted"), outcomes.count("duplicate")
        accepted += outcomes.count("replaced")
        return cls(
            accepted=accepted,
            duplicate=duplicate,
            rejected=len(outcomes) - accepted - duplicate,
            outcomes=[
                LabelOutcome(index=index, outcome=outcome)
                for index, outcome in enumerate(outcomes)
                if outcome != "accepted"
            ],
        )


class ClassCalibration(BaseModel):
    """The predictions of one class since the promotion."""

    class_name: str
    labels: float = Field(description="Copies of an input count once.")
    share: float = Field(description="Of all labels.")
    confidence: float = Field(description="Mean confidence.")
    frequency: float = Field(description="Share of right predictions.")
    low: float | None = Field(
        None, description="Interval of the gap between the two, for all classes and at all times."
    )
    high: float | None = None
    sentence: str

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> ClassCalibration:
        """From the figures of a class, with the sentence."""
        points = round(100.0 * (figures["confidence"] - figures["frequency"]))
        if points > 0:
            how = f"{points} points too confident"
        elif points < 0:
            how = f"{-points} points not confident enough"
        else:
            how = "right as often as they say"
        share = f"{100.0 * figures['share']:.1f} % of traffic"
        sentence = f"answers {figures['class_name']!r} are {how} on {share}"
        return cls(**figures, sentence=sentence)


class AlarmSummary(BaseModel):
    """A statistic that reached its threshold."""

    model_config = example(
        id="3",
        model="digits",
        version=1,
        calibrator=EXAMPLE_CALIBRATOR,
        revision=5,
        statistic="change",
        log10=5.2,
        threshold_log10=5.0,
        tolerance=0.02,
        labels=12480,
        raised_at="2026-05-04T09:12:30.000Z",
        acknowledged_at=None,
        acknowledged_by=None,
    )
    id: str
    model: str
    version: int
    calibrator: str
    revision: int = Field(description="The promotion whose labels raised it.")
    statistic: str = Field(
        description="evidence: miscalibrated since the promotion; change: only recently."
    )
    log10: float = Field(description="Value of the statistic when the alarm was raised.")
    threshold_log10: float
    tolerance: float
    labels: int = Field(description="Labels counted since the promotion when it was raised.")
    raised_at: str
    acknowledged_at: str | None
    acknowledged_by: str | None = Field(description="Id of the API key.")
    worst_class: ClassCalibration | None = Field(
        None, description="The class whose predictions it is about, if bets on a class raised it."
    )

    @classmethod
    def from_row(cls, row: AlarmRow) -> AlarmSummary:
        """An alarm of the history."""
        seen = row.acknowledged_at
        return cls(
            id=str(row.id),
            model=row.model,
            version=row.version,
            calibrator=row.calibrator,
            revision=row.revision,
            statistic=row.statistic,
            log10=row.log10,
            threshold_log10=row.threshold_log10,
            tolerance=row.tolerance,
            labels=row.counted,
            raised_at=timestamp(row.raised_at),
            acknowledged_at=None if seen is None else timestamp(seen),
            acknowledged_by=row.acknowledged_by,
            worst_class=None if row.worst_class is None else ClassCalibration.of(row.worst_class),
        )


class Bin(BaseModel):
    """Sums over the labels whose confidence lies in (lower, upper]."""

    lower: float
    upper: float
    count: int
    confidence: float
    correct: int
    variance: float


class BinaryCalibration(BaseModel):
    """P(class 1) of a model with two classes, against how often class 1 is true."""

    class_name: str = Field(description="Of class 1.")
    labels: int
    probability: float = Field(description="Mean P(class 1).")
    frequency: float = Field(description="Share of class 1 among the labels.")
    ece: float = Field(description="ECE of P(class 1), in 15 bins.")
    ece_floor: float
    bins: list[Bin] = Field(
        description="By P(class 1): `confidence` is its sum, `correct` the labels of class 1."
    )

    @classmethod
    def of(cls, class_name: str, binned: BinnedCalibration) -> BinaryCalibration | None:
        """From the sums of P(class 1); None without labels."""
        if not binned.n:
            return None
        return cls(
            class_name=class_name,
            labels=int(binned.n),
            probability=binned.mean_confidence(),
            frequency=binned.accuracy(),
            ece=binned.ece(),
            ece_floor=binned.ece_floor(),
            bins=[Bin.model_validate(row) for row in binned.rows()],
        )


class CalibrationVerdict(BaseModel):
    """What the labels since the promotion prove about the live pair."""

    model_config = example(
        state="within_tolerance",
        sentence="Calibrated within the tolerance: the error is 0.0 to 1.9 % on average over "
        "21000 labels, tolerance 2.0 %.",
        error_low=0.0,
        error_high=0.019,
        labels=21_000,
        labels_needed=None,
    )
    state: VerdictState
    sentence: str
    error_low: float = Field(
        description="Lower end of the interval of the average calibration error over five ranges "
        "of confidence, which holds at all times."
    )
    error_high: float
    labels: int = Field(description="Labels in that interval; copies of an input count once.")
    labels_needed: int | None = Field(
        description="About how many more labels decide, while the state is unknown."
    )

    @classmethod
    def from_verdict(cls, verdict: LiveVerdict) -> CalibrationVerdict:
        """The verdict as a body."""
        return cls(**vars(verdict))


class Calibration(BaseModel):
    """How well the live pair is calibrated, by the labels of a window."""

    model_config = example(
        model="digits",
        version=1,
        calibrator=EXAMPLE_CALIBRATOR,
        revision=5,
        window="24h",
        labels=1200,
        ece=0.021,
        ece_floor=0.012,
        drift_ratio=1.7,
        expected_accuracy=0.91,
        observed_accuracy=0.90,
        evidence_log10=0.4,
        evidence_threshold_log10=2.0,
        change_log10=1.1,
        change_threshold_log10=5.0,
        alarm=None,
        verdict={
            "state": "unknown",
            "sentence": "Too few labels to tell: the error is 0.0 to 6.1 % on average over 1200 "
            "labels, tolerance 2.0 %; about 9000 more decide.",
            "error_low": 0.0,
            "error_high": 0.061,
            "labels": 1200,
            "labels_needed": 9000,
        },
        advice="Nothing to do; send labels as they come.",
        class_error_low=0.0,
        class_error_high=0.083,
        classes=[
            {
                "class_name": "7",
                "labels": 118,
                "share": 0.098,
                "confidence": 0.93,
                "frequency": 0.89,
                "low": 0.0,
                "high": 0.2,
                "sentence": "answers '7' are 4 points too confident on 9.8 % of traffic",
            }
        ],
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
    drift_ratio: float | None = Field(description="ece / ece_floor; an indicator, not an alarm.")
    expected_accuracy: float | None
    observed_accuracy: float | None
    evidence_log10: float = Field(
        description="Evidence since the promotion that it is wrong by more than the tolerance."
    )
    evidence_threshold_log10: float
    change_log10: float = Field(
        description="Evidence that it has recently become wrong; 0 at the promotion and once its "
        "alarm is acknowledged."
    )
    change_threshold_log10: float
    alarm: AlarmSummary | None = Field(
        description="The newest alarm of the live promotion that is not acknowledged."
    )
    verdict: CalibrationVerdict = Field(description="Of all labels since the promotion.")
    advice: str = Field(description="What to do now.")
    class_error_low: float = Field(
        description="Interval of the average gap of the predicted classes since the promotion."
    )
    class_error_high: float
    classes: list[ClassCalibration] = Field(
        description="Predicted classes since the promotion, the worst first, at most 20."
    )
    bins: list[Bin]
    binary: BinaryCalibration | None = Field(
        description="P(class 1) in the window; null unless there are two classes and labels."
    )
    baseline: dict[str, float] = Field(description="Scores on the version's calibration split.")
