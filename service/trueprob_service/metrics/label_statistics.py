"""Statistics of labels, fits and promotions from the database, as plain values.

The control plane fills them from its tables, and `trueprob_service.metrics.telemetry` exports them.
Neither imports the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trueprob.drift import LiveVerdict
from trueprob.scores.binned import BinnedCalibration

__all__ = ["AlarmFigures", "ClassFigures", "ControlStatistics", "PairStatistics"]


@dataclass(frozen=True)
class AlarmFigures:
    """Sequential statistics of a live pair and their alarm thresholds, as log10."""

    evidence_log10: float
    evidence_threshold_log10: float
    change_log10: float
    change_threshold_log10: float


@dataclass(frozen=True)
class ClassFigures:
    """Calibration of a live pair over its predicted classes; the fields are names of gauges."""

    class_error_ratio: float
    class_error_floor_ratio: float
    class_error_low_ratio: float
    class_error_high_ratio: float
    classes_off: int


@dataclass(frozen=True)
class PairStatistics:
    """Label statistics of one pair: (model, version, calibrator)."""

    model: str
    version: int
    calibrator: str
    live: bool  # gauges are exported for live pairs only, counters for all
    # Labels since the first promotion, without those in `by_prediction`. Like these and
    # `by_class` it never decreases, and has no labels if totals were not requested.
    totals: BinnedCalibration
    window: BinnedCalibration  # about the last `window_labels` labels
    baseline_ece: float | None  # fraction, on the calibration split, from `baseline.npz`
    alarm: AlarmFigures | None = None  # since the promotion that is live
    verdict: LiveVerdict | None = None  # of the promotion that is live
    classes: ClassFigures | None = None  # of that promotion; None before its first label
    # With two classes: labels of predictions of class 0 and of class 1.
    by_prediction: tuple[BinnedCalibration, ...] = ()
    # With 3 to 16 classes: labels, Σp, Σy and Σ(y − p)² by the name of the predicted class.
    by_class: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def has_labels(self) -> bool:
        """Whether any of the totals has labels."""
        return any(sums.n > 0 for sums in (self.totals, *self.by_prediction))


@dataclass(frozen=True)
class ControlStatistics:
    """One consistent reading of the database; keys are label values, as in the catalogue."""

    pairs: tuple[PairStatistics, ...] = ()
    fits: Mapping[tuple[str, str, str], int] = field(default_factory=dict)  # all that ended
    fit_queue: Mapping[tuple[str, str], int] = field(default_factory=dict)  # that wait or run
    promotions: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    alarms: Mapping[tuple[str, str], int] = field(default_factory=dict)  # all ever raised
    refits: Mapping[tuple[str, str, str], int] = field(default_factory=dict)  # all that ended
    # Further gauges by their names in the catalogue.
    gauges: Mapping[str, Mapping[tuple[str, ...], float]] = field(default_factory=dict)
    read_at: float | None = None  # seconds since 1970; None before the first reading
