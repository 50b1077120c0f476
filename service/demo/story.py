"""The story: calm, a shift, the alarm, a refit, calm again.

1. Pictures of the test split, taken as the model knows them.
2. The same digits turned and noisier, until the service raises an alarm.
3. Labelled pictures of the reserved digits under the new conditions are uploaded; the service fits,
   judges and promotes.
4. The test digits under the new conditions once more, in front of the new calibrator.

Within a chapter every digit is seen once, so outcomes are independent. What the story claims is
checked against the service's own words; what did not happen is a complaint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.demo.pictures import AS_TRAINED, SHIFTED, Conditions, Digits
from service.demo.readings import Reading, read
from service.demo.screen import Screen, percent
from service.demo.traffic import LATENESS, REQUEST, Traffic
from trueprob.client import Client, FitSummary

__all__ = ["Chapter", "Pace", "Story", "tell"]

SHOWN_EVERY: Final = 4  # requests
REQUEST_SECONDS: Final = 0.6  # at --speed 1


@dataclass(frozen=True)
class Chapter:
    """A part of the story and what was read in it."""

    name: str
    readings: tuple[Reading, ...]


@dataclass
class Story:
    """What happened.

    Attributes
    ----------
    chapters : list of Chapter
    before_labels : Reading or None
        The last one before any label of the new conditions.
    alarm : Reading or None
        The first with an alarm.
    fit : FitSummary or None
    complaints : list of str
        What should have happened and did not.
    """

    chapters: list[Chapter] = field(default_factory=list)
    before_labels: Reading | None = None
    alarm: Reading | None = None
    fit: FitSummary | None = None
    complaints: list[str] = field(default_factory=list)

    @property
    def happened(self) -> bool:
        """Whether all of it did."""
        return not self.complaints


class Pace:
    """Requests at even times.

    Parameters
    ----------
    speed : float
        1 is one every `REQUEST_SECONDS`.
    sleep : callable
        Lets seconds pass.
    """

    def __init__(self, speed: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self._seconds = REQUEST_SECONDS / speed
        self._sleep = sleep
        self._next = time.monotonic()

    def __call__(self) -> None:
        """Wait until the next request is due; one that comes late delays those after it."""
        now = time.monotonic()
        if now < self._next:
            self._sleep(self._next - now)
        self._next = max(self._next, now) + self._seconds


class _Teller:
    def __init__(
        self,
        client: Client,
        model: str,
        digits: Digits,
        generator: np.random.Generator,
        pace: Pace,
        screen: Screen,
        promoted: set[int],
    ) -> None:
        self._client, self._model, self._digits = client, model, digits
        self._generator, self._pace, self._screen = generator, pace, screen
        self._promoted = promoted
        self._traffic = Traffic(client, model)
        n = -(-digits.test_labels.shape[0] // REQUEST)
        self._done, self._total = 0, 3 * n + LATENESS
        self.story = Story()

    def tell(self) -> Story:
        story, screen = self.story, self._screen
        screen.say(
            "1. Digits of the test split as the model knows them; each label comes "
            f"{LATENESS * REQUEST} predictions late."
        )
        screen.header()
        calm = self._chapter("as trained", self._requests(AS_TRAINED))
        if calm.alarm is not None:
            story.complaints.append("there was an alarm before the digits changed")
        screen.say(
            f"2. From now on the digits are turned by {SHIFTED.degrees:g} degrees and noisier; "
            "the labels that come first are still of the old ones."
        )
        self._chapter("shifted", self._shifted(calm))
        if story.alarm is None:
            story.complaints.append("the alarm did not fire")
        elif self._recalibrate():
            screen.say("4. The same conditions, the new calibrator; its statistics begin at zero.")
            last = self._chapter("recalibrated", self._requests(SHIFTED, until_counted=True))
            if last.alarm is not None or last.miscalibrated:
                story.complaints.append("the statistics did not stay low after the promotion")
        if self._traffic.refused:
            story.complaints.append(f"the service did not count {self._traffic.refused} labels")
        return story

    def _recalibrate(self) -> bool:
        digits = self._digits
        self._screen.say(
            f"3. {digits.reserved_labels.shape[0]} labelled pictures of other digits under the new "
            "conditions are uploaded as a calibration set."
        )
        images = SHIFTED.taken(digits.reserved_images, self._generator)
        fit = self._client.upload(
            self._model, {"images": images, "labels": digits.reserved_labels}, wait_seconds=60
        )
        if not fit.ended:
            fit = self._client.wait_for_fit(self._model, fit.fit, seconds=600)
        self.story.fit = fit
        for reason in () if fit.verdict is None else fit.verdict.reasons:
            self._screen.say(f"   {reason}")
        if fit.verdict is None or not fit.verdict.admitted:
            self.story.complaints.append(
                f"the candidate was not admitted: {fit.error}" if fit.error else
                "the candidate was not admitted"
            )  # fmt: skip
        elif not fit.promoted:
            self.story.complaints.append("the candidate was admitted and not promoted")
        if fit.revision is None:
            return False
        self._promoted.add(fit.revision)
        self._screen.say(f"   Promoted: {fit.calibrator}, revision {fit.revision}.")
        return True

    def _shifted(self, calm: Reading) -> Iterator[Reading]:
        """Until an alarm; what is known before the first label of the new conditions is noted."""
        story = self.story
        readings = self._requests(SHIFTED, until_counted=True)
        for n, reading in enumerate(readings, 1):
            if reading.alarm is not None:
                story.alarm = reading
            yield reading
            if n == LATENESS:
                story.before_labels = reading
                self._compare(calm.expected_accuracy, reading.expected_accuracy)
            if story.alarm is not None:
                self._screen.say(f"   Alarm. {reading.advice}")
                return

    def _compare(self, before: float | None, now: float | None) -> None:
        if before is None or now is None or now >= before:
            self.story.complaints.append("expected accuracy did not fall before the labels came")
        else:
            self._screen.say(
                "   No label of the new conditions has come, and the expected accuracy has fallen "
                f"from {percent(before)} to {percent(now)}."
            )

    def _requests(
        self, conditions: Conditions, *, until_counted: bool = False
    ) -> Iterator[Reading]:
        """Every test digit once, in random order; then, if wanted, until all labels have come."""
        order = self._generator.permutation(self._digits.test_labels.shape[0])
        images = conditions.taken(self._digits.test_images[order], self._generator)
        labels: NDArray[np.int64] = self._digits.test_labels[order]
        for start in range(0, labels.shape[0], REQUEST):
            rows = slice(start, start + REQUEST)
            self._pace()
            self._traffic.send(images[rows], labels[rows])
            yield read(self._client, self._model)
        while until_counted and self._traffic.owed:
            self._pace()
            self._traffic.wait()
            yield read(self._client, self._model)

    def _chapter(self, name: str, readings: Iterator[Reading]) -> Reading:
        """Show every fourth reading and the last; return the last."""
        shown: list[Reading] = []
        reading = None
        for n, reading in enumerate(readings, 1):
            self._done += 1
            self._screen.progress(min(self._done, self._total), self._total)
            if n % SHOWN_EVERY == 0 or reading.alarm is not None:
                shown.append(reading)
                self._screen.row(reading)
        if reading is None:
            raise AssertionError("a chapter has requests")
        if shown[-1:] != [reading]:
            shown.append(reading)
            self._screen.row(reading)
        self.story.chapters.append(Chapter(name, tuple(shown)))
        return reading


def tell(
    client: Client,
    model: str,
    digits: Digits,
    *,
    generator: np.random.Generator,
    pace: Pace,
    screen: Screen,
    promoted: set[int],
) -> Story:
    """Let the story happen on a service whose live calibrator is the factory's.

    Parameters
    ----------
    client : Client
    model : str
    digits : Digits
    generator : numpy.random.Generator
        Of the order of the digits and their noise.
    pace : Pace
    screen : Screen
    promoted : set of int
        The revision that the story makes is added to it at once, for who cleans up.

    Raises
    ------
    ServiceProblem, ServiceUnreachable
    """
    return _Teller(client, model, digits, generator, pace, screen, promoted).tell()
