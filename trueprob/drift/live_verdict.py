"""The verdict on a live model: one state and one sentence, for every place that states one.

| state | meaning |
|---|---|
| `within_tolerance` | proven: the error is at most the tolerance on average, and no alarm stands |
| `unknown` | not enough labels yet to prove either |
| `changed_lately` | an alarm of change stands; the numbers are those since that alarm |
| `off` | proven: an alarm of evidence stands, or the error, or that of a class, is too large |

The error is that of `trueprob.drift.error_interval`, over five ranges of confidence. It is another
number than the ECE of 15 bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from trueprob.drift.error_interval import ErrorInterval, ErrorSums

__all__ = ["LEADS", "LiveVerdict", "VerdictState", "live_verdict"]


class VerdictState(StrEnum):
    """States of a verdict, from good to bad."""

    WITHIN_TOLERANCE = "within_tolerance"
    UNKNOWN = "unknown"
    CHANGED_LATELY = "changed_lately"
    OFF = "off"


# The first words of each sentence, which dashboards show by themselves.
LEADS: Final = {
    VerdictState.WITHIN_TOLERANCE: "Calibrated within the tolerance",
    VerdictState.UNKNOWN: "Too few labels to tell",
    VerdictState.CHANGED_LATELY: "Changed lately",
    VerdictState.OFF: "Off",
}


@dataclass(frozen=True)
class LiveVerdict:
    """What labels prove about a live model.

    Attributes
    ----------
    state : VerdictState
    sentence : str
    error_low, error_high : float
        Interval of the error, a fraction; 0 and 1 without labels.
    labels : int
        Labels (units) that the interval is computed from.
    labels_needed : int or None
        About how many more labels decide; only while `unknown`.
    """

    state: VerdictState
    sentence: str
    error_low: float
    error_high: float
    labels: int
    labels_needed: int | None = None


def live_verdict(
    interval: ErrorInterval,
    *,
    since_promotion: ErrorSums,
    since_change: ErrorSums | None,
    tolerance: float,
    evidence_alarm: bool,
    change_alarm: bool,
    class_tolerance: float | None = None,
) -> LiveVerdict:
    """The verdict on a live model.

    Parameters
    ----------
    interval : ErrorInterval
    since_promotion : ErrorSums
        Of all labels since the model went live.
    since_change : ErrorSums or None
        Of those after the newest alarm of change; None if there was none.
    tolerance : float
        Error that is not worth an alarm.
    evidence_alarm, change_alarm : bool
        Whether such an alarm stands: evidence until the next promotion, change until it is
        acknowledged.
    class_tolerance : float, optional
        Error of one class's predictions that is not worth an alarm. If a class is proven to be
        off by more, the model is `off`.
    """
    sums = since_promotion if since_change is None else since_change
    low, high = interval.bounds(sums)
    if change_alarm and not evidence_alarm:
        state = VerdictState.CHANGED_LATELY
    elif evidence_alarm or low > tolerance or _class_is_off(interval, sums, class_tolerance):
        state = VerdictState.OFF
        earlier_low, earlier_high = interval.bounds(since_promotion)
        if earlier_low >= low:  # the longer stream proves more
            sums, low, high = since_promotion, earlier_low, earlier_high
    elif high <= tolerance:
        state = VerdictState.WITHIN_TOLERANCE
    else:
        state = VerdictState.UNKNOWN
    needed = interval.labels_needed(sums, tolerance) if state is VerdictState.UNKNOWN else None
    if needed is not None:
        needed = _rounded_up(needed)
    sentence = f"{LEADS[state]}{_rest(state, sums.n, low, high, tolerance, needed)}."
    return LiveVerdict(state, sentence, low, high, sums.n, needed)


def _rest(
    state: VerdictState, n: int, low: float, high: float, tolerance: float, needed: int | None
) -> str:
    allowed = f"{100.0 * tolerance:.1f} %"
    span = f"{100.0 * low:.1f} to {100.0 * high:.1f} %"
    labels = f"{n} label{'s' * (n != 1)}"
    if state is VerdictState.OFF:
        if low > tolerance:
            return f" by {span} on average over {labels}, tolerance {allowed}"
        part = f" by more than the tolerance of {allowed} for some predictions"
        return f"{part}; by {span} on average over {labels}"
    if state is VerdictState.CHANGED_LATELY:
        if n == 0:
            return ": no labels since the alarm"
        return f": off by {span} on average over the {labels} since the alarm"
    if n == 0:
        return ": none has come yet"
    error = f": the error is {span} on average over {labels}, tolerance {allowed}"
    return error if needed is None else f"{error}; about {needed} more decide"


def _class_is_off(interval: ErrorInterval, sums: ErrorSums, tolerance: float | None) -> bool:
    return tolerance is not None and interval.classes_off(sums, tolerance) > 0


def _rounded_up(n: int) -> int:
    """To two digits, upwards."""
    step = int(10 ** max(len(str(n)) - 2, 0))
    return -(-n // step) * step
