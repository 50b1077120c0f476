"""Two threads that send labels and uploads until the service is killed, and their records.

Uploads are fitted, half of them promoted whatever the verdict. What was not answered before the
kill is uncertain: it is kept and sent again.

An upload that is sent again must be answered with its first fit if the service has one that is
still current: queued, running, live, or judged against what is live. If the first fit has failed
or is out of date, the answer must be a second fit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from benchmarks.crash.label_traffic import LabelTraffic
from trueprob.client import Client, FitSummary, ModelDescription, ServiceUnreachable

__all__ = ["MODEL", "Outcome", "Traffic", "is_current"]

MODEL: Final = "m"
SET_ROWS: Final = 300


@dataclass
class Outcome:
    """Events of the traffic, and the errors found."""

    rounds: int = 0
    labels: int = 0
    duplicates: int = 0
    uploads: int = 0
    second_fits: int = 0
    promotions: int = 0
    given_up_fits: int = 0
    rows: int = 0
    rotations: int = 0
    rounds_by_a_wrong_clock: int = 0
    faults: list[str] = field(default_factory=list)


class Traffic:
    """Sends labels, rows and uploads, and records everything.

    Parameters
    ----------
    outcome : Outcome
        Counts and faults are written there.
    judged_revision : callable
        The live revision that a fit was judged against.

    Attributes
    ----------
    labels : LabelTraffic
        Labels and rows, with their ledger.
    acknowledged_fits : set of str
    replaced_fits : set of str
        Fits without an answer that were failed or out of date when their upload was sent again.
    """

    def __init__(self, outcome: Outcome, judged_revision: Callable[[str], int | None]) -> None:
        self.labels = LabelTraffic(MODEL, 3, outcome.faults)
        self.acknowledged_fits: set[str] = set()
        self.replaced_fits: set[str] = set()
        self._outcome = outcome
        self._judged_revision = judged_revision
        self._pending: list[tuple[dict[str, np.ndarray], str]] = []  # rows, promote

    def send_labels(self, url: str, seed: int) -> None:
        """Send batches until the service is gone."""
        rng = np.random.default_rng(seed)
        with Client(url, timeout_seconds=10) as client, contextlib.suppress(ServiceUnreachable):
            while True:
                self.labels.send_batch(client, rng)

    def send_uploads(self, url: str, seed: int) -> None:
        """Send uploads until the service is gone."""
        rng = np.random.default_rng(seed)
        with Client(url, timeout_seconds=10) as client, contextlib.suppress(ServiceUnreachable):
            while True:
                logits = rng.normal(0.0, 2.0, (SET_ROWS, 3))
                labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
                sharp = (rng.uniform(0.5, 3.0) * logits).astype(np.float32)
                promote = "always" if rng.random() < 0.5 else "auto"
                self.add_pending({"logits": sharp, "labels": labels}, promote)
                self._upload(client)

    def add_pending(self, rows: dict[str, np.ndarray], promote: str) -> None:
        """Add an upload that has no answer yet."""
        self._pending.append((rows, promote))

    def send_pending(self, client: Client) -> None:
        """Send the uploads again that were not answered."""
        while self._pending:
            known, live = client.fits(MODEL), client.model(MODEL)
            fit = self._upload(client)
            self._check_sent_again(fit, known, live)

    def _check_sent_again(
        self, fit: FitSummary, known: Iterable[FitSummary], live: ModelDescription
    ) -> None:
        """Compare the answer with the fits and the live pair of the moment before."""
        first = next((e for e in known if e.calibration_set == fit.calibration_set), None)
        if first is None:
            return
        current = is_current(first, live, self._judged_revision(first.fit))
        if current != (fit.fit == first.fit):
            kind = "current" if current else "out of date"
            self._outcome.faults.append(f"fit {first.fit} was {kind}, the answer was {fit.fit}")
        if not current:
            self.replaced_fits.add(first.fit)
            self._outcome.second_fits += 1

    def _upload(self, client: Client) -> FitSummary:
        """Send the oldest upload that was not acknowledged."""
        rows, promote = self._pending[0]
        fit = client.upload(MODEL, rows, method="temperature", promote=promote, wait_seconds=2)
        self._pending.pop(0)
        if fit.fit in self.acknowledged_fits:
            self._outcome.faults.append(f"two uploads were answered with fit {fit.fit}")
        self.acknowledged_fits.add(fit.fit)
        self._outcome.uploads += 1
        return fit


def is_current(fit: FitSummary, live: ModelDescription, judged_revision: int | None) -> bool:
    """Whether a fit still answers the upload that asked for it."""
    if fit.state != "done":
        return not fit.ended
    is_live = (fit.version, fit.calibrator) == (live.version, live.calibrator)
    return is_live or judged_revision == live.revision
