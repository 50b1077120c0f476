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

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from trueprob.drift.error_interval import ErrorInterval, ErrorSums

__all__ = ["LEADS", "LiveSums", "LiveVerdict", "VerdictState", "live_verdict", "live_verdicts"]


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


class LiveSums(NamedTuple):
    """What the verdict on one model is made of; as the arguments of `live_verdict`."""

    since_promotion: ErrorSums
    since_change: ErrorSums | None
    evidence_alarm: bool
    change_alarm: bool


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
    stream = LiveSums(since_promotion, since_change, evidence_alarm, change_alarm)
    return live_verdicts(interval, [stream], tolerance=tolerance, class_tolerance=class_tolerance)[
        0
    ]


def live_verdicts(
    interval: ErrorInterval,
    streams: Sequence[LiveSums],
    *,
    tolerance: float,
    class_tolerance: float | None = None,
) -> list[LiveVerdict]:
    """`live_verdict` on each of many models, in much less time than one after another."""
    shown = [s.since_promotion if s.since_change is None else s.since_change for s in streams]
    bounds = interval.bounds_of_each(shown)
    off = [0] * len(streams)
    if class_tolerance is not None:
        off = interval.classes_off_of_each(shown, class_tolerance)
    states = []
    for index, (stream, (low, high)) in enumerate(zip(streams, bounds, strict=True)):
        if stream.change_alarm and not stream.evidence_alarm:
            state = VerdictState.CHANGED_LATELY
        elif stream.evidence_alarm or low > tolerance or off[index]:
            state = VerdictState.OFF
            if stream.since_change is not None:
                earlier = interval.bounds(stream.since_promotion)
                if earlier[0] >= low:  # the longer stream proves more
                    shown[index], bounds[index] = stream.since_promotion, earlier
        elif high <= tolerance:
            state = VerdictState.WITHIN_TOLERANCE
        else:
            state = VerdictState.UNKNOWN
        states.append(state)
    undecided = [sums if state is VerdictState.UNKNOWN else ErrorSums()
                 for sums, state in zip(shown, states, strict=True)]  # fmt: skip
    forecasts = interval.labels_needed_of_each(undecided, tolerance)
    verdicts = []
    for state, sums, (low, high), forecast in zip(states, shown, bounds, forecasts, strict=True):
        needed = None if forecast is None else _rounded_up(forecast)
        sentence = f"{LEADS[state]}{_rest(state, sums.n, low, high, tolerance, needed)}."
        verdicts.append(LiveVerdict(state, sentence, low, high, sums.n, needed))
    return verdicts


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


def _rounded_up(n: int) -> int:
    """To two digits, upwards."""
    step = int(10 ** max(len(str(n)) - 2, 0))
    return -(-n // step) * step
