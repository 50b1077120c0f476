"""Health and small requests while eight clients post bodies of 32 MB."""

from __future__ import annotations

import sys

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.serving.cases import CASES, model_name, npy
from benchmarks.serving.load import Generators, Load, Request
from benchmarks.serving.servers import NPY, OURS
from benchmarks.serving.spread import judged, middle, ratio, ratios
from benchmarks.serving.stage import Stage

CLIENTS, MEGABYTES, K = 8, 32, 1000
INTERVAL = 0.02  # seconds between two requests of each probe
LIVE_LIMIT = 0.05  # seconds at the 99th percentile


def large_request() -> Request:
    """32 MB of logits as `.npy`; the answer is `.npy` too."""
    rows = MEGABYTES * 1_000_000 // (4 * K)
    logits = np.random.default_rng(0).standard_normal((rows, K), dtype=np.float32)
    path = f"/v1/models/{model_name(K)}/probabilities"
    return Request(path, npy(3 * logits), {"Content-Type": NPY, "Accept": NPY})


def beside_report(stage: Stage, *, small: bool) -> str:
    """The table: rounds without and with the clients, in turn, on one running service."""
    rounds, seconds = (2, 4.0) if small else (7, 15.0)
    live = Request("/v2/health/live")
    row = OURS.rows(stage)[OURS.name](CASES[0])
    assert row is not None
    large = large_request().with_key(stage.key)
    probes = [(live, 1, INTERVAL), (row, 1, INTERVAL)]
    alone: list[list[Load]] = []
    beside: list[list[Load]] = []
    rates = []
    with OURS.running(sys.executable, stage) as process:
        for request in (row, large):
            request.send(process.port)
        for _ in range(rounds):
            alone.append(_checked(Generators(probes, process.port, seconds).wait()))
            clients = Generators(
                [(large, CLIENTS, None), *probes], process.port, seconds, warmup=1.0
            )
            posted, *seen = _checked(clients.wait())
            beside.append(seen)
            rates.append(posted.rate)

    def milliseconds(loads: list[list[Load]], index: int, level: str) -> list[float]:
        return [1000 * getattr(round_[index], level) for round_ in loads]

    rows = []
    for index, name in enumerate(("`GET /v2/health/live`", f"logits {CASES[0].name}")):
        for level in ("p50", "p99"):
            quiet, loud = (milliseconds(loads, index, level) for loads in (alone, beside))
            rows.append([f"{name}, {level}", middle(quiet), middle(loud), ratio(loud, quiet)])
    worst = max(milliseconds(beside, 0, "p99"))
    quiet, loud = (milliseconds(loads, 1, "p99") for loads in (alone, beside))
    times = float(np.median(ratios(loud, quiet)))
    introduction = (
        f"{CLIENTS} clients in a closed loop, {MEGABYTES} MB of {K} classes a body, "
        f"{middle(rates)} answers a second to them together; a probe every "
        f"{1000 * INTERVAL:.0f} ms each, its latency counted from when it was due. Nothing is "
        f"pinned to cores. {rounds} rounds of {seconds:.0f} s."
    )
    return "\n".join(
        [
            introduction,
            "",
            table(["milliseconds", "alone", f"beside {CLIENTS} clients", "ratio"], rows),
            "",
            judged(
                f"at most {1000 * LIVE_LIMIT:.0f} ms at p99 for `/v2/health/live` beside them",
                1000 * LIVE_LIMIT,
                {"milliseconds, worst round": worst},
                at_most=True,
            ),
            f"- p99 of {CASES[0].name} beside them over alone: {times:.2f}.",
        ]
    )


def _checked(loads: list[Load]) -> list[Load]:
    for load in loads:
        if load.failures or not load.requests:
            raise RuntimeError(f"{load.failures} of {load.requests} requests failed")
    return loads
