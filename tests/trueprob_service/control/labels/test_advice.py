"""The advice of ``GET …/calibration``: every sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trueprob.drift import VerdictState
from trueprob_service.control.labels.statistics import advice
from trueprob_service.control.schemas.labels import ClassCalibration
from trueprob_service.control.store.alarms import AlarmRow

CHANGE = AlarmRow(3, "m", 5, 1, "c", "change", 5.21, 5.0, 0.02, 12480, 0.0)
EVIDENCE = AlarmRow(4, "m", 5, 1, "c", "evidence", 2.04, 2.0, 0.02, 13000, 0.0)
UPLOAD = "Upload recent labelled rows to /v1/models/m/calibration-sets and promote what is admitted"


UPLOAD_BY_CLASS = UPLOAD.replace("-sets", "-sets?method=auto&allow_prediction_change=true")


def seen(alarm: AlarmRow) -> AlarmRow:
    return replace(alarm, acknowledged_at=1.0)


@pytest.mark.parametrize(
    ("state", "labels", "alarms", "sentence"),
    [
        ("within_tolerance", 9000, [seen(CHANGE)], "Nothing to do."),
        (
            "unknown",
            0,
            [],
            "Send labels to /v1/models/m/labels to learn whether it is calibrated.",
        ),
        ("unknown", 20, [seen(CHANGE)], "Nothing to do but to send labels as they come."),
        ("changed_lately", 20, [CHANGE], f"{UPLOAD}, then acknowledge alarm 3."),
        ("off", 20, [EVIDENCE, CHANGE], f"{UPLOAD}, then acknowledge alarms 3 and 4."),
        ("off", 20, [seen(EVIDENCE), seen(CHANGE)], f"{UPLOAD}; a promotion ends this state."),
        ("off", 20, [], f"{UPLOAD}; a promotion ends this state."),
    ],
)
def test_each_state_has_its_advice(
    state: str, labels: int, alarms: list[AlarmRow], sentence: str
) -> None:
    said = advice("m", VerdictState(state), since_promotion=labels, alarms=alarms)
    assert said == sentence


def test_one_class_is_advised_a_method_with_a_map_for_each() -> None:
    said = advice("m", VerdictState.OFF, since_promotion=9, alarms=[EVIDENCE], class_name="ship")
    assert said == (
        f"{UPLOAD_BY_CLASS}, then acknowledge alarm 4. Answers 'ship' are off in their own way; "
        "smart, which keeps predictions, has one map for all classes."
    )
    two = advice(
        "m", VerdictState.OFF, since_promotion=9, alarms=[EVIDENCE], class_name="yes", n_classes=2
    )
    assert two == (
        f"{UPLOAD}, then acknowledge alarm 4. Answers 'yes' are off in their own way; with two "
        "classes smart fits a smart-binary, which repairs that, and may move the threshold."
    )
    quiet = advice("m", VerdictState.UNKNOWN, since_promotion=9, class_name="ship")
    assert "ship" not in quiet


@pytest.mark.parametrize(
    ("confidence", "frequency", "how"),
    [
        (0.9, 0.69, "21 points too confident"),
        (0.6, 0.75, "15 points not confident enough"),
        (0.903, 0.9, "right as often as they say"),
        (0.9, 0.9, "right as often as they say"),
    ],
)
def test_the_sentence_on_a_class_agrees_with_its_numbers(
    confidence: float, frequency: float, how: str
) -> None:
    figures = {"class_name": "ship", "labels": 30, "share": 0.03, "confidence": confidence}
    said = ClassCalibration.of({**figures, "frequency": frequency}).sentence
    assert said == f"answers 'ship' are {how} on 3.0 % of traffic"
