"""Answers of the service as frozen dataclasses.

Each class except the two predictions has the name of its schema in the service's
OpenAPI document. Fields that a newer service adds are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.files import read_arrays
from trueprob.client.requests import NPZ
from trueprob.client.transport import HttpResponse

__all__ = [
    "AlarmSummary",
    "Calibration",
    "CalibrationSetSummary",
    "CalibrationVerdict",
    "CalibratorSummary",
    "ClassCalibration",
    "ConfidenceMeans",
    "FindingSummary",
    "FitSummary",
    "FitVerdict",
    "LabelOutcome",
    "LabelOutcomes",
    "LivePair",
    "ModelDescription",
    "PartialPrediction",
    "Prediction",
    "PromotionSummary",
    "ShadowSummary",
    "VersionSummary",
    "combined",
    "partial_prediction_from",
    "prediction_from",
    "read",
]

T = TypeVar("T")


@dataclass(frozen=True)
class LivePair:
    """The version and the calibrator that answer the requests to a model."""

    model: str
    version: int
    calibrator: str
    revision: int


@dataclass(frozen=True)
class PromotionSummary(LivePair):
    """One promotion in the history of a model."""

    cause: str  # factory, admitted, forced, shadow, rollback or reverted
    promoted_at: str
    restores: int | None = None
    fit: str | None = None
    promoted_by: str | None = None


@dataclass(frozen=True)
class CalibrationVerdict:
    """What the labels since the promotion prove about the live pair."""

    state: str  # within_tolerance, unknown, changed_lately or off
    sentence: str
    error_low: float  # interval of the average error, a fraction, that holds at all times
    error_high: float
    labels: int
    labels_needed: int | None  # about so many more decide, while the state is unknown


@dataclass(frozen=True)
class VersionSummary:
    """A version of a model, with its calibrator."""

    version: int
    live: bool
    calibrator: str
    n_classes: int
    network: bool


@dataclass(frozen=True)
class ModelDescription:
    """A model with its live pair and its versions."""

    model: str
    version: int | None  # None if no version can be served
    calibrator: str | None
    revision: int | None
    n_classes: int | None
    class_names: tuple[str, ...]
    declared: bool
    versions: tuple[VersionSummary, ...] = field(metadata={"item_type": VersionSummary})
    unavailable: tuple[Mapping[str, Any], ...]
    verdict: CalibrationVerdict | None = field(  # on the live pair
        default=None, metadata={"item_type": CalibrationVerdict}
    )


@dataclass(frozen=True)
class FindingSummary:
    """A reason to doubt a calibration set or a fit on it, as `trueprob.Finding`."""

    code: str
    severity: str  # hold or warn
    sentence: str
    repair: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.sentence}; {self.repair['sentence']}" if self.repair else self.sentence


@dataclass(frozen=True)
class CalibrationSetSummary:
    """A stored calibration set of n rows. Lists check no set: ``findings`` is None there."""

    digest: str
    names: tuple[str, ...]
    n: int
    n_classes: int
    size_bytes: int
    created_at: str
    created_by: str | None
    findings: tuple[FindingSummary, ...] | None = field(
        default=None, metadata={"item_type": FindingSummary}
    )


@dataclass(frozen=True)
class CalibratorSummary:
    """A calibrator of a model, without its parameters."""

    calibrator: str
    version: int
    kind: str
    origin: str
    admitted: bool
    live: bool
    calibration_set: str | None
    created_at: str
    reverted: bool = False  # labels proved it worse; only force promotes it again


@dataclass(frozen=True)
class ConfidenceMeans:
    """Mean confidence on some rows before and after a promotion of the candidate."""

    rows: int
    before: float
    after: float


@dataclass(frozen=True)
class FitVerdict:
    """Whether the candidate was admitted, and the reasons, in sentences.

    Attributes
    ----------
    outcome : str
        admitted, held (a finding keeps it from going live without force) or refused.
    set, traffic : ConfidenceMeans or None
        On the calibration set, and on recent rows without labels.
    label_shift : mapping or None
        Whether those rows have another mix of classes: advised, sentence, rows, classes.
    """

    admitted: bool
    reasons: tuple[str, ...]
    outcome: str | None = None
    findings: tuple[FindingSummary, ...] = field(default=(), metadata={"item_type": FindingSummary})
    set: ConfidenceMeans | None = field(default=None, metadata={"item_type": ConfidenceMeans})
    traffic: ConfidenceMeans | None = field(default=None, metadata={"item_type": ConfidenceMeans})
    label_shift: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class FitSummary:
    """A fit. Fields that its state does not have are None.

    Attributes
    ----------
    state : str
        queued, running, done, failed, cancelled or superseded (by a later request).
    """

    fit: str
    state: str
    calibration_set: str
    version: int
    method: str
    n: int
    progress: float | None = None
    seconds: float | None = None
    verdict: FitVerdict | None = field(default=None, metadata={"item_type": FitVerdict})
    scores: Mapping[str, Mapping[str, float | None] | None] | None = None
    calibrator: str | None = None
    promoted: bool | None = None
    revision: int | None = None
    error: str | None = None
    created_at: str | None = None
    finished_at: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the fit is done, failed, cancelled or superseded."""
        return self.state in ("done", "failed", "cancelled", "superseded")


