"""Labels per second over HTTP, beside the bare database with the same rows."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.control.bare_inserts import Bare, BarePostgreSQL, BareSQLite, Row
from benchmarks.control.postgres_server import NoServer, postgres_server
from benchmarks.serving.processes import running
from benchmarks.serving.spread import judged, middle, ratio, ratios
from trueprob.client import Client

MODEL: Final = "m"
# Labels of a request, and whether earlier labels were of the same inputs.
CASES: Final = ((1, False), (100, False), (10_000, False), (10_000, True))
REQUESTS: Final = {1: 50, 100: 30, 10_000: 4}  # of one round
LIMITS: Final = {"SQLite": 0.3, "PostgreSQL": 0.5}  # of the bare rate, at 10 000
NONCE: Final = slice(64, 88)  # of a receipt, see trueprob_service.receipts.receipt
KEEP_SECONDS: Final = 2_592_300.0


@dataclass
class Rates:
    """Rows per second in each round."""

    labels: list[float] = field(default_factory=list)
    by_rows: list[float] = field(default_factory=list)
    by_statements: list[float] = field(default_factory=list)


Measured = dict[tuple[int, bool], Rates]


def labels_report(*, small: bool = False) -> str:
    """The table; `small` runs two rounds instead of five."""
    rounds = 2 if small else 5
    rates: dict[str, Measured] = {}
    notes = []
    for start in (_sqlite, _postgresql):
        try:
            with start() as (bare, flags):
                rates[bare.name] = _measure(bare, flags, rounds)
        except NoServer as reason:
            notes.append(f"- PostgreSQL: skipped, {reason}.")
    rows = [
        [
            f"{name}, batches of {batch}{', of inputs labelled before' if again else ''}",
            middle(of.labels),
            middle(of.by_rows),
            ratio(of.labels, of.by_rows),
            middle(of.by_statements),
            ratio(of.labels, of.by_statements),
        ]
        for name, batches in rates.items()
        for (batch, again), of in batches.items()
    ]
    header = ["rows a second", "labels", "bare", "ratio", "bare, many rows a statement", "ratio"]
    how = (
        "One client sends batch after batch to `POST …/labels` of a service in a process of its "
        "own; a transaction each. Bare: the driver's `executemany` of the rows that these labels "
        "put into the table of used receipts, same table and index, as many rows a transaction, "
        "same durability (SQLite WAL with `synchronous=FULL`, PostgreSQL as installed), in turn "
        f"with the service. {rounds} rounds of {REQUESTS[1]}, {REQUESTS[100]} and "
        f"{REQUESTS[10_000]} batches; median, smallest and largest; ratios of the same round. A "
        "label is also verified, judged, counted for its input and added to the statistics in that "
        "transaction. Inputs are new in each batch, but for the last row of each database."
    )
    return "\n".join(
        [
            how,
            "",
            table(header, rows),
            "",
            *(
                judged(
                    f"labels in batches of 10 000 at least {limit} of the bare rate, {name}",
                    limit,
                    {"median": _median(rates.get(name))},
                )
                for name, limit in LIMITS.items()
            ),
            *notes,
        ]
    )


def _median(measured: Measured | None) -> float | None:
    if measured is None:
        return None
    of = measured[10_000, False]
    return float(np.median(ratios(of.labels, of.by_rows)))


@contextmanager
def _sqlite() -> Iterator[tuple[Bare, list[str]]]:
    with (
        tempfile.TemporaryDirectory(prefix="trueprob-bench-") as folder,
        closing(BareSQLite(Path(folder, "bare.sqlite3"))) as bare,
    ):
        yield bare, ["--state-dir", f"{folder}/state"]


@contextmanager
def _postgresql() -> Iterator[tuple[Bare, list[str]]]:
    with (
        postgres_server() as server,
        tempfile.TemporaryDirectory(prefix="trueprob-bench-") as folder,
        closing(BarePostgreSQL(server.folder)) as bare,
    ):
        secret = ["--receipt-secrets", secrets.token_hex(32)]
        yield bare, ["--state-dir", f"{folder}/state", "--database-url", server.url, *secret]


def serve_command(flags: list[str]) -> Callable[[int], list[str]]:
    """The command of a service without models, for a port; the flags begin with its folder."""
    serve = [sys.executable, "-m", "trueprob_service", "serve"]
    none = ["--model-repository", f"{flags[1]}/no-models"]
    return lambda port: [*serve, "--port", str(port), *none, *flags]


def _measure(bare: Bare, flags: list[str], rounds: int) -> Measured:
    rates = {case: Rates() for case in CASES}
    inputs = np.random.default_rng(0)
    with (
        running(serve_command(flags), ready="/v2/health/ready", environment={}) as process,
        Client(f"http://127.0.0.1:{process.port}") as client,
    ):
        client.declare(MODEL, n_classes=3)
        _round(client, process.port, bare, 10_000, 1, None)  # warms up
        for _ in range(rounds):
            for (batch, again), of in rates.items():
                n = batch * REQUESTS[batch]
                labels, by_rows, by_statements = _round(
                    client, process.port, bare, batch, REQUESTS[batch], None if again else inputs
                )
                of.labels.append(n / labels)
                of.by_rows.append(n / by_rows)
                of.by_statements.append(n / by_statements)
    return rates


def _round(
    client: Client,
    port: int,
    bare: Bare,
    batch: int,
    requests: int,
    inputs: np.random.Generator | None,
) -> tuple[float, float, float]:
    """Seconds of the labels, of bare rows one by one, and of many rows per statement."""
    bodies, kept = [], []
    for _ in range(requests):
        ids = _prediction_ids(client, batch, inputs or np.random.default_rng(1))
        bodies.append(json.dumps({"prediction_ids": ids, "labels": [0] * batch}).encode())
        kept.append([row_of(text) for text in ids])
    labels = send(port, bodies, batch)
    by_rows = sum(map(bare.by_rows, kept))
    # Other rows of the same kind: the first half of a nonce tells the processes apart.
    others = [[(b"\0" * 16 + nonce[16:], at) for nonce, at in rows] for rows in kept]
    return labels, by_rows, sum(map(bare.by_statements, others))


def send(port: int, bodies: list[bytes], batch: int) -> float:
    """Seconds of one body after the other on an open connection."""
    headers = {"Content-Type": "application/json"}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.connect()
        start = time.perf_counter()
        for body in bodies:
            connection.request("POST", f"/v1/models/{MODEL}/labels", body, headers)
            counted = json.loads(connection.getresponse().read())
            if counted.get("accepted") != batch:
                raise RuntimeError(f"{batch} labels were sent, the answer is {str(counted)[:300]}")
        return time.perf_counter() - start


def _prediction_ids(client: Client, n: int, inputs: np.random.Generator) -> list[str]:
    logits = inputs.normal(0.0, 2.0, (n, 3)).astype(np.float32)
    ids = client.predict(MODEL, logits=logits).prediction_ids
    assert ids is not None
    return list(ids)


def row_of(prediction_id: str) -> Row:
    """The row that the service stores for a counted label."""
    receipt = base64.urlsafe_b64decode(prediction_id)
    return receipt[NONCE], time.time() + KEEP_SECONDS
