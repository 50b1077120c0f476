"""The story is what the service says; what does not happen is complained of."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.demo.errors import BadInput
from service.demo.pace import Pace
from service.demo.pictures import AS_TRAINED, SHIFTED, Digits
from service.demo.screen import Screen
from service.demo.story import Story
from service.demo.telling import tell
from service.demo.traffic import LATENESS, REQUEST
from tests.running_service import ROOT
from tests.service.demo.recorded import ALARM, ScriptedService

DIGITS = Digits.load(ROOT / "examples/digits_pictures.npz")
ROWS = 512


def as_it_should_be(labels: int, recalibrated: bool) -> dict[str, Any]:
    if recalibrated:
        return {"revision": 2, "evidence_log10": -0.2, "change_log10": 1.0}
    if labels < ROWS + 90:
        return {"labels": labels}
    return {"labels": labels, "evidence_log10": 6.0, "change_log10": 5.4, "alarm": ALARM}


def story_of(service: ScriptedService) -> tuple[Story, str, set[int]]:
    stream, promoted = io.StringIO(), set[int]()
    story = tell(
        service, "digits", DIGITS, generator=np.random.default_rng(0),
        pace=Pace(1.0, sleep=lambda seconds: None), screen=Screen(stream), promoted=promoted,
    )  # fmt: skip
    return story, stream.getvalue(), promoted


def test_the_whole_story() -> None:
    service = ScriptedService(as_it_should_be)
    story, shown, promoted = story_of(service)
    assert story.happened, story.complaints
    assert [chapter.name for chapter in story.chapters] == ["as trained", "shifted", "recalibrated"]
    assert promoted == {2}
    before, alarm = story.before_labels, story.alarm
    assert before is not None
    assert before.labels == ROWS
    assert before.expected_accuracy == 0.85
    assert "fallen from 92.0 % to 85.0 %" in " ".join(shown.split())
    assert alarm is not None
    assert alarm.labels == ROWS + 6 * REQUEST
    assert shown.count("ALARM") == 1
    assert "NLL 1.9 → 1.3 nats" in shown
    (rows,) = service.uploads
    assert rows["images"].shape == (372, 8, 8, 1)
    # Every label of the last chapter has come, those of the second that were owed too.
    assert sorted(service.labels) == list(range(service.answered))


def test_labels_come_late_and_in_the_order_of_the_pictures() -> None:
    service = ScriptedService(as_it_should_be)
    owed = []
    original = service.predict

    def predict(model: str, *, images: list[bytes]) -> Any:
        owed.append(service.answered - len(service.labels))
        return original(model, images=images)

    service.predict = predict  # type: ignore[method-assign]
    story_of(service)
    assert max(owed) == (LATENESS - 1) * REQUEST
    assert service.labels == sorted(service.labels)


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
        (
            ScriptedService(as_it_should_be, admitted=False),
            "the candidate was not admitted (done)",
        ),
        (
            ScriptedService(as_it_should_be, promotes=False),
            "the candidate was admitted and not promoted",
        ),
        (
            ScriptedService(
                lambda n, live: {**as_it_should_be(n, live), "miscalibrated": live},
            ),
            "the statistics did not stay low after the promotion",
        ),
        (
            ScriptedService(as_it_should_be, uncounted=3),
            "the service did not count 3 labels",
        ),
    ],
)
def test_what_does_not_happen_is_said(service: ScriptedService, complaint: str) -> None:
    story, _, _ = story_of(service)
    assert not story.happened
    assert complaint in story.complaints


def test_a_change_that_is_not_waited_for() -> None:
    def only_evidence(labels: int, live: bool) -> dict[str, Any]:
        return {**as_it_should_be(labels, live), "change_log10": 3.0}

    story, _, _ = story_of(ScriptedService(only_evidence))
    assert story.happened
    last = story.chapters[1].readings[-1]
    assert last.labels == ROWS + (6 + 24) * REQUEST


def test_requests_keep_their_times_and_late_ones_delay_the_rest() -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))
        now[0] += seconds

    pace = Pace(2.0, sleep=sleep, clock=lambda: now[0])
    pace()
    now[0] = 0.1
    pace()
    now[0] = 5.0
    pace()
    now[0] = 5.1
    pace()
    assert slept == [0.2, 0.2]


def test_pictures_are_taken_anew_each_time() -> None:
    generator = np.random.default_rng(0)
    first = AS_TRAINED.taken(DIGITS.test_images, generator)
    second = AS_TRAINED.taken(DIGITS.test_images, generator)
    turned = SHIFTED.taken(DIGITS.test_images, generator)
    everything = {image.tobytes() for images in (first, second, turned) for image in images}
    assert len(everything) == 3 * ROWS
    again = AS_TRAINED.taken(DIGITS.test_images, np.random.default_rng(0))
    assert np.array_equal(first, again)
    # Noise of 60 grey levels around the digit itself, clipped at both ends.
    middle = (DIGITS.test_images > 100) & (DIGITS.test_images < 156)
    assert (first.astype(float) - DIGITS.test_images)[middle].std() == pytest.approx(58, abs=4)


def test_files_that_do_not_hold_the_digits_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"other\.npz is not there: the demo runs in a checkout"):
        Digits.load(tmp_path / "other.npz")
    with pytest.raises(BadInput, match="must hold the demo's digits"):
        Digits.load(ROOT / "examples/digits_test.npz")
    (tmp_path / "other.npz").write_bytes(b"no archive")
    with pytest.raises(BadInput, match="must hold the demo's digits"):
        Digits.load(tmp_path / "other.npz")