@dataclass(frozen=True)
class LabelOutcome:
    """A label whose outcome is not ``accepted``."""

    index: int
    outcome: str


@dataclass(frozen=True)
class LabelOutcomes:
    """How many labels were accepted; ``outcomes`` lists all other outcomes."""

    accepted: int
    duplicate: int
    rejected: int
    outcomes: tuple[LabelOutcome, ...] = field(metadata={"item_type": LabelOutcome})


@dataclass(frozen=True)
class ClassCalibration:
    """The predictions of one class since the promotion."""

    class_name: str
    labels: float
    share: float  # of all labels
    confidence: float  # mean
    frequency: float  # share of right predictions
    sentence: str
    low: float | None = None  # interval of the gap between confidence and frequency
    high: float | None = None


@dataclass(frozen=True)
class AlarmSummary(LivePair):
    """An alarm of a model."""

    id: str
    statistic: str  # evidence or change
    log10: float  # the statistic when the alarm was raised
    threshold_log10: float
    tolerance: float
    labels: int
    raised_at: str
    acknowledged_at: str | None
    acknowledged_by: str | None
    worst_class: ClassCalibration | None = field(
        default=None, metadata={"item_type": ClassCalibration}
    )


@dataclass(frozen=True)
class Calibration(LivePair):
    """Calibration of the live pair, from the labels of a window."""

    window: str
    labels: int
    ece: float | None
    ece_floor: float | None
    drift_ratio: float | None
    expected_accuracy: float | None
    observed_accuracy: float | None
    verdict: CalibrationVerdict = field(metadata={"item_type": CalibrationVerdict})
    advice: str
    class_error_low: float
    class_error_high: float
    classes: tuple[ClassCalibration, ...] = field(metadata={"item_type": ClassCalibration})
    bins: tuple[Mapping[str, float], ...]
    baseline: Mapping[str, float]
    evidence_log10: float | None = None
    evidence_threshold_log10: float | None = None
    change_log10: float | None = None
    change_threshold_log10: float | None = None
    alarm: AlarmSummary | None = field(default=None, metadata={"item_type": AlarmSummary})
    binary: Mapping[str, Any] | None = None  # P(class 1), with two classes


@dataclass(frozen=True)
class ShadowSummary(LivePair):
    """A calibrator in the shadow of the live pair, and the evidence for and against it."""

    state: str
    policy: str
    labels: int
    better_log10: float
    worse_log10: float
    threshold_log10: float
    alpha: float
    promoted: int | None  # the revision that made it live
    started_at: str
    started_by: str | None
    ended_at: str | None
    role: str = "candidate"  # or predecessor


@dataclass(frozen=True, eq=False)
class Prediction:
    """Calibrated probabilities of n rows, and the live pair that gave them.

    Attributes
    ----------
    model, version, calibrator : str, int, str
    revision : int or None
        None for a version that is not live.
    probabilities : ndarray of shape (n, k), float32
    prediction : ndarray of shape (n,), int64
        Class indices.
    classes : tuple of n str
        The class name of each prediction.
    confidence : ndarray of shape (n,), float64
        The probability of each prediction.
    temperature : ndarray of shape (n,), float64, or None
        None for a calibrator without temperatures.
    log_odds : ndarray of shape (n,), float64, or None
        log P(1) − log P(0), in nats; None for all calibrators but `smart-binary`.
    prediction_ids : tuple of n str, or None
        For `Client.label`; None without receipts.
    """

    model: str
    version: int
    calibrator: str
    revision: int | None
    probabilities: NDArray[np.float32]
    prediction: NDArray[np.int64]
    classes: tuple[str, ...]
    confidence: NDArray[np.float64]
    temperature: NDArray[np.float64] | None
    log_odds: NDArray[np.float64] | None
    prediction_ids: tuple[str, ...] | None


