"""Bodies of control requests and answers. The examples are those of the contract."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

__all__ = [
    "CalibrationSetSummary",
    "CalibratorSummary",
    "FitBody",
    "FitSummary",
    "Items",
    "LivePair",
    "ModelDescription",
    "ModelRequest",
    "ProblemDocument",
    "PromotionSummary",
    "RollbackRequest",
    "UnavailableVersion",
    "Verdict",
    "VersionSummary",
    "example",
]

ItemT = TypeVar("ItemT")
_CALIBRATOR = "smart-91be7d20c4aa"
_DIGEST = "sha256:8f0e6c1bd2a94c6f7e3b5a1d0c9f8e7d6c5b4a39281706f5e4d3c2b1a0998877"


def example(**values: Any) -> ConfigDict:
    """Settings of a model whose documentation shows this value."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [values]})


class ProblemDocument(BaseModel):
    """An error (RFC 9457); `code` is for programs, `error` repeats `detail`."""

    model_config = example(
        type="urn:trueprob:stale_revision",
        title="The revision is stale",
        status=412,
        detail="the live revision is 5, If-Match says 4",
        code="stale_revision",
        error="the live revision is 5, If-Match says 4",
    )
    type: str
    title: str
    status: int
    detail: str
    code: str
    error: str


class Items(BaseModel, Generic[ItemT]):
    """A page of a list, newest first."""

    items: list[ItemT]
    next: str | None = Field(description="Pass it as ?cursor= for the next page; null on the last.")


class ModelRequest(BaseModel):
    """Declares a logits-only model, or makes a version live."""

    model_config = example(n_classes=3, class_names=["cat", "dog", "bird"])
    n_classes: StrictInt | None = Field(None, description="Classes of the logits to come.")
    class_names: list[StrictStr] | None = Field(
        None, description="One name a class, in index order; default: the indices."
    )
    live_version: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="The version to make live; needs If-Match."
    )


class FitBody(BaseModel):
    """A fit on rows that are here: a stored set, or the refit window."""

    model_config = example(calibration_set="may", method="smart", promote="auto")
    calibration_set: StrictStr | None = Field(None, description="`sha256:…`, or a name.")
    source: Literal["refit-window"] | None = Field(
        None, description="In place of a set: the rows that came with labels."
    )
    method: StrictStr | None = Field(None, description="How to fit; default: a setting.")
    promote: Literal["auto", "never", "always", "shadow"] = Field(
        "auto", description="`auto`: if admitted; `always` is recorded as forced."
    )
    version: Annotated[StrictInt, Field(ge=1)] | None = Field(
        None, description="Default: the live one."
    )
    allow_prediction_change: StrictBool | None = Field(
        None, description="Whether predictions may change; default: a setting."
    )
    force: StrictBool = Field(False, description="Fit even a very small set.")


class RollbackRequest(BaseModel):
    """Which revision's pair to put back."""

    model_config = example(revision=3)
    revision: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = Field(
        None, description="Default: what was live before the last promotion not yet undone."
    )


class LivePair(BaseModel):
    """What is live after a change."""

    model_config = example(model="digits", version=1, calibrator=_CALIBRATOR, revision=5)
    model: str
    version: int
    calibrator: str
    revision: int


class PromotionSummary(LivePair):
    """One revision of the history."""

    cause: str = Field(description="factory, admitted, forced, shadow or rollback")
    restores: int | None = Field(description="Of a rollback: the revision whose pair it put back.")
    fit: str | None = Field(description="The fit that promoted it.")
    promoted_by: str | None = Field(description="Id of the API key.")
    promoted_at: str


class VersionSummary(BaseModel):
    """A version and what it answers with."""

    version: int
    live: bool
    calibrator: str
    n_classes: int
    network: bool = Field(description="Whether images can be sent; else logits only.")


class UnavailableVersion(BaseModel):
    """A version that is refused, and why."""

    version: int
    reason: str


class ModelDescription(BaseModel):
    """A model, its live pair and its versions; `version` is null when none can be served."""

    model: str
    version: int | None
    calibrator: str | None
    revision: int | None
    n_classes: int | None
    class_names: list[str]
    declared: bool = Field(description="Over HTTP; else found in the model repository.")
    versions: list[VersionSummary]
    unavailable: list[UnavailableVersion]


class CalibrationSetSummary(BaseModel):
    """A stored calibration set."""

    model_config = example(
        digest=_DIGEST,
        names=["may"],
        n=597,
        n_classes=10,
        size_bytes=19_482,
        created_at="2026-05-04T10:00:00.000Z",
        created_by="team-a",
    )
    digest: str
    names: list[str]
    n: int
    n_classes: int
    size_bytes: int
    created_at: str
    created_by: str | None


class CalibratorSummary(BaseModel):
    """A calibrator in a list; its own address gives the whole document."""

    calibrator: str
    version: int
    kind: str
    origin: str = Field(description="factory or fit")
    admitted: bool
    live: bool
    calibration_set: str | None
    created_at: str


class Verdict(BaseModel):
    """Whether the candidate may go live by itself, and why."""

    admitted: bool
    reasons: list[str]


class FitSummary(BaseModel):
    """A fit; the report's fields are there once it is done, `error` once it ended otherwise."""

    model_config = example(
        fit="17",
        state="done",
        calibration_set=_DIGEST,
        version=1,
        method="smart",
        n=597,
        seconds=0.03,
        verdict={
            "admitted": True,
            "reasons": ["NLL 0.412 → 0.333 nats, 90 % interval of the difference −0.10 to −0.06"],
        },
        scores={
            "incumbent": {"ece": 0.061, "ece_floor": 0.013, "nll": 0.412},
            "candidate": {"ece": 0.012, "ece_floor": 0.012, "nll": 0.333},
        },
        calibrator=_CALIBRATOR,
        promoted=True,
        revision=4,
    )
    fit: str
    state: str = Field(description="queued, running, done, failed or cancelled")
    calibration_set: str
    version: int
    method: str
    n: int
    trigger: str | None = Field(
        None, description="Of one of the refit policy: `alarm:ID`, or `rows:VERSION:COUNT`."
    )
    progress: float | None = Field(
        None, description="Of one that waits or runs: which share is done, 0 to 1."
    )
    seconds: float | None = None
    verdict: Verdict | None = None
    scores: dict[str, dict[str, int | float | None] | None] | None = None
    calibrator: str | None = None
    promoted: bool | None = None
    revision: int | None = None
    error: str | None = None
    created_at: str | None = None
    finished_at: str | None = None
