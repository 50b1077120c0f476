"""What the database knows that Prometheus is told: plain values between the two.

The control plane fills these from its tables; `trueprob_service.metrics.telemetry` exports them.
Neither knows the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trueprob.scores.binned import BinnedCalibration

__all__ = ["AlarmFigures", "ControlStatistics", "PairStatistics"]


@dataclass(frozen=True)
class AlarmFigures:
    """The sequential statistics of a live promotion, as logarithms to base 10."""

    evidence_log10: float
    evidence_threshold_log10: float
    change_log10: float
    change_threshold_log10: float


@dataclass(frozen=True)
class PairStatistics:
    """Label statistics of one (model, version, calibrator)."""

    model: str
    version: int
    calibrator: str
    live: bool  # gauges are exported for the live pair only; counters linger
    # over every label counted since the pair was first promoted; never falls
    totals: BinnedCalibration
    window: BinnedCalibration  # over about the last `window_labels` labels
    # ECE on the calibration split, as a fraction, from the version's `baseline.npz`
    baseline_ece: float | None
    alarm: AlarmFigures | None = None  # of the live promotion


@dataclass(frozen=True)
class ControlStatistics:
    """One consistent reading of what the control plane has stored."""

    pairs: tuple[PairStatistics, ...] = ()
    fits: Mapping[tuple[str, str, str], int] = field(default_factory=dict)  # fits that ended, ever
    fit_queue: Mapping[tuple[str, str], int] = field(default_factory=dict)  # fits that wait or run
    # `method` is the calibrator's kind; `outcome` says how it came about (admitted, forced,
    # rollback, factory, shadow)
    promotions: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    alarms: Mapping[tuple[str, str], int] = field(default_factory=dict)  # alarms ever raised
    # fits of the refit policy that ended
    refits: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    # further gauges: by name in the catalogue, the value of each set of labels
    gauges: Mapping[str, Mapping[tuple[str, ...], float]] = field(default_factory=dict)