@dataclass(frozen=True, eq=False)
class PartialPrediction:
    """The requested fields of a prediction of n rows; the others are None.

    Attributes
    ----------
    version, calibrator : int, str
        Never None.
    revision : int or None
        None for a version that is not live.
    probabilities : ndarray of shape (n, k), float32
    prediction : ndarray of shape (n,), int64
        Class indices.
    classes : tuple of n str
        The class name of each prediction.
    confidence, temperature, p1, logit_gap : ndarray of shape (n,), float64
        `p1` is P(class 1) of two classes. The logit gap is in nats.
    log_odds : ndarray of shape (n,), float64
        log P(1) − log P(0), in nats; None for all calibrators but `smart-binary`.
    logits : ndarray of shape (n, k), float32
    prediction_ids : tuple of n str
        For `Client.label`.
    top_indices : ndarray of shape (n, m), int64
        The m most likely classes, the prediction first.
    top_classes : tuple of n tuples of m str
        Their names.
    top_probabilities : ndarray of shape (n, m), float32
        Their probabilities.
    """

    version: int
    calibrator: str
    revision: int | None
    probabilities: NDArray[np.float32] | None = None
    prediction: NDArray[np.int64] | None = None
    classes: tuple[str, ...] | None = None
    confidence: NDArray[np.float64] | None = None
    temperature: NDArray[np.float64] | None = None
    log_odds: NDArray[np.float64] | None = None
    p1: NDArray[np.float64] | None = None
    logit_gap: NDArray[np.float64] | None = None
    logits: NDArray[np.float32] | None = None
    prediction_ids: tuple[str, ...] | None = None
    top_indices: NDArray[np.int64] | None = None
    top_classes: tuple[tuple[str, ...], ...] | None = None
    top_probabilities: NDArray[np.float32] | None = None


def read(kind: type[T], response: HttpResponse) -> T:
    """Read a response as this dataclass."""
    return value_of(kind, response.json())


def value_of(kind: type[T], document: Mapping[str, Any]) -> T:
    """Read a document as this dataclass; a missing member is the field's default.

    The metadata ``item_type`` of a field is the dataclass of its value, or of its list items.
    """
    values: dict[str, Any] = {}
    for each in fields(kind):  # type: ignore[arg-type]  # every kind here is a dataclass
        value, item_type = document.get(each.name), each.metadata.get("item_type")
        if isinstance(value, list):
            value = tuple(
                value if item_type is None else (value_of(item_type, item) for item in value)
            )
        elif value is not None and item_type is not None:
            value = value_of(item_type, value)
        if value is not None or each.name in document:
            values[each.name] = value
    return kind(**values)


def combined(total: LabelOutcomes, added: LabelOutcomes, start: int) -> LabelOutcomes:
    """Add the outcomes of a request whose first label has the index ``start``."""
    return LabelOutcomes(
        total.accepted + added.accepted,
        total.duplicate + added.duplicate,
        total.rejected + added.rejected,
        (*total.outcomes, *(LabelOutcome(o.index + start, o.outcome) for o in added.outcomes)),
    )


def prediction_from(response: HttpResponse) -> Prediction:
    """Read the answer to `Client.predict`."""
    document, arrays = _decoded(response)
    optional = dict.fromkeys(("revision", "temperature", "log_odds", "prediction_ids"))
    found: dict[str, Any] = {**optional, **document, **arrays}
    return Prediction(**{each.name: found[each.name] for each in fields(Prediction)})


def partial_prediction_from(response: HttpResponse) -> PartialPrediction:
    """Read the answer to `Client.predict_fields`; its headers name version and calibrator."""
    revision = response.headers.get("trueprob-revision")
    return PartialPrediction(
        version=int(response.headers["trueprob-version"]),
        calibrator=response.headers["trueprob-calibrator"],
        revision=None if revision is None else int(revision),
        **_decoded(response)[1],
    )


def _decoded(response: HttpResponse) -> tuple[dict[str, Any], dict[str, Any]]:
    """The members of an answer in JSON or ``.npz``, and the fields of its rows, converted."""
    if response.headers.get("content-type", "") == NPZ:
        arrays = read_arrays(response.content, name="the answer")
        document = {name: array if array.ndim else array.item() for name, array in arrays.items()}
    else:
        document = response.json()
    return document, {
        "classes" if name == "class" else name: _READ[name](value)
        for name, value in document.items()
        if value is not None and name in _READ
    }


def _as_float32(values: Any) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)


def _as_float64(values: Any) -> NDArray[np.float64]:
    """As float64, rounded to float32 first: the service writes the shortest decimals of float32."""
    return np.asarray(values, np.float32).astype(np.float64)


def _as_int64(values: Any) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)


def _as_texts(values: Any) -> tuple[Any, ...]:
    """A tuple of texts, or of one tuple of texts for each row."""
    listed = values.tolist() if isinstance(values, np.ndarray) else values
    return tuple(tuple(value) if isinstance(value, list) else value for value in listed)


_READ: Final[Mapping[str, Callable[[Any], Any]]] = {
    "probabilities": _as_float32,
    "prediction": _as_int64,
    "class": _as_texts,
    "confidence": _as_float64,
    "temperature": _as_float64,
    "log_odds": lambda values: np.asarray(values, np.float64),
    "p1": _as_float64,
    "logit_gap": _as_float64,
    "logits": _as_float32,
    "prediction_ids": _as_texts,
    "top_indices": _as_int64,
    "top_classes": _as_texts,
    "top_probabilities": _as_float32,
}
