"""Writes one sentence that explains label statistics and alarms, and advises what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from trueprob.scores.binned import BinnedCalibration
from trueprob_service.control.store.alarms import AlarmRow

__all__ = ["advice"]

# Below this sum of p(1 - p) the normal approximation of the noise floor is too rough.
_ENOUGH_VARIANCE: Final = 20.0


def advice(
    model: str,
    window: str,  # as the client wrote it
    binned: BinnedCalibration,  # the labels of the window
    *,
    tolerance: float,  # calibration error that is not worth an alarm
    alarms: Sequence[AlarmRow] = (),  # of the live promotion
) -> str:
    """One sentence on the labels of a window and what to do."""
    active = [alarm for alarm in alarms if alarm.is_active]
    if active:
        return _alarm_advice(model, window, binned, tolerance, active)
    n = int(binned.n)
    labels = f"{n} label" if n == 1 else f"{n} labels"
    if n == 0:
        return (
            f"No labels in the last {window}: send them to /v1/models/{model}/labels to learn "
            "whether the model is calibrated."
        )
    if not _enough(binned):
        are = "is" if n == 1 else "are"
        return f"{labels} {are} too few to tell: collect more before judging the calibration."
    if not binned.miscalibrated(tolerance):
        return f"Calibrated, as far as {labels} can tell."
    how = _direction(binned, tolerance) or "confidence is too high in some bins, too low in others"
    return (
        f"Miscalibrated: ECE {binned.ece():.3f} where noise explains {binned.ece_floor():.3f} and "
        f"{how}; upload recent labelled rows to /v1/models/{model}/calibration-sets."
    )


def _alarm_advice(
    model: str,
    window: str,
    binned: BinnedCalibration,
    tolerance: float,
    active: Sequence[AlarmRow],
) -> str:
    """The sentence while alarms are active, whatever the window shows."""
    by_time = sorted(active, key=lambda alarm: alarm.id)
    reasons = " and ".join(_reason(alarm) for alarm in by_time)
    how = _direction(binned, tolerance) if _enough(binned) else ""
    now = f"; in the last {window} {how}" if how else ""
    unseen = [str(alarm.id) for alarm in by_time if alarm.acknowledged_at is None]
    then = (
        f", then acknowledge {_alarms(unseen)}."
        if unseen
        else ": a promotion resets the statistics."
    )
    return (
        f"Miscalibrated by more than {by_time[-1].tolerance:g}: {reasons}{now}; upload recent "
        f"labelled rows to /v1/models/{model}/calibration-sets and promote what is admitted{then}"
    )


def _alarms(ids: Sequence[str]) -> str:
    return f"alarm {ids[0]}" if len(ids) == 1 else f"alarms {' and '.join(ids)}"


def _reason(alarm: AlarmRow) -> str:
    reached = f"10^{alarm.log10:.1f} after {alarm.counted} labels"
    threshold = f"10^{alarm.threshold_log10:.1f}"
    if alarm.statistic == "evidence":
        probability = 10**-alarm.threshold_log10
        return (
            f"evidence since the promotion was {reached} (a calibrated pair ever reaches "
            f"{threshold} with probability {probability:.3g} at most)"
        )
    labels = 10**alarm.threshold_log10
    return (
        f"change was {reached} (a calibrated pair reaches {threshold} once in {labels:.0f} labels "
        "at most)"
    )


def _enough(binned: BinnedCalibration) -> bool:
    return float(binned.variance.sum()) >= _ENOUGH_VARIANCE


def _direction(binned: BinnedCalibration, tolerance: float) -> str:
    """A phrase if confidence is too high or too low on average; empty otherwise."""
    excess = binned.mean_confidence() - binned.accuracy()
    if abs(excess) <= tolerance:
        return ""
    return f"confidence is {abs(excess):.3f} too {'high' if excess > 0 else 'low'} on average"
