"""Bodies of the routes about alarms."""

from __future__ import annotations

from pydantic import BaseModel, Field

from trueprob_service.control.schemas.documents import example

__all__ = ["ALARM", "AlarmSummary"]

ALARM = {
    "id": "3",
    "model": "digits",
    "version": 1,
    "calibrator": "smart-91be7d20c4aa",
    "revision": 5,
    "statistic": "change",
    "log10": 5.2,
    "threshold_log10": 5.0,
    "tolerance": 0.02,
    "labels": 12480,
    "raised_at": "2026-05-04T09:12:30.000Z",
    "acknowledged_at": None,
    "acknowledged_by": None,
}


class AlarmSummary(BaseModel):
    """A statistic that passed its threshold."""

    model_config = example(**ALARM)
    id: str
    model: str
    version: int
    calibrator: str
    revision: int = Field(description="The promotion whose labels raised it.")
    statistic: str = Field(
        description="evidence: miscalibrated since the promotion; change: has become so."
    )
    log10: float = Field(description="Of the statistic, when it was raised.")
    threshold_log10: float
    tolerance: float
    labels: int = Field(description="Counted since the promotion when it was raised.")
    raised_at: str
    acknowledged_at: str | None
    acknowledged_by: str | None = Field(description="Id of the API key.")
