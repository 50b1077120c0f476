"""From database rows to the bodies of answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from trueprob_service.control.alarm_schemas import AlarmSummary
from trueprob_service.control.schemas.documents import (
    CalibrationSetSummary,
    CalibratorSummary,
    FitSummary,
    LivePair,
    PromotionSummary,
    Verdict,
)
from trueprob_service.control.schemas.labels import LabelOutcome, LabelOutcomes
from trueprob_service.control.store.alarms import AlarmRow
from trueprob_service.control.store.calibration_sets import CalibrationSetRow
from trueprob_service.control.store.calibrators import CalibratorRow
from trueprob_service.control.store.fits import FitRow
from trueprob_service.control.store.promotions import PromotionRow

__all__ = [
    "alarm",
    "calibration_set",
    "calibrator",
    "fit",
    "fit_report",
    "label_outcomes",
    "live_pair",
    "promotion",
    "timestamp",
]


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 UTC with milliseconds."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def live_pair(row: PromotionRow) -> LivePair:
    """What is live after a change."""
    return LivePair(
        model=row.model, version=row.version, calibrator=row.calibrator, revision=row.revision
    )


def promotion(row: PromotionRow) -> PromotionSummary:
    """One revision of the history."""
    return PromotionSummary(
        model=row.model,
        version=row.version,
        calibrator=row.calibrator,
        revision=row.revision,
        cause=row.cause,
        restores=row.restores,
        fit=None if row.fit is None else str(row.fit),
        promoted_by=row.promoted_by,
        promoted_at=timestamp(row.promoted_at),
    )


def calibrator(row: CalibratorRow, *, live: PromotionRow | None) -> CalibratorSummary:
    """A calibrator in a list."""
    is_live = live is not None and (live.version, live.calibrator) == (row.version, row.calibrator)
    return CalibratorSummary(
        calibrator=row.calibrator,
        version=row.version,
        kind=row.kind,
        origin=row.origin,
        admitted=row.admitted,
        live=is_live,
        calibration_set=row.calibration_set,
        created_at=timestamp(row.created_at),
    )


def calibration_set(row: CalibrationSetRow, names: Sequence[str]) -> CalibrationSetSummary:
    """A stored set."""
    return CalibrationSetSummary(
        digest=row.digest,
        names=list(names),
        n=row.n_rows,
        n_classes=row.n_classes,
        size_bytes=row.size_bytes,
        created_at=timestamp(row.created_at),
        created_by=row.created_by,
    )


def fit_report(row: FitRow, *, n: int) -> FitSummary:
    """A fit as its upload is answered: only the fields that its state has are set."""
    fields: dict[str, Any] = {}
    if row.state == "done":
        fields = {
            "seconds": row.seconds,
            "verdict": None if row.verdict is None else Verdict(**row.verdict),
            "scores": row.scores,
            "calibrator": row.calibrator,
            "promoted": row.promoted,
            "revision": row.revision,
        }
    elif row.state in ("failed", "cancelled"):
        fields = {"error": row.error}
    else:
        fields = {"progress": row.progress or 0.0}
    if row.trigger is not None:
        fields["trigger"] = row.trigger
    return FitSummary(
        fit=str(row.id),
        state=row.state,
        calibration_set=row.calibration_set,
        version=row.version,
        method=row.method,
        n=n,
        **fields,
    )


def fit(row: FitRow, *, n: int) -> FitSummary:
    """A fit as it is listed: the report and when it was."""
    report = fit_report(row, n=n)
    report.created_at = timestamp(row.created_at)
    if row.finished_at is not None:
        report.finished_at = timestamp(row.finished_at)
    return report


def alarm(row: AlarmRow) -> AlarmSummary:
    """An alarm of the history."""
    seen = row.acknowledged_at
    return AlarmSummary(
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
    )


def label_outcomes(outcomes: Sequence[str]) -> LabelOutcomes:
    """Counts, and the index of each label that was not accepted."""
    accepted, duplicate = outcomes.count("accepted"), outcomes.count("duplicate")
    return LabelOutcomes(
        accepted=accepted,
        duplicate=duplicate,
        rejected=len(outcomes) - accepted - duplicate,
        outcomes=[
            LabelOutcome(index=index, outcome=outcome)
            for index, outcome in enumerate(outcomes)
            if outcome != "accepted"
        ],
    )
