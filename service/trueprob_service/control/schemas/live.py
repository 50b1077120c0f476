"""Bodies of the route of shadows."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, Field, StrictStr

from trueprob_service.control.schemas.answers import timestamp
from trueprob_service.control.schemas.documents import example
from trueprob_service.control.store.shadows import ShadowRow

__all__ = ["ShadowRequest", "ShadowSummary", "shadow_summary"]

_CALIBRATOR = "smart-91be7d20c4aa"


class ShadowRequest(BaseModel):
    """A calibrator that is to shadow."""

    model_config = example(calibrator=_CALIBRATOR)
    calibrator: StrictStr
    policy: Literal["act", "tell"] | None = Field(
        None, description="act: promote or drop it by the evidence; tell: only say so."
    )


class ShadowSummary(BaseModel):
    """What shadows a model, or did last."""

    model_config = example(
        model="digits",
        version=1,
        calibrator=_CALIBRATOR,
        revision=4,
        state="running",
        policy="act",
        labels=312,
        better_log10=1.21,
        worse_log10=-0.4,
        threshold_log10=2.0,
        alpha=0.01,
        promoted=None,
        started_at="2026-05-04T10:00:00.000Z",
        started_by="team-a",
        ended_at=None,
    )
    model: str
    version: int
    calibrator: str
    revision: int = Field(description="Of the live pair that it is compared with.")
    state: str = Field(description="running, better, worse, removed or superseded")
    policy: str
    labels: int = Field(description="Labels that scored both.")
    better_log10: float = Field(description="Evidence that it is better than what is live.")
    worse_log10: float = Field(description="Evidence that it is worse.")
    threshold_log10: float = Field(description="What decides, either way.")
    alpha: float = Field(description="Probability of ever claiming what is wrong, either way.")
    promoted: int | None = Field(description="The revision that it became.")
    started_at: str
    started_by: str | None
    ended_at: str | None


def shadow_summary(row: ShadowRow) -> ShadowSummary:
    """A row as it is answered."""
    return ShadowSummary(
        model=row.model,
        version=row.version,
        calibrator=row.calibrator,
        revision=row.revision,
        state=row.state,
        policy=row.policy,
        labels=row.labels,
        better_log10=row.better_log10,
        worse_log10=row.worse_log10,
        threshold_log10=-math.log10(row.alpha),
        alpha=row.alpha,
        promoted=row.promoted,
        started_at=timestamp(row.started_at),
        started_by=row.started_by,
        ended_at=None if row.ended_at is None else timestamp(row.ended_at),
    )
