"""How the story is told: calm, a shift, the alarm, a refit, calm again.

1. Pictures of the test split, taken as the model knows them.
2. The same digits turned and noisier, until the service raises its alarms.
3. Labelled pictures of the reserved digits under the new conditions are uploaded; the service fits,
   judges and promotes.
4. The test digits under the new conditions once more, in front of the new calibrator.

Within a chapter every digit is seen once, so outcomes are independent. What the story claims is
checked against the service's own words; what did not happen is a complaint.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.demo.pace import Pace
from service.demo.pictures import AS_TRAINED, SHIFTED, Conditions, Digits
from service.demo.readings import Reading, read
from service.demo.screen import Screen, percent
from service.demo.story import Chapter, Story
from service.demo.traffic import LATENESS, REQUEST, Traffic
from trueprob.client import Client, FitSummary

__all__ = ["tell"]

SHOWN_EVERY: Final = 4  # requests
PATIENCE: Final = 24  # requests after the first alarm until the other statistic is not waited for


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
    teller = _Teller(client, model, digits, generator, pace, screen)
    calm = teller.calm()
    teller.shift(calm)
    if teller.story.alarm is not None:
        fit = teller.recalibrate()
        if fit.revision is not None:
            promoted.add(fit.revision)
            teller.calm_again()
    return teller.end()


class _Teller:
    def __init__(
        self,
        client: Client,
        model: str,
        digits: Digits,
        generator: np.random.Generator,
        pace: Pace,
        screen: Screen,
    ) -> None:
        self._client, self._model, self._digits = client, model, digits
        self._generator, self._pace, self._screen = generator, pace, screen
        self._traffic = Traffic(client, model)
        self._in_chapter = -(-digits.test_labels.shape[0] // REQUEST)
        self._done, self._total = 0, 3 * self._in_chapter + LATENESS
        self.story = Story()

    def calm(self) -> Reading:
        self._screen.say(
            "1. Digits of the test split as the model knows them; each label comes "
            f"{LATENESS * REQUEST} predictions late."
        )
        self._screen.header(read(self._client, self._model))
        last = self._chapter("as trained", self._requests(AS_TRAINED))
        if last.alarm is not None:
            self._complain("there was an alarm before the digits changed")
        return last

    def shift(self, calm: Reading) -> None:
        self._screen.say(
            f"2. From now on the digits are turned by {SHIFTED.degrees:g} degrees and noisier; "
            "the labels that come first are still those of the old ones."
        )
        self._chapter("shifted", self._until_alarms(calm))
        if self.story.alarm is None:
            self._complain("the alarm did not fire")

    def recalibrate(self) -> FitSummary:
        self._screen.say(
            "3. Labelled pictures of other digits under the new conditions are uploaded as a "
            "calibration set."
        )
        digits = self._digits
        images = SHIFTED.taken(digits.reserved_images, self._generator)
        fit = self._client.upload(
            self._model, {"images": images, "labels": digits.reserved_labels}, wait_seconds=60
        )
        if not fit.ended:
            fit = self._client.wait_for_fit(self._model, fit.fit, seconds=600)
        self.story.fit = fit
        self._screen.say(f"   Fit {fit.fit}: {fit.method} on {fit.n} rows, {fit.state}.")
        for reason in () if fit.verdict is None else fit.verdict.reasons:
            self._screen.say(f"   {reason}")
        if fit.verdict is None or not fit.verdict.admitted:
            self._complain(f"the candidate was not admitted ({fit.error or fit.state})")
        elif fit.revision is None:
            self._complain("the candidate was admitted and not promoted")
        else:
            self._screen.say(f"   Promoted: {fit.calibrator}, revision {fit.revision}.")
        return fit

    def calm_again(self) -> None:
        self._screen.say(
            "4. The same conditions in front of the new calibrator; its statistics begin anew."
        )
        self._done = 2 * self._in_chapter  # the alarm may have come early
        last = self._chapter("recalibrated", self._requests(SHIFTED, until_counted=True))
        if last.alarm is not None or last.miscalibrated:
            self._complain("the statistics did not stay low after the promotion")

    def end(self) -> Story:
        if self._traffic.refused:
            self._complain(f"the service did not count {self._traffic.refused} labels")
        return self.story

    def _complain(self, what: str) -> None:
        self.story.complaints.append(what)

    def _until_alarms(self, calm: Reading) -> Iterator[Reading]:
        """Until both statistics have passed, or `PATIENCE` requests after the first alarm."""
        story, since = self.story, 0
        for n, reading in enumerate(self._requests(SHIFTED, until_counted=True), 1):
            yield reading
            if n == LATENESS:
                story.before_labels = reading
                self._compare(calm.expected_accuracy, reading.expected_accuracy)
            if reading.alarm is None:
                continue
            if story.alarm is None:
                story.alarm = reading
                self._screen.say(f"   Alarm. {reading.advice}")
            since += 1
            if reading.both_passed or since > PATIENCE:
                return

    def _compare(self, before: float | None, now: float | None) -> None:
        if before is None or now is None or now >= before:
            self._complain("the expected accuracy did not fall before the labels came")
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
        """Show every fourth reading, the first alarm's and the last; return the last."""
        shown: list[Reading] = []
        reading = None
        for n, reading in enumerate(readings, 1):
            self._done += 1
            self._screen.progress(min(self._done, self._total), self._total)
            raised = reading.alarm is not None and self.story.alarm is None
            if n % SHOWN_EVERY == 0 or raised:
                shown.append(reading)
                self._screen.row(reading)
        if reading is None:
            raise AssertionError("a chapter has requests")
        if shown[-1:] != [reading]:
            shown.append(reading)
            self._screen.row(reading)
        self.story.chapters.append(Chapter(name, tuple(shown)))
        return reading
