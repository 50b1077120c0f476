"""Predictions with ids: remembered rows a second, look-ups, labels by id, and cost of an answer."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.report import table
from benchmarks.control.labels import MODEL, send, serve_command
from benchmarks.control.postgres_server import NoServer, postgres_server
from benchmarks.serving.processes import running
from benchmarks.serving.spread import judged
from trueprob.client import Client
from trueprob_service.control.plane import ControlPlane
from trueprob_service.control.remembered.memory import Memory
from trueprob_service.control.store import Store, open_store
from trueprob_service.inference.asgi import HotRoutes
from trueprob_service.inference.body import BodyReader, JsonBodies
from trueprob_service.inference.deployments import DeploymentLookup, Deployments
from trueprob_service.metrics.telemetry import Telemetry
from trueprob_service.receipts.identified import IdentifiedQueue, IdentifiedRows
from trueprob_service.receipts.receipt import Receipts, digest64
from trueprob_service.receipts.secrets import ReceiptKey
from trueprob_service.settings import Settings

PAST: Final = "past"  # the model of the many predictions
ROWS: Final = 10_000_000
GROUP: Final = 6_000  # rows of one flush: 30 000 a second, five times a second
ANSWER: Final = 1_000  # rows of one answer
LOOKS: Final = (1, 100, 10_000, 100_000)  # ids of a request
# Labels of a request and connections.
CASES: Final = ((1, 1), (1, 64), (100, 1), (100, 64), (10_000, 1))
LIMITS: Final = {"SQLite": 30_000, "PostgreSQL": 60_000}  # remembered rows a second
BODIES: Final = (1, 100, 1_000)  # rows of a request whose answer is timed


@dataclass
class Stored:
    """What was measured on one database."""

    rate: float
    last_rate: float  # over the last tenth
    cpu: float  # microseconds a row, of this process
    size: float  # bytes a row in the database
    looks: dict[int, float] = field(default_factory=dict)  # milliseconds


def remembered_report(*, small: bool = False) -> str:
    """The tables; `small` remembers a fiftieth of the rows and sends fewer requests."""
    n = ROWS // 50 if small else ROWS
    notes, stored, labelled = [], {}, {}
    for name, start in (("SQLite", _sqlite), ("PostgreSQL", _postgresql)):
        try:
            with start() as (url, flags):
                stored[name] = _store(url, n)
                labelled[name] = _labels(flags, 1 if small else 3)
        except NoServer as reason:
            notes.append(f"- PostgreSQL: skipped, {reason}.")
    rows = [
        [name, f"{s.rate:,.0f}", f"{s.last_rate:,.0f}", f"{s.cpu:.1f}", f"{s.size:.0f}"]
        + [f"{s.looks[k]:.1f}" for k in LOOKS]
        for name, s in stored.items()
    ]
    header = ["", "rows a second", "in the last tenth", "CPU µs a row", "MB a million rows"]
    labels = [
        [f"{name}, {batch} × {connections} connections", f"{rate:,.0f}"]
        for name, rates in labelled.items()
        for (batch, connections), rate in rates.items()
    ]
    answers = asyncio.run(_answers(100 if small else 1_000))
    how = (
        f"{n:,} predictions with ids, remembered as fast as the database takes them in groups of "
        f"{GROUP:,}, merged meanwhile, and looked up at the end (all found; milliseconds, median). "
        "CPU of the process, with the merges; PostgreSQL's own is not in it."
    )
    of_labels = "Labels by id over HTTP: a transaction a request, the predictions just made."
    answered = ["rows of a request", "without ids", "with ids", "a row more"]
    of_answers = (
        "CPU of an answer in this process, without HTTP and receipts, in microseconds: median of "
        "requests in turn. What is done behind the answer is not in it."
    )
    targets = [
        judged(f"at least {limit:,} rows a second, {name}", limit, {"all rows": stored[name].rate})
        for name, limit in LIMITS.items()
        if name in stored
    ]
    tables = (
        (how, table([*header, *(f"find {k:,}" for k in LOOKS)], rows)),
        (of_labels, table(["", "labels a second"], labels)),
        (
            of_answers,
            table(answered, answers),
        ),
    )
    listed = "\n".join([*targets, *notes])
    return "\n\n".join([*(text for pair in tables for text in pair), listed])


@contextmanager
def _sqlite() -> Iterator[tuple[str, list[str]]]:
    with tempfile.TemporaryDirectory(prefix="trueprob-bench-") as folder:
        yield f"sqlite:///{folder}/memory.sqlite3", ["--state-dir", f"{folder}/state"]


@contextmanager
def _postgresql() -> Iterator[tuple[str, list[str]]]:
    with (
        postgres_server() as server,
        tempfile.TemporaryDirectory(prefix="trueprob-bench-") as folder,
    ):
        url = f"postgresql://trueprob@/postgres?host={server}"
        secret = ["--receipt-secrets", secrets.token_hex(32)]
        yield url, ["--state-dir", f"{folder}/state", "--database-url", url, *secret]


def _store(url: str, n: int) -> Stored:
    store = open_store(url, timeout_seconds=120.0)
    queue = IdentifiedQueue()
    receipts = Receipts([ReceiptKey.from_secret("of the benchmark")], clock=time.time)
    memory = Memory(store, queue, receipts, settings=Settings(), clock=time.time)
    with store.write() as transaction:
        transaction.models.add(PAST, declared=True, now=0.0)
    memory.start()
    try:
        logits = np.random.default_rng(0).normal(size=(ANSWER, 10)).astype(np.float32)
        marks = [(0, time.perf_counter())]
        cpu = time.process_time()
        for first in range(0, n, GROUP):
            for start in range(first, first + GROUP, ANSWER):
                logits = logits + np.float32(1e-3)  # inputs that are new
                queue.put(_rows(receipts, logits, start))
            if not memory.flush():
                raise RuntimeError("the database did not take the rows")
            marks.append((first + GROUP, time.perf_counter()))
        cpu = time.process_time() - cpu
        total, ended = marks[-1]
        middle, since = marks[len(marks) * 9 // 10]
        found = Stored(
            rate=total / (ended - marks[0][1]),
            last_rate=(total - middle) / (ended - since),
            cpu=1e6 * cpu / total,
            size=_size(store, url) / total,
        )
        for k in LOOKS:
            found.looks[k] = _look(memory, total, min(k, total))
    finally:
        memory.close()
        store.close()
    return found


def _rows(receipts: Receipts, logits: NDArray[np.float32], start: int) -> IdentifiedRows:
    ids = [f"order-{number}" for number in range(start, start + ANSWER)]
    prediction, confidence = logits.argmax(axis=1), np.full(ANSWER, 0.5, np.float32)
    return IdentifiedRows(
        ids, PAST, 1, 1, digest64("classes"), prediction, confidence, logits, None, None,
        receipts.stamp(ANSWER),
    )  # fmt: skip


def _size(store: Store, url: str) -> float:
    """Bytes of the database in use, as the service reports them or the file has them."""
    if url.startswith("sqlite"):
        return float(Path(url.removeprefix("sqlite:///")).stat().st_size)
    with store.read() as transaction:
        return float(sum(each.size_bytes for each in transaction.remembered.figures()))


def _look(memory: Memory, total: int, k: int) -> float:
    """Milliseconds to find k ids."""
    rng, times = np.random.default_rng(k), []
    for _ in range(20 if k <= 100 else 5):
        ids = [f"order-{number}" for number in rng.integers(0, total, k)]
        start = time.perf_counter()
        if len(memory.find(PAST, ids).missing):
            raise RuntimeError("a remembered id was not found")
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def _labels(flags: list[str], rounds: int) -> dict[tuple[int, int], float]:
    """Labels by id a second, by labels of a request and connections."""
    rng, rates, number = np.random.default_rng(0), {}, 0
    with (
        running(serve_command(flags), ready="/v2/health/ready", environment={}) as process,
        Client(f"http://127.0.0.1:{process.port}") as client,
    ):
        client.declare(MODEL, n_classes=3)
        for batch, connections in CASES:
            requests = max(connections, 3 * rounds if batch > 100 else 20 * rounds)
            bodies = []
            for _ in range(requests):
                ids = [f"order-{n}" for n in range(number, number + batch)]
                logits = rng.normal(0.0, 2.0, (batch, 3)).astype(np.float32)
                client.predict(MODEL, logits=logits, ids=ids, receipts=False)
                bodies.append(json.dumps({"ids": ids, "labels": [0] * batch}).encode())
                number += batch
            parts = [bodies[start::connections] for start in range(connections)]
            post = partial(send, process.port, batch=batch)
            with ThreadPoolExecutor(connections) as pool:
                begun = time.perf_counter()
                list(pool.map(post, parts))
                rates[batch, connections] = requests * batch / (time.perf_counter() - begun)
    return rates


async def _answers(turns: int) -> list[list[str]]:
    """For each size of a request: its rows, microseconds without and with ids, a row more."""
    rows = []
    with _routes() as routes:
        for n in BODIES:
            logits = np.random.default_rng(n).normal(size=(n, 10)).round(4).tolist()
            times: dict[bool, list[float]] = {False: [], True: []}
            for turn in range(max(20, turns // n)):
                for with_ids, found in times.items():
                    given = {"ids": [f"order-{turn}-{row}" for row in range(n)]} if with_ids else {}
                    body = json.dumps({"logits": logits, **given}).encode()
                    found.append(await _post(routes, body))
            plain, more = (float(np.median(times[which])) for which in (False, True))
            rows.append([str(n), f"{plain:.0f}", f"{more:.0f}", f"{(more - plain) / n:.2f}"])
    return rows


@contextmanager
def _routes() -> Iterator[HotRoutes]:
    """The data plane of a service with a model of ten classes."""
    with tempfile.TemporaryDirectory(prefix="trueprob-bench-") as folder:
        settings = Settings(state_dir=Path(folder), model_repository=Path(folder, "none"))
        telemetry = Telemetry(version="", commit="")
        deployments = Deployments(network_for=lambda _: None, meters_for=telemetry.meters_for)
        plane = ControlPlane(
            settings, deployments=deployments, clock=time.time, count_label=telemetry.count_labels
        )
        plane.start()
        plane.services.declarations.declare(MODEL, n_classes=10, class_names=None, by=None)
        bodies = JsonBodies()
        try:
            yield HotRoutes(
                _no_fallback,
                methods_of=lambda _: (),
                deployments=DeploymentLookup(deployments, plane.sync),
                receipts=lambda: plane.receipts,
                readiness=lambda: (True, {}),
                bodies=BodyReader(bodies, max_pixels=1, max_images=1),
                identified=plane.identified,
            )
        finally:
            bodies.close()
            plane.close()
            deployments.close()


async def _no_fallback(*_request: object) -> None:
    raise NotImplementedError("every request of the benchmark has a route")


async def _post(routes: HotRoutes, body: bytes) -> float:
    """Microseconds of CPU of one prediction, on this thread."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def take(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": f"/v1/models/{MODEL}/probabilities",
        "query_string": b"receipts=false", "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    start = time.thread_time()
    await routes(scope, receive, take)
    seconds = time.thread_time() - start
    if sent[0]["status"] != 200:
        raise RuntimeError(str(sent[1])[:300])
    return 1e6 * seconds
