"""What is read, and how it is shown."""

import io
from dataclasses import replace

import pytest

from service.demo.readings import Reading, read, sample
from service.demo.screen import COLUMNS, Screen, cells
from tests.service.demo.recorded import ALARM, METRICS, calibration

PAIR = {"model": "digits", "version": "1", "calibrator": "smart-8af4e5cf4aaa"}


class Answering:
    def __init__(self, metrics: str = METRICS, **changes) -> None:
        self._metrics, self._changes = metrics, changes

    def calibration(self, model: str):
        return calibration(**self._changes)

    def metrics(self) -> str:
        return self._metrics


def reading(**changes) -> Reading:
    return read(Answering(**changes), "digits")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_every_number_is_one_that_the_service_said() -> None:
    found = reading(alarm=ALARM)
    assert (found.predictions, found.labels, found.revision) == (512, 384, 1)
    assert (found.expected_accuracy, found.gap_shift) == (0.9218, 1.0625)
    assert (found.ece, found.ece_floor) == (0.0181, 0.0274)
    assert (found.evidence_log10, found.change_log10) == (-0.31, 2.41)
    assert found.alarm == ALARM
    assert found.advice == "Calibrated within what 384 labels can tell."


def test_samples_are_found_by_all_their_labels() -> None:
    assert sample(METRICS, "trueprob_predictions_total", {**PAIR, "model": "other"}) == 7.0
    assert sample(METRICS, "trueprob_predictions_total", {"model": "digits"}) is None
    assert sample(METRICS, "trueprob_predictions", PAIR) is None
    info = {"version": "0.1.0", "commit": 'a \\"b\\" c'}
    assert sample(METRICS, "trueprob_build_info", info) == 1.0


def test_what_is_not_known_yet_is_a_dash() -> None:
    found = reading(metrics="", labels=0, ece=None, ece_floor=None, observed_accuracy=None)
    assert cells(found) == ("–", "0", "–", "–", "–", "–", "–", "-0.31", "2.41")


def test_a_row_of_the_table() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.header(reading())
    screen.row(reading())
    screen.row(reading(alarm=ALARM))
    screen.progress(1, 4)
    screen.end()
    header, thresholds, calm, alarmed = stream.getvalue().splitlines()
    assert header.split() == list(COLUMNS)
    assert thresholds.split() == ["alarm:", "2.00", "5.00"]
    assert len({len(line) for line in (header, thresholds, calm)}) == 1
    shown = ["512", "384", "92.2", "%", "94.5", "%", "1.8", "%", "2.7", "%", "1.1", "-0.31", "2.41"]
    assert calm.split() == shown
    assert alarmed == calm + "  ALARM"


def test_the_bar_is_for_terminals_and_stays_below() -> None:
    stream = Terminal()
    screen = Screen(stream)
    screen.progress(1, 4)
    screen.say("A sentence.")
    written = stream.getvalue()
    assert "25 %" in written
    assert written.index("A sentence.\n") < written.rindex("25 %")
    screen.end()
    assert stream.getvalue().endswith("\r\033[K")


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, False),
        ({"evidence_log10": 2.0}, False),
        ({"evidence_log10": 2.0, "change_log10": 5.0}, True),
    ],
)
def test_both_statistics_have_passed(changes: dict[str, float], passed: bool) -> None:
    assert reading(**changes).both_passed is passed
    assert replace(reading(**changes), change_threshold_log10=None).both_passed is False
