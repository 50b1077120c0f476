"""The demo shows the numbers of the service, and lists the steps that did not happen."""

from typing import Any

import pytest

from examples.demo.screen import header, read, row
from examples.demo.story import LATENESS, REQUEST, Story
from tests.examples.demo.scripted_service import ALARM, ScriptedService, calibration, verdict

ROWS = 512
UNKNOWN = calibration().verdict.sentence
OFF = verdict("off", "Off by 3.0 to 9.0 %.")


def as_it_should_be(labels: int, recalibrated: bool) -> dict[str, Any]:
    if recalibrated:
        return {"revision": 2, "evidence_log10": -0.2, "change_log10": 1.0}
    if labels < ROWS + 90:
        return {"labels": labels}
    return {
        "labels": labels,
        "evidence_log10": 6.0,
        "change_log10": 5.4,
        "alarm": ALARM,
        "verdict": OFF,
    }


def told(service: ScriptedService) -> Story:
    story = Story(service, seed=0, speed=1e6)
    story.tell()
    return story


def test_the_whole_story(capsys: pytest.CaptureFixture[str]) -> None:
    service = ScriptedService(as_it_should_be)
    story = told(service)
    shown = capsys.readouterr().out
    joined = " ".join(shown.split())
    assert story.complaints == []
    assert story.promoted == {2}
    assert "fallen from 92.0 % to 85.0 %" in joined
    (alarm,) = (line for line in shown.splitlines() if line.endswith("ALARM"))
    assert alarm.split()[1] == str(ROWS + 6 * REQUEST)
    assert (
        "Alarm: change reached 10^5.4 after 610 labels. Off by 3.0 to 9.0 %. Send labels." in joined
    )
    stated = [
        line.strip() for line in shown.splitlines() if line.strip() in (UNKNOWN, OFF.sentence)
    ]
    assert stated == [UNKNOWN, OFF.sentence, UNKNOWN]
    assert "NLL 1.9 → 1.3 nats" in shown
    (rows,) = service.uploads
    assert rows["images"].shape == (372, 8, 8, 1)
    # Every label has come, in the order of the pictures and as late as announced.
    assert service.labels == list(range(service.answered))
    assert max(service.owed) == (LATENESS - 1) * REQUEST


@pytest.mark.parametrize(
    ("service", "complaint"),
    [
        (ScriptedService(lambda n, live: {"labels": n}), "the alarm did not fire"),
        (
            ScriptedService(lambda n, live: {**as_it_should_be(n, live), "alarm": ALARM}),
            "there was an alarm before the digits changed",
        ),
        (
            ScriptedService(as_it_should_be, expected=lambda n: 0.92),
            "the expected accuracy did not fall before the labels came",
        ),
        (ScriptedService(as_it_should_be, promotes=False), "the candidate was not promoted (done)"),
        (
            ScriptedService(lambda n, live: {**as_it_should_be(n, live), "verdict": OFF}),
            "the statistics did not stay low after the promotion",
        ),
        (ScriptedService(as_it_should_be, uncounted=3), "the service did not count 3 labels"),
    ],
)
def test_what_does_not_happen_is_said(service: ScriptedService, complaint: str) -> None:
    assert complaint in told(service).complaints


def test_a_statistic_that_does_not_pass_is_waited_for_until_all_labels_have_come() -> None:
    def only_evidence(labels: int, live: bool) -> dict[str, Any]:
        return {**as_it_should_be(labels, live), "change_log10": 3.0}

    service = ScriptedService(only_evidence)
    assert told(service).complaints == []
    assert service.answered == 3 * ROWS


class Answering:
    """Has no traffic and no labels of the live pair yet; another model has."""

    def calibration(self, model: str) -> Any:
        return calibration(labels=0, ece=None, ece_floor=None, observed_accuracy=None)

    def metrics(self) -> str:
        other = '{model="other",version="1",calibrator="smart-8af4e5cf4aaa"}'
        return f"# TYPE trueprob_predictions_total counter\ntrueprob_predictions_total{other} 7.0\n"


def test_what_is_not_known_yet_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    reading = read(Answering(), "digits")
    header(reading)
    row(reading)
    names, thresholds, shown = capsys.readouterr().out.splitlines()
    assert thresholds.split() == ["alarm:", "2.00", "5.00"]
    assert shown.split() == ["–", "0", "–", "–", "–", "–", "–", "-0.31", "2.41"]
    assert len(names) == len(thresholds) == len(shown)
