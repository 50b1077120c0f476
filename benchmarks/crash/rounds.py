"""Rounds of kill -9: two threads send, a third kills, and the next start is checked.

In some rounds the clock is a little wrong, before some a new secret is put in front.

After each start: what was not acknowledged is sent again; then the exported totals must equal the
ledger's, none may have fallen, the evidence of the live promotion must be that of the ledger's
labels, the history must begin as it was seen, and the live pair must be its last. After the last
round every fit must end, and `benchmarks.crash.finale` follows.
"""

from __future__ import annotations

import contextlib
import functools
import secrets
import threading
import time
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.crash.database import judged_revision
from benchmarks.crash.finale import sent_again_after_a_sweep, sent_again_with_a_new_secret
from benchmarks.crash.history import (
    LEASE_SECONDS,
    OPEN_STATES,
    ended_fits,
    fit_differences,
    history_differences,
)
from benchmarks.crash.ledger import SUMS_AGREE_TO, Totals, differences, exported, falls
from benchmarks.crash.service_process import ServiceProcess
from benchmarks.crash.traffic import MODEL, Outcome, Traffic
from trueprob.client import Client, PromotionSummary, ServiceProblem

__all__ = ["CrashTest", "Outcome"]

TOLERANCE: Final = 0.02  # the default of TRUEPROB_ALARM_TOLERANCE
CLOCK_SHIFTS: Final = (0.0, 0.0, 10.0, -10.0)
ROTATIONS: Final = 0.25  # of the rounds


class CrashTest:
    """A service that is killed in every round.

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
        self._database_url = database_url or f"sqlite:///{self._state.resolve()}/trueprob.sqlite3"
        self._random = np.random.default_rng(seed)
        self._secrets = [secrets.token_hex(32)]
        self._history: list[PromotionSummary] = []
        self._seen: Totals = {}
        self._outcome = Outcome()
        self._traffic = Traffic(
            self._outcome, functools.partial(judged_revision, self._database_url)
        )

    def run(self, rounds: int, *, wait_for_fits: bool = True, with_sweep: bool = True) -> Outcome:
        """Kill that often; what came of it."""
        for _ in range(rounds):
            shift = float(self._random.choice(CLOCK_SHIFTS))
            if self._random.random() < ROTATIONS:
                self._rotate()
            service = self._start(clock_shift=shift)
            try:
                with Client(service.url, timeout_seconds=30) as client:
                    self._check(client)
                self._stream_until_killed(service)
            finally:
                service.kill()
            self._outcome.rounds += 1
            self._outcome.rounds_by_a_wrong_clock += shift != 0
        self._rotate()
        service = self._start()
        faults, ledger = self._outcome.faults, self._traffic.labels.ledger
        try:
            with Client(service.url, timeout_seconds=60) as client:
                self._check(client)
                self._check_fits(client, wait=wait_for_fits)
                faults += sent_again_with_a_new_secret(client, MODEL, ledger)
        finally:
            service.kill()
        if with_sweep:
            faults += sent_again_after_a_sweep(self._start, self._database_url, MODEL, ledger)
        return self._outcome

    def _rotate(self) -> None:
        """Put a new secret in front, from the next start on."""
        self._secrets.insert(0, secrets.token_hex(32))
        self._outcome.rotations += 1

    def _start(self, *flags: str, clock_shift: float = 0.0) -> ServiceProcess:
        settings = (
            *("--database-url", self._database_url),
            *("--receipt-secrets", ",".join(self._secrets)),
        )
        return ServiceProcess(self._state, *settings, *flags, clock_shift=clock_shift)

    def _stream_until_killed(self, service: ServiceProcess) -> None:
        threads = [
            threading.Thread(target=work, args=(service.url, self._random.integers(2**32)))
            for work in (self._traffic.send_labels, self._traffic.send_uploads)
        ]
        for thread in threads:
            thread.start()
        time.sleep(self._random.uniform(0.01, 0.8))
        service.kill()
        for thread in threads:
            thread.join()

    def _check(self, client: Client) -> None:
        with contextlib.suppress(ServiceProblem):
            client.declare(MODEL, n_classes=3)
        traffic = self._traffic.labels
        traffic.send_uncertain(client)
        # Some labels in every round, however soon the kill comes.
        traffic.send_batch(client, self._random)
        totals = exported(
            client.metrics(), MODEL
        )  # the first reading of this process: not a cached one
        faults = self._outcome.faults
        faults += differences(traffic.ledger.totals(), totals)
        faults += falls(self._seen, totals)
        self._seen = totals
        self._check_alarm_state(client)
        self._check_history(client)
        self._traffic.send_pending(client)
        fits = {fit.fit for fit in client.fits(MODEL)}
        if missing := sorted(self._traffic.acknowledged_fits - fits):
            faults.append(f"fits {missing} were acknowledged and are gone")
        if more := sorted(fits - self._traffic.acknowledged_fits - self._traffic.replaced_fits):
            faults.append(f"fits {more} belong to no upload")
        self._outcome.labels = traffic.ledger.labels
        self._outcome.duplicates = traffic.ledger.duplicates
        self._outcome.rows = len(traffic.ledger.all_rows()[0])

    def _check_alarm_state(self, client: Client) -> None:
        now = client.calibration(MODEL)
        wanted = self._traffic.labels.ledger.evidence_log10(now.revision, tolerance=TOLERANCE)
        if now.evidence_log10 is None or abs(now.evidence_log10 - wanted) > SUMS_AGREE_TO:
            self._outcome.faults.append(
                f"evidence of revision {now.revision} must be 10^{wanted!r}, "
                f"got 10^{now.evidence_log10!r}"
            )

    def _check_history(self, client: Client) -> None:
        model, history = client.model(MODEL), [*reversed(client.promotions(MODEL))]
        self._outcome.faults += history_differences(self._history, history, model)
        self._history, self._outcome.promotions = history, len(history)

    def _check_fits(self, client: Client, *, wait: bool) -> None:
        # What a killed process ran is left to it for the time of its lease.
        seconds, states = (LEASE_SECONDS + 30, OPEN_STATES) if wait else (10, {"queued"})
        fits = ended_fits(client, MODEL, seconds, states)
        self._outcome.faults += fit_differences(fits, states)
        self._outcome.given_up_fits += sum(fit.state == "failed" for fit in fits)
