"""Faults in a random order with traffic going on; after each one everything is compared.

While a fault lasts, some threads predict, others predict and label, and on a service of our own one
uploads, promotes and rolls back. When the service is ready again the traffic ends, what was not
acknowledged is sent again, and the totals of the service must equal the ledger's: every
acknowledged label once, no other. At the very end all labels are sent once more and must all be
duplicates.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import httpx
import numpy as np

from benchmarks.control.postgres_server import NoServer
from benchmarks.crash.label_traffic import LabelTraffic, drawn_labels
from benchmarks.crash.ledger import Totals
from benchmarks.torture.answers import ObservedAnswers
from benchmarks.torture.faults import CommandFailed, Fault
from benchmarks.torture.operator import Operator
from benchmarks.torture.reconciliation import Reconciliation
from benchmarks.torture.request_log import RecordedTransport, RequestLog, counts, longest_gap
from trueprob.client import Client, ServiceProblem, ServiceUnreachable

__all__ = ["Episode", "Outcome", "Target", "Torture"]

POLL_SECONDS: Final = 0.2
NOTICED_SECONDS: Final = 20.0  # promised are 5, on a machine that is not busy
PAUSE_SECONDS: Final = 0.05  # between the requests of a thread
FAILURES: Final = (CommandFailed, NoServer, RuntimeError)  # of what begins or ends a fault


class Target(Protocol):
    """A service under test."""

    urls: tuple[str, ...]
    model: str
    n_classes: int
    before: Totals

    def connect(self, index: int, transport: httpx.BaseTransport | None = None) -> Client:
        """A client; the index chooses among several addresses."""

    def readiness(self) -> list[str]:
        """What each replica or address says of itself."""

    def totals(self, wanted: Totals) -> Totals:
        """The totals, once they are as wanted or surely fresh."""


@dataclass
class Episode:
    """One fault and what was seen of it."""

    fault: str
    what: str
    held_seconds: float
    ready_seconds: float | None  # since it was healed, or since it began if it heals by itself
    degraded_seconds: float | None  # until readiness said so
    readiness: list[str]  # what was said meanwhile, but ok
    requests: Mapping[str, Mapping[str, int]]
    longest_without_prediction: float
    longest_without_label: float
    labels: int
    sent_again: int
    disagreements: list[str] = field(default_factory=list)


@dataclass
class Outcome:
    """All episodes, and what disagreed."""

    episodes: list[Episode] = field(default_factory=list)
    labels: int = 0
    rows: int = 0
    counted_unanswered: int = 0  # labels that had been counted though their answer was lost
    answers: int = 0  # that were computed again
    uploads: int = 0
    promotions: int = 0
    seconds: float = 0.0
    disagreements: list[str] = field(default_factory=list)


class Torture:
    """Inflicts faults on a target.

    Parameters
    ----------
    target : Target
    faults : sequence of Fault
    seed : int
        Of the order and of the rows.
    operate : bool
        Whether to upload, promote and roll back, and to send labelled rows: on a service of our
        own only.
    patience_seconds : float
        How long the service may take until it is ready again.
    around_seconds : float
        Of traffic before a fault, and after it has healed.
    say : callable
        Gets a line about each episode.
    """

    def __init__(
        self,
        target: Target,
        faults: Sequence[Fault],
        *,
        seed: int = 0,
        operate: bool,
        patience_seconds: float = 120.0,
        around_seconds: float = 1.0,
        say: Callable[[Episode], None] | None = None,
    ) -> None:
        self._target = target
        self._faults = faults
        self._random = np.random.default_rng(seed)
        self._patience_seconds = patience_seconds
        self._around_seconds = around_seconds
        self._say = say
        self._log = RequestLog()
        self._found: list[str] = []
        answers = ObservedAnswers()
        self._labels = LabelTraffic(
            target.model, target.n_classes, self._found,
            draw=drawn_labels, with_rows=operate, observe=answers.add,
        )  # fmt: skip
        self._operator = Operator(target.model, target.n_classes, seed) if operate else None
        self._reconciliation = Reconciliation(
            target.model, self._labels, answers, self._operator, target.totals, target.before
        )
        self._outcome = Outcome()

    def run(self, rounds: int = 1) -> Outcome:
        """Inflict each fault once a round; what came of it."""
        started = time.monotonic()
        outcome = self._outcome
        for _ in range(rounds):
            for index in self._random.permutation(len(self._faults)):
                episode = self._episode(self._faults[index])
                outcome.episodes.append(episode)
                where = f"{episode.fault} ({episode.what})"
                outcome.disagreements += [f"{where}: {each}" for each in episode.disagreements]
                if self._say is not None:
                    self._say(episode)
                if episode.ready_seconds is None:
                    return self._ended(started)
        with self._client() as client:
            outcome.disagreements += self._reconciliation.final(client)
        return self._ended(started)

    def _ended(self, started: float) -> Outcome:
        outcome, ledger = self._outcome, self._labels.ledger
        outcome.labels, outcome.rows = ledger.labels, len(ledger.all_rows()[0])
        outcome.counted_unanswered = ledger.duplicates
        outcome.answers = self._reconciliation.answers.compared
        if self._operator is not None:
            outcome.uploads = self._operator.uploads
            outcome.promotions = self._operator.promotions
        outcome.seconds = round(time.monotonic() - started, 1)
        return outcome

    def _episode(self, fault: Fault) -> Episode:
        labels, wrong = self._labels.ledger.labels, []
        first = time.monotonic()
        with self._traffic():
            time.sleep(self._around_seconds)
            said: list[str] = []
            began, degraded = time.monotonic(), None
            try:
                fault.inflict()
                degraded = self._hold(fault, began, said)
            except FAILURES as error:
                wrong.append(str(error))
            finally:
                healed = time.monotonic()
                wrong += self._healed(fault)
            ready = self._wait_until_ready(fault, began, said)
            ended = time.monotonic()
            time.sleep(self._around_seconds)
        requests = self._log.between(began, ended)
        around = self._log.between(first, time.monotonic())
        gaps = [round(longest_gap(around, kind, began, ended), 1) for kind in ("predict", "label")]
        wrong += fault.promise.broken(around)
        if ready is None:
            wrong.append(f"not ready {self._patience_seconds:g} s later: {said[-1:]}")
        if fault.degraded and degraded is None:
            wrong.append("readiness never said degraded")
        uncertain = self._uncertain()
        if ready is not None:
            with self._client() as client:
                wrong += self._reconciliation.settled(client)
        since = healed if fault.heal is not None else began
        wrong += self._found
        self._found.clear()
        return Episode(
            fault.name,
            fault.what,
            round(healed - began, 1) if fault.heal is not None else 0.0,
            None if ready is None else round(ready - since, 1),
            degraded,
            sorted(set(said) - {"ok"}),
            counts(requests),
            *gaps,
            self._labels.ledger.labels - labels,
            uncertain,
            wrong,
        )

    def _hold(self, fault: Fault, began: float, said: list[str]) -> float | None:
        """Wait for the end of a fault; seconds until readiness said degraded, if it did.

        One that readiness must notice is held until it does.
        """
        degraded = None
        while (lasted := time.monotonic() - began) < fault.hold_seconds or (
            fault.degraded and degraded is None and lasted < NOTICED_SECONDS
        ):
            said += (states := self._target.readiness())
            if degraded is None and any(state.startswith("degraded") for state in states):
                degraded = round(time.monotonic() - began, 1)
            time.sleep(POLL_SECONDS)
        return degraded

    @staticmethod
    def _healed(fault: Fault) -> Iterator[str]:
        try:
            if fault.heal is not None:
                fault.heal()
        except FAILURES as error:
            yield str(error)

    def _uncertain(self) -> int:
        ledger = self._labels.ledger
        return sum(len(e.labels) for e in [*ledger.uncertain, *ledger.uncertain_rows])

    def _wait_until_ready(self, fault: Fault, began: float, said: list[str]) -> float | None:
        """When every replica was ready again and a label was taken, or None."""
        deadline = time.monotonic() + self._patience_seconds
        disturbed = fault.heal is not None
        while (now := time.monotonic()) < deadline:
            states = self._target.readiness()
            said += states
            whole = all(state == "ok" for state in states)
            # What heals by itself must be seen to have begun; some of it, nobody sees.
            disturbed = disturbed or not whole or now > began + fault.unseen_seconds
            if whole and disturbed and self._takes_a_label():
                return now
            time.sleep(POLL_SECONDS)
        return None

    def _takes_a_label(self) -> bool:
        with self._client() as client, contextlib.suppress(ServiceProblem, ServiceUnreachable):
            self._labels.send_batch(client, self._random)
            return True
        return False

    @contextlib.contextmanager
    def _traffic(self) -> Iterator[None]:
        """Threads that send requests until the end of the block."""
        stop = threading.Event()
        works: list[Callable[[Client, np.random.Generator], object]] = [
            self._labels.predict,
            self._labels.send_batch,
        ] * max(2, len(self._target.urls))
        if (operator := self._operator) is not None:
            works.append(lambda client, _: operator.act(client))
        threads = [
            threading.Thread(
                target=self._repeat,
                args=(index, work, stop, self._random.integers(2**32)),
                daemon=True,
            )
            for index, work in enumerate(works)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _repeat(
        self,
        index: int,
        work: Callable[[Client, np.random.Generator], object],
        stop: threading.Event,
        seed: int,
    ) -> None:
        rng = np.random.default_rng(seed)
        with self._target.connect(index // 2, RecordedTransport(self._log)) as client:
            while not stop.is_set():
                with contextlib.suppress(ServiceProblem, ServiceUnreachable):
                    work(client, rng)
                stop.wait(PAUSE_SECONDS)

    def _client(self) -> Client:
        return self._target.connect(0)
