"""The advice of ``GET …/calibration``: every sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trueprob.scores.binned import BinnedCalibration
from trueprob_service.control.labels.advice import advice
from trueprob_service.control.store.alarms import AlarmRow

CHANGE = AlarmRow(3, "m", 5, 1, "c", "change", 5.21, 5.0, 0.02, 12480, 0.0)
EVIDENCE = AlarmRow(4, "m", 5, 1, "c", "evidence", 2.04, 2.0, 0.02, 13000, 0.0)
UPLOAD = "upload recent labelled rows to /v1/models/m/calibration-sets"
MORE = "Miscalibrated by more than 0.02"
CHANGED = (
    "change was 10^5.2 after 12480 labels (a calibrated pair reaches 10^5.0 once in 100000 labels "
    "at most)"
)
PROVED = (
    "evidence since the promotion was 10^2.0 after 13000 labels (a calibrated pair ever reaches "
    "10^2.0 with probability 0.01 at most)"
)


def binned(n: int, confidence: float = 0.8, right: float = 0.8) -> BinnedCalibration:
    return BinnedCalibration.of(np.full(n, confidence), np.arange(n) < round(right * n))


def both_ways() -> BinnedCalibration:
    low, high = binned(1000, 0.6, 0.8), binned(1000, 0.9, 0.7)
    return low + high


def seen(alarm: AlarmRow) -> AlarmRow:
    return replace(alarm, acknowledged_at=1.0)


@pytest.mark.parametrize(
    ("labels", "alarms", "sentence"),
    [
        (
            binned(0),
            [],
            (
                "No labels in the last 24h: send them to /v1/models/m/labels to learn whether the "
                "model is calibrated."
            ),
        ),
        (binned(1), [], "1 label is too few to tell: collect more before judging the calibration."),
        (
            binned(50),
            [],
            "50 labels are too few to tell: collect more before judging the calibration.",
        ),
        (binned(1200), [], "Calibrated, as far as 1200 labels can tell."),
        (
            binned(1200, right=0.7),
            [],
            (
                "Miscalibrated: ECE 0.100 where noise explains 0.009 and confidence is 0.100 too "
                f"high on average; {UPLOAD}."
            ),
        ),
        (
            binned(1200, right=0.9),
            [],
            (
                "Miscalibrated: ECE 0.100 where noise explains 0.009 and confidence is 0.100 too "
                f"low on average; {UPLOAD}."
            ),
        ),
        (
            both_ways(),
            [],
            (
                "Miscalibrated: ECE 0.200 where noise explains 0.010 and confidence is too high in "
                f"some bins, too low in others; {UPLOAD}."
            ),
        ),
        (
            binned(1200, right=0.7),
            [CHANGE],
            (
                f"{MORE}: {CHANGED}; in the last 24h confidence is 0.100 too "
                f"high on average; {UPLOAD} and promote what is admitted, then acknowledge alarm 3."
            ),
        ),
        (
            binned(3, right=0.0),
            [EVIDENCE],
            (f"{MORE}: {PROVED}; {UPLOAD} and promote what is admitted, then acknowledge alarm 4."),
        ),
        (
            binned(0),
            [EVIDENCE, CHANGE],
            (
                f"{MORE}: {CHANGED} and {PROVED}; {UPLOAD} and promote what "
                "is admitted, then acknowledge alarms 3 and 4."
            ),
        ),
        (
            both_ways(),
            [seen(EVIDENCE), seen(CHANGE)],
            (
                f"{MORE}: {PROVED}; {UPLOAD} and promote what is admitted: "
                "a promotion resets the statistics."
            ),
        ),
        (binned(1200), [seen(CHANGE)], "Calibrated, as far as 1200 labels can tell."),
    ],
)
def test_each_branch_says_what_the_numbers_mean_and_what_to_do(
    labels: BinnedCalibration, alarms: list[AlarmRow], sentence: str
) -> None:
    assert advice("m", "24h", labels, tolerance=0.02, alarms=alarms) == sentence
