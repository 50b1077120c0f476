"""The steps of the demo: calm, a shift, the alarm, a refit, calm again.

Each step sends every digit once, so outcomes are independent. Labels arrive late, whatever the
prediction was, because the guarantee of the alarms requires it.
"""

from __future__ import annotations

import io
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import rotate

from examples.demo.screen import Reading, header, percent, read, row, say
from trueprob.client import Client

MODEL = "digits"
REQUEST = 16  # pictures
LATENESS = 8  # requests between a prediction and its label
REQUEST_SECONDS = 0.6  # at --speed 1: the story takes about a minute
AS_TRAINED = (0.0, 60.0)  # rotation of the digits in degrees, noise in grey levels
# Chosen by trial (docs/demo.md): half of the predictions are right, the mean confidence is 3/4.
SHIFTED = (20.0, 75.0)


class Story:
    """Runs the demo on a service whose live calibrator is the factory calibrator.

    `complaints` lists the steps that did not happen. `promoted` has the revision that the demo
    made, once it exists.
    """

    def __init__(self, client: Client, *, seed: int, speed: float) -> None:
        with np.load(Path(__file__).parents[1] / "digits_pictures.npz") as file:
            self._digits = dict(file)
        self._client = client
        self._generator = np.random.default_rng(seed)
        self._pause_seconds, self._next = REQUEST_SECONDS / speed, time.monotonic()
        self._pending: deque[tuple[int, tuple[str, ...], list[int]]] = deque()
        self._requests = 0
        self.promoted: set[int] = set()
        self.complaints: list[str] = []

    def tell(self) -> None:
        """Run all steps."""
        say(
            "1. Digits of the test split as the model knows them; each label comes "
            f"{LATENESS * REQUEST} predictions late."
        )
        header(read(self._client, MODEL))
        *_, calm = self._send(AS_TRAINED)
        say(f"   {calm.calibration.verdict.sentence}")
        if calm.calibration.alarm is not None:
            self.complaints.append("there was an alarm before the digits changed")

        say(
            f"2. From now on the digits are turned by {SHIFTED[0]:g} degrees and noisier; "
            "the labels that come first are still those of the old ones."
        )
        alarm = None
        for n, reading in enumerate(self._send(SHIFTED, until_labelled=True), 1):
            if n == LATENESS:
                self._compare(calm.expected_accuracy, reading.expected_accuracy)
            if alarm is None and reading.calibration.alarm is not None:
                now = reading.calibration
                alarm = reading.calibration.alarm
                say(
                    f"   Alarm: {alarm.statistic} reached 10^{alarm.log10:.1f} after "
                    f"{alarm.labels} labels. {now.verdict.sentence} {now.advice}"
                )
            if reading.both_passed:
                break
        say(f"   {reading.calibration.verdict.sentence}")
        if alarm is None:
            self.complaints.append("the alarm did not fire")
            return

        say(
            "3. Labelled pictures of other digits under the new conditions are uploaded as a "
            "calibration set. The fit may change predictions, because some digits are far more "
            "off than others."
        )
        self._refit()
        if not self.promoted:
            return

        say("4. The same conditions in front of the new calibrator; its statistics begin anew.")
        *_, last = self._send(SHIFTED, until_labelled=True)
        say(f"   {last.calibration.verdict.sentence}")
        if last.calibration.verdict.state in ("changed_lately", "off"):
            self.complaints.append("the statistics did not stay low after the promotion")

    def _compare(self, before: float | None, now: float | None) -> None:
        if before is None or now is None or now >= before:
            self.complaints.append("the expected accuracy did not fall before the labels came")
            return
        say(
            "   No label of the new conditions has come, and the expected accuracy has fallen "
            f"from {percent(before)} to {percent(now)}."
        )

    def _refit(self) -> None:
        images = self._distorted(self._digits["reserved_images"], SHIFTED)
        rows = {"images": images, "labels": self._digits["reserved_labels"]}
        queued = self._client.upload(MODEL, rows, method="auto", allow_prediction_change=True)
        fit = self._client.wait_for_fit(MODEL, queued.fit, seconds=600)
        say(f"   Fit {fit.fit}: {fit.method} on {fit.n} rows, {fit.state}.")
        for reason in () if fit.verdict is None else fit.verdict.reasons:
            say(f"   {reason}")
        if fit.revision is None:
            self.complaints.append(f"the candidate was not promoted ({fit.error or fit.state})")
            return
        self.promoted.add(fit.revision)
        say(f"   Promoted: {fit.calibrator}, revision {fit.revision}.")

    def _send(
        self, conditions: tuple[float, float], *, until_labelled: bool = False
    ) -> Iterator[Reading]:
        """Send every digit once, in random order; with `until_labelled` also the last labels."""
        order = self._generator.permutation(len(self._digits["test_labels"]))
        images = self._distorted(self._digits["test_images"][order], conditions)
        labels = self._digits["test_labels"][order]
        starts = range(0, len(order), REQUEST)
        alarmed = False
        for n in range(len(starts) + (LATENESS if until_labelled else 0)):
            self._send_labels()
            if n < len(starts):
                rows = slice(starts[n], starts[n] + REQUEST)
                answer = self._client.predict(MODEL, images=[_png(image) for image in images[rows]])
                due = self._requests + LATENESS
                self._pending.append((due, answer.prediction_ids or (), labels[rows].tolist()))
            reading = read(self._client, MODEL)
            first_alarm = not alarmed and reading.calibration.alarm is not None
            if n % 4 == 3 or first_alarm or reading.both_passed:
                row(reading)
            alarmed |= first_alarm
            yield reading

    def _send_labels(self) -> None:
        """Wait for the time of the next request, and send the labels that are due by then."""
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = max(self._next, time.monotonic()) + self._pause_seconds
        self._requests += 1
        while self._pending and self._pending[0][0] <= self._requests:
            _, ids, labels = self._pending.popleft()
            counted = self._client.label(MODEL, ids, labels).accepted
            if counted < len(ids):
                self.complaints.append(f"the service did not count {len(ids) - counted} labels")

    def _distorted(
        self, images: NDArray[np.uint8], conditions: tuple[float, float]
    ) -> NDArray[np.uint8]:
        """Pictures of digits, of shape (n, 8, 8, 1), rotated and with noise."""
        degrees, noise = conditions
        turned = rotate(images.astype(float), degrees, axes=(2, 1), reshape=False, order=1)
        noisy = turned + self._generator.normal(scale=noise, size=images.shape)
        return np.rint(noisy).clip(0, 255).astype(np.uint8)


def _png(image: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0]).save(buffer, format="PNG")
    return buffer.getvalue()
