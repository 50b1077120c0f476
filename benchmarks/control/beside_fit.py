"""Latency of small predictions at rest and during uploads and fits of a large set."""

from __future__ import annotations

import http.client
import json
import sys
import tempfile
import time
from contextlib import AbstractContextManager, closing
from pathlib import Path
from threading import Event, Thread
from typing import Final

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.calibration.speed import realistic
from benchmarks.serving.cases import CASES, model_name
from benchmarks.serving.load import Generators, Load
from benchmarks.serving.processes import Running, running
from benchmarks.serving.servers import OURS
from benchmarks.serving.spread import judged, middle, ratio, ratios
from benchmarks.serving.stage import Stage, make_stage

ROWS, CLASSES = 25_000, 1_000
INTERVAL: Final = 0.02  # seconds between two requests of the probe
LIMIT: Final = 2.0  # of the 99th percentile at rest
WAIT_SECONDS: Final = 60
PIECE_BYTES: Final = 1 << 20


def beside_fit_report(*, small: bool = False) -> str:
    """The table; `small` uploads a tenth of the rows and runs two rounds instead of three."""
    rows, rounds = (ROWS // 10, 2) if small else (ROWS, 3)
    with tempfile.TemporaryDirectory(prefix="trueprob-bench-") as name:
        stage, body = make_stage(Path(name, "stage")), Path(name, "rows.npz")
        logits, labels = realistic(rows, CLASSES)
        np.savez(body, logits=logits, labels=labels)
        with _service(stage) as process:
            seconds = _upload(process.port, body)  # warms up, and says how long one takes
            resting, beside, fitted = _rounds(process.port, stage, body, rounds, seconds)
        size = body.stat().st_size / 1e6
    quiet, loud = ([1000 * load.p99 for load in loads] for loads in (resting, beside))
    medians = [[1000 * load.p50 for load in loads] for loads in (resting, beside)]
    how = (
        f"Logits {CASES[0].name} every {1000 * INTERVAL:.0f} ms, latency counted from when each "
        f"was due; beside it {rows} × {CLASSES} rows ({size:.0f} MB) are uploaded, checked, "
        f"stored, fitted (`smart`, cross-fitted too) and judged, the next upload at once after "
        f"the last: {fitted} in {rounds} rounds, {seconds:.1f} s the first. The load is in "
        "processes of its own; nothing is pinned to cores."
    )
    return "\n".join(
        [
            how,
            "",
            table(
                ["milliseconds", "at rest", "beside uploads and fits", "ratio"],
                [
                    ["p50", *map(middle, medians), ratio(medians[1], medians[0])],
                    ["p99", middle(quiet), middle(loud), ratio(loud, quiet)],
                ],
            ),
            "",
            judged(
                f"p99 beside an upload and its fit at most {LIMIT:g} × its value at rest",
                LIMIT,
                {"median of rounds": float(np.median(ratios(loud, quiet)))},
                at_most=True,
            ),
        ]
    )


def _service(stage: Stage) -> AbstractContextManager[Running]:
    def command(port: int) -> list[str]:
        places = {"--state-dir": stage.folder / "state", "--model-repository": stage.models}
        flags = [str(part) for flag in places.items() for part in flag]
        return [sys.executable, "-m", "trueprob_service", "serve", "--port", str(port), *flags]

    return running(command, ready="/v2/health/ready", environment={})


def _rounds(
    port: int, stage: Stage, body: Path, rounds: int, upload_seconds: float
) -> tuple[list[Load], list[Load], int]:
    """Latencies at rest and during uploads, in turn, and the number of fits."""
    row = OURS.rows(stage)[OURS.name](CASES[0])
    assert row is not None
    seconds = min(max(10.0, upload_seconds), 60.0)
    resting, beside, fitted = [], [], 0
    for _ in range(rounds):
        resting += Generators([(row, 1, INTERVAL)], port, seconds).wait()
        over, finished = Event(), []

        def upload(over: Event = over, finished: list[float] = finished) -> None:
            while not over.is_set():
                finished.append(_upload(port, body))

        thread = Thread(target=upload)
        probe = Generators([(row, 1, INTERVAL)], port, seconds, warmup=1.0)
        thread.start()
        try:
            beside += probe.wait()
        finally:
            over.set()
            thread.join()
        fitted += len(finished)
    for load in (*resting, *beside):
        if load.failures or not load.requests:
            raise RuntimeError(f"{load.failures} of {load.requests} predictions failed")
    return resting, beside, fitted


def _upload(port: int, body: Path) -> float:
    """Seconds until the fit of an upload ends, without a promotion."""
    path = f"/v1/models/{model_name(CLASSES)}/calibration-sets?promote=never"
    headers = {
        "Content-Type": "application/x-npz",
        "Content-Length": str(body.stat().st_size),
        "Prefer": f"wait={WAIT_SECONDS}",
    }
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2 * WAIT_SECONDS)
    with closing(connection), body.open("rb") as file:
        connection.blocksize = PIECE_BYTES
        connection.request("POST", path, file, headers)
        fit = json.loads(connection.getresponse().read())
        while fit.get("state") in ("queued", "running"):  # longer than the service lets one wait
            time.sleep(0.5)
            connection.request("GET", f"/v1/models/{model_name(CLASSES)}/fits/{fit['fit']}")
            fit = json.loads(connection.getresponse().read())
        if fit.get("state") != "done":
            raise RuntimeError(f"the upload came to {str(fit)[:300]}")
    return time.perf_counter() - start
