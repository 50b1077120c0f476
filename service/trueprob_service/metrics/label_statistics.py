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
    """Label statistics of one (model, version, calibrator).

    Attributes
    ----------
    model, version, calibrator : str, int, str
    live : bool
        Gauges are exported for the live pair only; counters linger.
    totals : BinnedCalibration
        Over every label counted since the pair was first promoted; never falls.
    window : BinnedCalibration
        Over about the last ``window_labels`` labels.
    baseline_ece : float or None
        ECE on the calibration split, as a fraction, from the version's ``baseline.npz``.
    alarm : AlarmFigures or None
        Of the live promotion.
    """

    model: str
    version: int
    calibrator: str
    live: bool
    totals: BinnedCalibration
    window: BinnedCalibration
    baseline_ece: float | None
    alarm: AlarmFigures | None = None


@dataclass(frozen=True)
class ControlStatistics:
    """One consistent reading of what the control plane has stored.

    Attributes
    ----------
    pairs : tuple of PairStatistics
    fits : mapping of (model, method, outcome) to int
        Fits that ended, ever.
    fit_queue : mapping of (model, method) to int
        Fits that wait or run.
    promotions : mapping of (model, method, outcome) to int
        ``method`` is the calibrator's kind; ``outcome`` says how it came about (admitted, forced,
        rollback, factory, shadow).
    alarms : mapping of (model, statistic) to int
        Alarms ever raised.
    refits : mapping of (model, trigger, outcome) to int
        Fits of the refit policy that ended.
    gauges : mapping of str to mapping of tuple of str to float
        Further gauges: by name in the catalogue, the value of each set of labels.
    """

    pairs: tuple[PairStatistics, ...] = ()
    fits: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    fit_queue: Mapping[tuple[str, str], int] = field(default_factory=dict)
    promotions: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    alarms: Mapping[tuple[str, str], int] = field(default_factory=dict)
    refits: Mapping[tuple[str, str, str], int] = field(default_factory=dict)
    gauges: Mapping[str, Mapping[tuple[str, ...], float]] = field(default_factory=dict)
