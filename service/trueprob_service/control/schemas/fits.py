"""Bodies of the routes of calibration sets and fits, built from database rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from trueprob.findings.finding import Finding
from trueprob.fitting.methods import METHODS
from trueprob_service.control.schemas.base import EXAMPLE_CALIBRATOR, example, given, timestamp
from trueprob_service.control.store.calibration_sets import CalibrationSetRow
from trueprob_service.control.store.fits import ENDED, FitRow

__all__ = [
    "CalibrationSetSummary",
    "ConfidenceMeans",
    "FindingSummary",
    "FitBody",
    "FitSummary",
    "FitVerdict",
]

_DIGEST: Final = "sha256:8f0e6c1bd2a94c6f7e3b5a1d0c9f8e7d6c5b4a39281706f5e4d3c2b1a0998877"
# The same rows have one digest in every format, so notes belong to an answer and not to a set.
_NOTES: Final = (
    "how the body was understood where it does not say it itself, such as the separator of a "
    "table, columns taken as ids, a lone score, and rows that were normalised"
)


class FindingSummary(BaseModel):
    """A reason to doubt a calibration set or a fit on it."""

    code: str
    severity: Literal["hold", "warn"]
    sentence: str
    repair: dict[str, Any] | None = Field(
        description="`sentence`, and what the repair needs: `labels`, `rows`, `field`, `accuracy`."
    )


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
        findings=[],
    )
    digest: str
    names: list[str]
    n: int
    n_classes: int
    size_bytes: int
    created_at: str
    created_by: str | None
    findings: list[FindingSummary] | None = Field(
        None, description="What the check of the set found; null in lists, which check none."
    )

    notes: list[str] | None = Field(None, description=f"Of an append: {_NOTES}; else null.")

    @classmethod
    def from_row(
        cls,
        row: CalibrationSetRow,
        names: Sequence[str],
        findings: Sequence[Finding] | None = None,
    ) -> CalibrationSetSummary:
        """A stored set with the names that refer to it, and the findings if it was checked."""
        return cls(
            digest=row.digest,
            names=list(names),
            n=row.n_rows,
            n_classes=row.n_classes,
            size_bytes=row.size_bytes,
            created_at=timestamp(row.created_at),
            created_by=row.created_by,
            findings=None
            if findings is None
            else [FindingSummary(**each.to_dict()) for each in findings],
            notes=None,
        )


class FitBody(BaseModel):
    """Asks for a fit on rows that the service has: a stored set, or the refit window."""

    model_config = example(calibration_set="may", method="smart", promote="auto") | ConfigDict(
        json_schema_extra={
            "examples": [{"calibration_set": "may", "method": "smart", "promote": "auto"}],
            "oneOf": [given("calibration_set", "string"), given("source", "string")],
        }
    )
    calibration_set: StrictStr | None = Field(None, description="`sha256:…`, or a name.")
    source: Literal["refit-window"] | None = Field(
        None, description="The labelled rows of the refit window, instead of a set."
    )
    method: StrictStr | None = Field(
        None,
        description="How to fit; default: a setting.",
        json_schema_extra={"enum": [*METHODS, None]},
    )
    promote: Literal["auto", "never", "always", "shadow"] = Field(
        "auto", description="`auto`: if admitted; `always` is recorded as forced."
    )
    version: Annotated[StrictInt, Field(ge=1, le=2**31 - 1)] | None = Field(
        None, description="Default: the live one."
    )
    keep_prediction: StrictBool | None = Field(
        None, description="Whether every prediction stays; default: a setting."
    )
    allow_prediction_change: StrictBool | None = Field(
        None, description="Whether predictions may change; default: a setting."
    )
    force: StrictBool = Field(False, description="Fit even a very small set.")


class ConfidenceMeans(BaseModel):
    """Mean confidence under the incumbent and under the candidate, on the same rows."""

    rows: int
    before: float
    after: float


class ShareOfClass(BaseModel):
    """The share of a class among the labelled rows, and its estimate for recent traffic."""

    class_name: str
    before: float
    after: float


class LabelShiftSummary(BaseModel):
    """Whether the recent traffic has another mix of classes than the labelled rows.

    It changes nothing: `trueprob.check_label_shift` describes the figures.
    """

    advised: bool = Field(
        description="Whether adapting the live calibrator's probabilities to the mix is advised."
    )
    sentence: str = Field(description="The checks that decide, with their numbers.")
    rows: int = Field(description="Recent rows without labels.")
    classes: list[ShareOfClass] = Field(description="The five whose shares changed most.")


class FitVerdict(BaseModel):
    """Whether the candidate was admitted, and why."""

    admitted: bool
    outcome: Literal["admitted", "held", "refused"] = Field(
        description="`held`: a finding keeps the candidate from going live without force."
    )
    reasons: list[str] = Field(description="Those that decide come first.")
    findings: list[FindingSummary] = []
    set: ConfidenceMeans | None = Field(None, description="On the calibration set.")
    traffic: ConfidenceMeans | None = Field(
        None, description="On recent rows without labels; null if there were none."
    )
    label_shift: LabelShiftSummary | None = Field(
        None,
        description="Of 200 different recent rows or more, against 50 labelled rows or more that "
        "are new to the live calibrator; null otherwise.",
    )

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> FitVerdict:
        """The verdict of a stored fit; fits of 0.2.0 have no outcome."""
        outcome = "admitted" if document["admitted"] else "refused"
        return cls(**{"outcome": outcome, **document})


class FitSummary(BaseModel):
    """A fit. The report's fields are set once it is done, `error` if it ended otherwise."""

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
            "outcome": "admitted",
            "reasons": ["NLL 0.412 → 0.333 nats, 80 % interval of the difference −0.10 to −0.06"],
            "findings": [],
            "set": {"rows": 597, "before": 0.931, "after": 0.874},
            "traffic": {"rows": 512, "before": 0.926, "after": 0.869},
        },
        scores={
            "incumbent": {"ece": 0.061, "ece_floor": 0.013, "nll": 0.412},
            "candidate": {"ece": 0.012, "ece_floor": 0.012, "nll": 0.333},
        },
        calibrator=EXAMPLE_CALIBRATOR,
        promoted=True,
        revision=4,
    )
    fit: str
    state: str = Field(description="queued, running, done, failed, cancelled or superseded")
    calibration_set: str
    version: int
    method: str = Field(description="By its own name: with two classes smart is smart-binary.")
    n: int
    trigger: str | None = Field(
        None, description="For a fit that the refit policy started: `alarm:ID` or "
        "`rows:VERSION:COUNT`."
    )  # fmt: skip
    progress: float | None = Field(
        None, description="Share done of a waiting or running fit, 0 to 1."
    )
    seconds: float | None = None
    verdict: FitVerdict | None = None
    scores: dict[str, dict[str, int | float | None] | None] | None = None
    calibrator: str | None = None
    promoted: bool | None = None
    revision: int | None = None
    error: str | None = None
    created_at: str | None = None
    finished_at: str | None = None
    notes: list[str] | None = Field(None, description=f"Of an upload: {_NOTES}.")

    @property
    def has_ended(self) -> bool:
        """Whether the fit is done, failed, was cancelled or superseded."""
        return self.state in ENDED

    @classmethod
    def from_row(cls, row: FitRow, *, n: int) -> FitSummary:
        """The report of a fit on n rows, with the fields that apply to its state."""
        fields: dict[str, Any] = {}
        if row.state == "done":
            fields = {
                "seconds": row.seconds,
                "verdict": None if row.verdict is None else FitVerdict.from_document(row.verdict),
                "scores": row.scores,
                "calibrator": row.calibrator,
                "promoted": row.promoted,
                "revision": row.revision,
            }
        elif row.state in ENDED:
            fields = {"error": row.error}
        else:
            fields = {"progress": row.progress or 0.0}
        if row.trigger is not None:
            fields["trigger"] = row.trigger
        return cls(
            fit=str(row.id),
            state=row.state,
            calibration_set=row.calibration_set,
            version=row.version,
            method=row.method,
            n=n,
            **fields,
        )

    @classmethod
    def with_times(cls, row: FitRow, *, n: int) -> FitSummary:
        """The report, with the times at which the fit was created and finished."""
        report = cls.from_row(row, n=n)
        report.created_at = timestamp(row.created_at)
        if row.finished_at is not None:
            report.finished_at = timestamp(row.finished_at)
        return report
