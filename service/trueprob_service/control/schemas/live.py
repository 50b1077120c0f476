"""Bodies of the routes of calibrators, promotions and shadows, built from database rows."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StrictInt, StrictStr

from trueprob_service.control.schemas.base import EXAMPLE_CALIBRATOR, example, timestamp
from trueprob_service.control.store.promotions import CalibratorRow, PromotionRow
from trueprob_service.control.store.shadows import ShadowRow

__all__ = [
    "CalibratorSummary",
    "LivePair",
    "PromotionSummary",
    "RollbackRequest",
    "ShadowRequest",
    "ShadowSummary",
]


class CalibratorSummary(BaseModel):
    """A calibrator in a list; its own route returns the whole document."""

    calibrator: str
    version: int
    kind: str
    origin: str = Field(description="factory or fit")
    admitted: bool
    reverted: bool = Field(
        description="Labels proved it worse than its predecessor: only force promotes it again."
    )
    live: bool
    calibration_set: str | None
    created_at: str

    @classmethod
    def from_row(cls, row: CalibratorRow, *, live: PromotionRow) -> CalibratorSummary:
        """A calibrator of the model whose live promotion is given."""
        return cls(
            calibrator=row.calibrator,
            version=row.version,
            kind=row.kind,
            origin=row.origin,
            admitted=row.admitted,
            reverted=row.reverted,
            live=(live.version, live.calibrator) == (row.version, row.calibrator),
            calibration_set=row.calibration_set,
            created_at=timestamp(row.created_at),
        )


class LivePair(BaseModel):
    """The live pair after a change."""

    model_config = example(model="digits", version=1, calibrator=EXAMPLE_CALIBRATOR, revision=5)
    model: str
    version: int
    calibrator: str
    revision: int

    @classmethod
    def from_row(cls, row: PromotionRow) -> LivePair:
        """The pair that a promotion made live."""
        return cls(
            model=row.model, version=row.version, calibrator=row.calibrator, revision=row.revision
        )


class PromotionSummary(LivePair):
    """One revision of the history."""

    cause: str = Field(description="factory, admitted, forced, shadow, rollback or reverted")
    restores: int | None = Field(
        description="For rollback and reverted: the revision whose pair it restored."
    )
    fit: str | None = Field(description="The fit that promoted it.")
    promoted_by: str | None = Field(description="Id of the API key.")
    promoted_at: str

    @classmethod
    def from_row(cls, row: PromotionRow) -> PromotionSummary:
        """A promotion of the history."""
        return cls(
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


class RollbackRequest(BaseModel):
    """The revision whose pair becomes live again."""

    model_config = example(revision=3)
    revision: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = Field(
        None, description="Default: the pair before the last promotion that is not yet undone."
    )


class ShadowRequest(BaseModel):
    """The calibrator to run in the shadow of the live pair."""

    model_config = example(calibrator=EXAMPLE_CALIBRATOR)
    calibrator: StrictStr
    policy: Literal["act", "tell"] | None = Field(
        None,
        description="act: promote or drop it when the evidence decides; tell: only report it.",
    )


class ShadowSummary(BaseModel):
    """The calibrator that shadows the model in a role, or the last one that did."""

    model_config = example(
        model="digits",
        version=1,
        calibrator=EXAMPLE_CALIBRATOR,
        role="candidate",
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
    role: str = Field(description="candidate, or predecessor: live until the last promotion")
    revision: int = Field(description="Revision of the live pair that it is compared with.")
    state: str = Field(description="running, better, worse, kept, removed or superseded")
    policy: str
    labels: int = Field(description="Labels that scored both.")
    better_log10: float = Field(description="Evidence that it is better than the live calibrator.")
    worse_log10: float = Field(description="Evidence that it is worse.")
    threshold_log10: float = Field(description="Threshold of the decision, in either direction.")
    alpha: float = Field(
        description="Probability of ever making a false claim, in either direction."
    )
    promoted: int | None = Field(description="Revision of its promotion.")
    started_at: str
    started_by: str | None
    ended_at: str | None

    @classmethod
    def from_row(cls, row: ShadowRow) -> ShadowSummary:
        """A shadow with its evidence."""
        return cls(
            model=row.model,
            version=row.version,
            calibrator=row.calibrator,
            role=row.role,
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
