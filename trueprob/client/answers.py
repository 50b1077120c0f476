"""What the service answers, as frozen values. Fields that a later service adds are left aside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

__all__ = [
    "AlarmSummary",
    "Calibration",
    "CalibrationSetSummary",
    "CalibratorSummary",
    "FitSummary",
    "FitVerdict",
    "LabelOutcome",
    "LabelOutcomes",
    "LivePair",
    "ModelDescription",
    "PromotionSummary",
    "VersionSummary",
    "read",
]

T = TypeVar("T")


def read(kind: type[T], document: Mapping[str, Any]) -> T:
    """A value of this kind; what the document leaves out is None or the field's default.

    A field's metadata ``of`` names the kind of its value, or of each item of its list.
    """
    values: dict[str, Any] = {}
    for each in fields(kind):  # type: ignore[arg-type]  # every kind here is a dataclass
        value, of = document.get(each.name), each.metadata.get("of")
        if value is not None and of is not None:
            value = (
                tuple(read(of, item) for item in value)
                if isinstance(value, list)
                else read(of, value)
            )
        elif isinstance(value, list):
            value = tuple(value)
        if value is not None or each.name in document:
            values[each.name] = value
    return kind(**values)


@dataclass(frozen=True)
class LivePair:
    """What is live."""

    model: str
    version: int
    calibrator: str
    revision: int


@dataclass(frozen=True)
class PromotionSummary(LivePair):
    """One revision of the history; ``cause`` is factory, admitted, forced or rollback."""

    cause: str
    promoted_at: str
    restores: int | None = None
    fit: str | None = None
    promoted_by: str | None = None


@dataclass(frozen=True)
class VersionSummary:
    """A version of a model and what it answers with."""

    version: int
    live: bool
    calibrator: str
    n_classes: int
    network: bool


@dataclass(frozen=True)
class ModelDescription:
    """A model, its live pair and its versions; ``version`` is None when none can be served."""

    model: str
    version: int | None
    calibrator: str | None
    revision: int | None
    n_classes: int | None
    class_names: tuple[str, ...]
    declared: bool
    versions: tuple[VersionSummary, ...] = field(metadata={"of": VersionSummary})
    unavailable: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class CalibrationSetSummary:
    """A stored set of n rows."""

    digest: str
    names: tuple[str, ...]
    n: int
    n_classes: int
    size_bytes: int
    created_at: str
    created_by: str | None


@dataclass(frozen=True)
class CalibratorSummary:
    """A calibrator in a list."""

    calibrator: str
    version: int
    kind: str
    origin: str
    admitted: bool
    live: bool
    calibration_set: str | None
    created_at: str


@dataclass(frozen=True)
class FitVerdict:
    """Whether the candidate may go live by itself, and why, in sentences."""

    admitted: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class FitSummary:
    """A fit; what its state does not have is None.

    Attributes
    ----------
    state : str
        queued, running, done, failed or cancelled.
    """

    fit: str
    state: str
    calibration_set: str
    version: int
    method: str
    n: int
    progress: float | None = None
    seconds: float | None = None
    verdict: FitVerdict | None = field(default=None, metadata={"of": FitVerdict})
    scores: Mapping[str, Mapping[str, float | None] | None] | None = None
    calibrator: str | None = None
    promoted: bool | None = None
    revision: int | None = None
    error: str | None = None
    created_at: str | None = None
    finished_at: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True)
class LabelOutcome:
    """A label that was not accepted."""

    index: int
    outcome: str


@dataclass(frozen=True)
class LabelOutcomes:
    """What became of labels; ``outcomes`` holds those that were not accepted."""

    accepted: int
    duplicate: int
    rejected: int
    outcomes: tuple[LabelOutcome, ...] = field(metadata={"of": LabelOutcome})


@dataclass(frozen=True)
class AlarmSummary(LivePair):
    """An alarm; ``statistic`` is evidence or change, ``log10`` what it was when it was raised."""

    id: str
    statistic: str
    log10: float
    threshold_log10: float
    tolerance: float
    labels: int
    raised_at: str
    acknowledged_at: str | None
    acknowledged_by: str | None


@dataclass(frozen=True)
class Calibration(LivePair):
    """How well the live pair's confidence has held over a window."""

    window: str
    labels: int
    ece: float | None
    ece_floor: float | None
    miscalibrated: bool
    drift_ratio: float | None
    expected_accuracy: float | None
    observed_accuracy: float | None
    advice: str
    bins: tuple[Mapping[str, float], ...]
    baseline: Mapping[str, float]
    evidence_log10: float | None = None
    evidence_threshold_log10: float | None = None
    change_log10: float | None = None
    change_threshold_log10: float | None = None
    alarm: AlarmSummary | None = field(default=None, metadata={"of": AlarmSummary})
