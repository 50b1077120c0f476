"""Steady mixed traffic for some minutes, and the verdict on it."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx
import numpy as np

from benchmarks.soak.mix import PICTURE_MODEL, Mix, Sender
from benchmarks.soak.watch import WARM_UP, Growth, ProcessWatch, Reading
from benchmarks.torture.own_service import MODEL, OwnService
from benchmarks.torture.reconciliation import Reconciliation
from benchmarks.torture.request_log import RecordedTransport, Request, RequestLog, counts
from trueprob.client import ServiceProblem, ServiceUnreachable

__all__ = ["Finding", "Soak", "SoakOutcome", "latencies", "latency_findings", "status_findings"]

THREADS: Final = 4
DATABASE: Final = "database"
BYTES: Final = "bytes"
MOST_BYTES_PER_LABEL: Final = 700.0  # measured: docs/reliability.md
# A median that is both beyond these is slower; a busy machine moves p99 at will.
SLOWER_FACTOR, SLOWER_SECONDS = 2.0, 0.005
# Refusals that are right: a promotion that another replica has not seen yet.
CONTROL_REFUSALS: Final = ("409", "412")


@dataclass(frozen=True)
class Finding:
    """Something that must not be, and its kind."""

    kind: str  # status, ledger, growth, size, latency, process
    sentence: str


@dataclass
class SoakOutcome:
    """What was measured, and what must not be."""

    seconds: float
    requests: Mapping[str, Mapping[str, int]]
    growths: list[Growth]
    latencies: Mapping[str, Mapping[str, float]]  # of predictions, ms, by quarter
    bytes_per_label: float | None
    labels: int
    rows: int
    uploads: int
    promotions: int
    answers: int
    findings: list[Finding] = field(default_factory=list)


class Soak:
    """Sends mixed requests at a rate and watches the processes.

    Parameters
    ----------
    service : OwnService
        With the demo model of pictures in its repository.
    rate : float
        Works a second; one is up to six requests.
    seed : int
    """

    def __init__(self, service: OwnService, *, rate: float, seed: int = 0) -> None:
        self._service = service
        self._rate = rate
        self._random = np.random.default_rng(seed)
        self._faults: list[str] = []
        self._mix = Mix(service.metrics_urls(), seed, self._faults)
        self._log = RequestLog()

    def run(self, seconds: float) -> SoakOutcome:
        """Send requests for so long; what came of it."""
        service, mix = self._service, self._mix
        names = {f"replica {index}": each for index, each in enumerate(service.replica_ids())}
        watch = ProcessWatch(
            {"parent": service.process_id, **names},
            interval_seconds=min(1.0, seconds / 100),
            more={DATABASE: self._database},
        )
        started = time.monotonic()
        with watch:
            self._send(seconds)
        ended = time.monotonic()
        requests = self._log.between(started, ended)
        findings = [Finding("status", each) for each in status_findings(requests)]
        findings += [Finding("process", f"{name} has ended") for name in watch.ended]
        if list(names.values()) != service.replica_ids():
            findings.append(Finding("process", "a replica was replaced"))
        growths = watch.growths()
        findings += [Finding("growth", str(each)) for each in growths if each.grows]
        size = bytes_per_label(watch.readings.get(DATABASE, ()))
        if size is not None and size > MOST_BYTES_PER_LABEL:
            findings.append(
                Finding("size", f"{size:.0f} bytes a label, more than {MOST_BYTES_PER_LABEL:g}")
            )
        slow = latencies(requests, started, ended)
        findings += [Finding("latency", each) for each in latency_findings(slow)]
        findings += [Finding("ledger", each) for each in self._reconciled()]
        findings += [
            Finding("ledger", each if n == 1 else f"{n} times: {each}")
            for each, n in Counter(self._faults).items()
        ]
        return SoakOutcome(
            round(ended - started, 1), counts(requests), growths, slow, size,
            self._n_labels(), len(mix.labels.ledger.all_rows()[0]),
            mix.operator.uploads, mix.operator.promotions,
            mix.answers.compared + mix.picture_answers.compared, findings,
        )  # fmt: skip

    def _send(self, seconds: float) -> None:
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._work, args=(stop, self._random.integers(2**32)))
            for _ in range(THREADS)
        ]
        for thread in threads:
            thread.start()
        stop.wait(seconds)
        stop.set()
        for thread in threads:
            thread.join()

    def _work(self, stop: threading.Event, seed: int) -> None:
        rng = np.random.default_rng(seed)
        weights = np.array([weight for weight, _ in self._mix.works], float)
        due = time.monotonic() + rng.uniform(0, THREADS / self._rate)
        url = self._service.urls[0]
        with (
            self._service.connect(0, RecordedTransport(self._log)) as client,
            httpx.Client(
                base_url=url, timeout=10, transport=RecordedTransport(self._log, kind="raw")
            ) as raw,
        ):
            sender = Sender(client, raw, rng)
            while not stop.wait(max(0.0, due - time.monotonic())):
                # Late works are left out, not sent in a burst.
                due = max(due + THREADS / self._rate, time.monotonic())
                _, work = self._mix.works[rng.choice(len(weights), p=weights / weights.sum())]
                with contextlib.suppress(ServiceProblem, ServiceUnreachable, httpx.HTTPError):
                    work(sender)  # its status is in the log

    def _n_labels(self) -> int:
        return self._mix.labels.ledger.labels + self._mix.picture_labels.ledger.labels

    def _database(self) -> Mapping[str, float]:
        # Pages in use, those in SQLite's log included.
        file = self._service.sqlite_file
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            pages, free, size = (
                connection.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
        rows = sum(len(batch.ids) for batch in [*self._mix.labels.ledger.rows])
        return {BYTES: float(size * (pages - free)), "labels": float(self._n_labels() + rows)}

    def _reconciled(self) -> Iterator[str]:
        service, mix = self._service, self._mix
        accounts = [
            Reconciliation(
                MODEL, mix.labels, mix.answers, mix.operator, service.totals, service.before
            ),
            Reconciliation(
                PICTURE_MODEL, mix.picture_labels, mix.picture_answers, None,
                lambda wanted: service.totals(wanted, PICTURE_MODEL), service.before,
            ),
        ]  # fmt: skip
        with service.connect(0) as client:
            for each in accounts:
                yield from each.settled(client)
                yield from each.final(client)


def bytes_per_label(readings: Sequence[Reading]) -> float | None:
    """How much the database grew for each label and labelled row, after the warm-up."""
    warm = readings[int(WARM_UP * len(readings)) :]
    if len(warm) < 2:
        return None
    more = {key: warm[-1].values[key] - warm[0].values[key] for key in (BYTES, "labels")}
    return more[BYTES] / more["labels"] if more["labels"] else None


def status_findings(requests: Iterable[Request]) -> Iterator[str]:
    """A sentence for each kind of request that failed."""
    for kind, outcomes in counts(requests).items():
        for outcome, n in outcomes.items():
            if outcome[0] in "23" or (kind == "raw" and outcome[0] == "4"):
                continue
            if kind == "control" and outcome in CONTROL_REFUSALS:
                continue
            yield f"{n} requests ({kind}) were answered with {outcome}"


def latencies(
    requests: Iterable[Request], started: float, ended: float
) -> Mapping[str, Mapping[str, float]]:
    """p50 and p99 of predictions in milliseconds, in each quarter of the time."""
    edges = np.linspace(started, ended, 5)
    predictions = [each for each in requests if each.kind == "predict"]
    found: dict[str, dict[str, float]] = {}
    for index, (start, end) in enumerate(itertools.pairwise(edges), start=1):
        seconds = [each.seconds for each in predictions if start <= each.ended < end]
        if seconds:
            p50, p99 = np.quantile(seconds, [0.5, 0.99])
            found[f"quarter {index}"] = {
                "p50": round(1000 * float(p50), 2), "p99": round(1000 * float(p99), 2)
            }  # fmt: skip
    return found


def latency_findings(quarters: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """A sentence if the median of the last quarter is far above that of the first."""
    if "quarter 1" in quarters and "quarter 4" in quarters:
        first, last = quarters["quarter 1"]["p50"], quarters["quarter 4"]["p50"]
        if last > SLOWER_FACTOR * first and last > first + 1000 * SLOWER_SECONDS:
            yield f"predictions became slower: p50 {first:g} ms at first, {last:g} ms at last"
