"""Rounds of kill -9: two threads send labels and uploads, a third kills, the next start is checked.

After each start: what was not acknowledged is sent again; then the exported totals must equal the
ledger's, none may have fallen, the evidence of the live promotion must be that of the ledger's
labels, the history must begin as it was seen, and the live pair must be its
last. After the last round every fit must end.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.crash.ledger import Batch, Ledger, Totals, differences, exported, falls
from benchmarks.crash.service_process import ServiceProcess
from trueprob.client import Client, FitSummary, PromotionSummary, ServiceProblem, ServiceUnreachable

__all__ = ["CrashTest", "Outcome"]

MODEL: Final = "m"
ROWS: Final = 25
SET_ROWS: Final = 300
SUMS_AGREE_TO: Final = 1e-9
TOLERANCE: Final = 0.02  # the default of TRUEPROB_ALARM_TOLERANCE
LEASE_SECONDS: Final = 30.0  # a killed process's fit is left to it so long


@dataclass
class Outcome:
    """What happened, and what was wrong."""

    rounds: int = 0
    labels: int = 0
    duplicates: int = 0
    uploads: int = 0
    promotions: int = 0
    given_up_fits: int = 0
    faults: list[str] = field(default_factory=list)


class CrashTest:
    """A service that is killed again and again.

    Parameters
    ----------
    folder : Path
        For its state and its log.
    database_url : str
        Empty for SQLite in the folder.
    seed : int
        Of the rows and of the moments.
    """

    def __init__(self, folder: Path, database_url: str, *, seed: int) -> None:
        self._state = folder / "state"
        self._flags = ("--database-url", database_url) if database_url else ()
        self._random = np.random.default_rng(seed)
        self._ledger = Ledger()
        self._pending: list[tuple[str, dict[str, np.ndarray], str]] = []  # key, rows, promote
        self._acknowledged_fits: set[str] = set()
        self._history: list[PromotionSummary] = []
        self._seen: Totals = {}
        self._outcome = Outcome()

    def run(self, rounds: int, *, wait_for_fits: bool = True) -> Outcome:
        """Kill that often; what came of it."""
        for _ in range(rounds):
            service = ServiceProcess(self._state, *self._flags)
            try:
                with Client(service.url, timeout_seconds=30) as client:
                    self._check(client)
                self._stream_until_killed(service)
            finally:
                service.kill()
            self._outcome.rounds += 1
        service = ServiceProcess(self._state, *self._flags)
        try:
            with Client(service.url, timeout_seconds=30) as client:
                self._check(client)
                self._check_fits(client, wait=wait_for_fits)
        finally:
            service.kill()
        return self._outcome

    def _stream_until_killed(self, service: ServiceProcess) -> None:
        threads = [
            threading.Thread(target=work, args=(service.url, self._random.integers(2**32)))
            for work in (self._send_labels, self._send_uploads)
        ]
        for thread in threads:
            thread.start()
        time.sleep(self._random.uniform(0.01, 0.8))
        service.kill()
        for thread in threads:
            thread.join()

    def _send_labels(self, url: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        # Not the retrying method: what was not answered is uncertain, and is looked at.
        with Client(url, timeout_seconds=10) as client, contextlib.suppress(ServiceUnreachable):
            while True:
                logits = rng.normal(0.0, 2.0, (ROWS, 3)).astype(np.float32)
                answer = client.predict(MODEL, logits=logits)
                batch = Batch(answer, tuple(int(label) for label in rng.integers(0, 3, ROWS)))
                self._ledger.uncertain.append(batch)
                self._send(client, batch)

    def _send(self, client: Client, batch: Batch) -> None:
        outcomes = client.label(MODEL, batch.ids, batch.labels)
        self._ledger.uncertain.remove(batch)
        self._ledger.acknowledged.append(batch)
        self._ledger.accepted += outcomes.accepted
        self._ledger.duplicates += outcomes.duplicate
        if outcomes.rejected:
            self._outcome.faults.append(f"{outcomes.rejected} labels of a batch were rejected")

    def _send_uploads(self, url: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        with Client(url, timeout_seconds=10) as client, contextlib.suppress(ServiceUnreachable):
            while True:
                logits = rng.normal(0.0, 2.0, (SET_ROWS, 3))
                labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
                sharp = (rng.uniform(0.5, 3.0) * logits).astype(np.float32)
                promote = "always" if rng.random() < 0.5 else "auto"
                self._pending.append(
                    (uuid.uuid4().hex, {"logits": sharp, "labels": labels}, promote)
                )
                self._upload(client)

    def _upload(self, client: Client) -> None:
        """Send the oldest upload that was not acknowledged."""
        key, rows, promote = self._pending[0]
        fit = client.upload(
            MODEL, rows, method="temperature", promote=promote, idempotency_key=key,
            wait_seconds=2,
        )  # fmt: skip
        self._pending.pop(0)
        if fit.fit in self._acknowledged_fits:
            self._outcome.faults.append(f"two uploads were answered with fit {fit.fit}")
        self._acknowledged_fits.add(fit.fit)
        self._outcome.uploads += 1

    def _check(self, client: Client) -> None:
        with contextlib.suppress(ServiceProblem):
            client.declare(MODEL, n_classes=3)
        for batch in list(self._ledger.uncertain):
            self._send(client, batch)
        totals = exported(client.metrics())  # the first reading of this process: not a cached one
        faults = self._outcome.faults
        faults += differences(self._ledger.totals(), totals, relative=SUMS_AGREE_TO)
        faults += falls(self._seen, totals)
        self._seen = totals
        self._check_alarm_state(client)
        self._check_history(client)
        while self._pending:
            self._upload(client)
        fits = {fit.fit for fit in client.fits(MODEL)}
        if missing := sorted(self._acknowledged_fits - fits):
            faults.append(f"fits {missing} were acknowledged and are gone")
        if len(fits) != len(self._acknowledged_fits):
            faults.append(f"{len(fits)} fits, {len(self._acknowledged_fits)} uploads")
        self._outcome.labels = ROWS * len(self._ledger.acknowledged)
        self._outcome.duplicates = self._ledger.duplicates

    def _check_alarm_state(self, client: Client) -> None:
        now = client.calibration(MODEL)
        wanted = self._ledger.evidence_log10(now.revision, tolerance=TOLERANCE)
        if now.evidence_log10 is None or abs(now.evidence_log10 - wanted) > SUMS_AGREE_TO:
            self._outcome.faults.append(
                f"evidence of revision {now.revision} must be 10^{wanted!r}, "
                f"got 10^{now.evidence_log10!r}"
            )

    def _check_history(self, client: Client) -> None:
        faults = self._outcome.faults
        model, history = client.model(MODEL), [*reversed(client.promotions(MODEL))]
        known = len(self._history)
        if history[:known] != self._history:
            faults.append("the history of promotions is not the one that was seen before")
        if [row.revision for row in history] != list(range(1, len(history) + 1)):
            faults.append("the history of promotions has gaps")
        live = next((row for row in reversed(history) if row.revision == model.revision), None)
        if live is None or live.calibrator != model.calibrator:
            faults.append(f"{model.calibrator} is live and was not promoted so")
        self._history, self._outcome.promotions = history, len(history)

    def _check_fits(self, client: Client, *, wait: bool) -> None:
        deadline = time.monotonic() + (LEASE_SECONDS + 30 if wait else 10)

        def open_fits() -> list[FitSummary]:
            fits = [fit for fit in client.fits(MODEL) if not fit.ended]
            # What a killed process ran is left to it for the time of its lease.
            return fits if wait else [fit for fit in fits if fit.state == "queued"]

        while (stuck := open_fits()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for fit in stuck:
            self._outcome.faults.append(f"fit {fit.fit} is still {fit.state}")
        for fit in client.fits(MODEL):
            if fit.state == "failed":
                self._outcome.given_up_fits += 1
                if "times during this fit" not in (fit.error or ""):
                    self._outcome.faults.append(f"fit {fit.fit}: {fit.error}")
