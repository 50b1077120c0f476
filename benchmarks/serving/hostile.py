"""Small predictions of an honest client beside a hostile one, with and without our limits."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.calibration.report import table
from benchmarks.calibration.sets import ROOT
from benchmarks.serving.attackers import FLOODS, HEADER_BYTES, IDLE, KINDS, SLOW
from benchmarks.serving.beside import INTERVAL
from benchmarks.serving.cases import CASES
from benchmarks.serving.load import Generators, Load
from benchmarks.serving.processes import Running, running
from benchmarks.serving.servers import APPLICATIONS, own_command, own_request
from benchmarks.serving.spread import NOT_THERE, judged, middle, number
from benchmarks.serving.stage import Stage

P99_LIMIT = 0.05  # seconds
_WARMUP_SECONDS = 2.0  # of the hostile client, before anything is measured
# Loopback would count as a proxy, whose connections have no limit.
_FLAGS = ("--trusted-proxies", "192.0.2.1", "--header-seconds", "5", "--body-grace-seconds", "5")


def hostile_report(stage: Stage, *, small: bool) -> str:
    """The table: each kind of hostile client on a new service, with uvicorn's protocol and ours."""
    rounds, seconds = (1, 2.0) if small else (3, 8.0)
    rows, worst = [], {}
    for kind in (None, *KINDS):
        row = ["none" if kind is None else f"{KINDS[kind][0]} × {kind}"]
        for limited in (False, True):
            loads, resident, refused = _measure(stage, kind, rounds, seconds, limited=limited)
            p99 = [1000 * load.p99 for load in loads if load.requests]
            failed = sum(load.failures for load in loads)
            row += [
                middle([1000 * load.p50 for load in loads if load.requests]),
                middle(p99),
                str(failed) if p99 else NOT_THERE,
                number(resident / 1e6),
            ]
            if limited:
                row.append(", ".join(f"{name} {n}" for name, n in refused.items()) or NOT_THERE)
                worst[kind or "none"] = max(p99, default=float("inf"))
        rows.append(row)
    columns = ["hostile client"]
    columns += [f"{what}, uvicorn" for what in ("p50", "p99", "failed", "MB")]
    columns += [f"{what}, ours" for what in ("p50", "p99", "failed", "MB")]
    introduction = (
        f"An honest client sends {CASES[0].name} every {1000 * INTERVAL:.0f} ms; its latency in "
        "milliseconds is counted from when the request was due, and failed are its requests "
        "without an answer of 200. The other client, a process on the same machine, holds "
        f"{IDLE} idle connections, sends 6 bytes of headers or 1 of a body a second on {SLOW}, or "
        f"on {FLOODS} connections headers of {HEADER_BYTES // 1_000_000} MB, requests without "
        "waiting for answers, or predictions with a wrong key. MB is the memory of the service "
        "at the end. *uvicorn*: its own protocol, as before these limits; *ours*: with them, the "
        f"times of headers and bodies at 5 s. {rounds} rounds of {seconds:.0f} s. Refusals are "
        "those of the whole run."
    )
    goal = f"at most {1000 * P99_LIMIT:.0f} ms at p99 beside each, with the limits"
    reached: dict[str, float | None] = {f"{name}, ms": value for name, value in worst.items()}
    return "\n".join(
        [
            introduction,
            "",
            table([*columns, "refusals, ours"], rows),
            "",
            judged(goal, 1000 * P99_LIMIT, reached, at_most=True),
        ]
    )


def _measure(
    stage: Stage, kind: str | None, rounds: int, seconds: float, *, limited: bool
) -> tuple[list[Load], int, dict[str, int]]:
    """Loads of the honest client, memory of the service at the end, and its refusals."""
    request = own_request(CASES[0])
    assert request is not None
    request = request.with_key(stage.key)
    with _service(stage, limited=limited) as process:
        request.send(process.port)
        length = rounds * (seconds + 5) + 60
        with _attacker(kind, process.port, length, stage.key):
            loads = []
            for index in range(rounds):
                warmup = 0.2 if index else _WARMUP_SECONDS
                generators = Generators(
                    [(request, 1, INTERVAL)], process.port, seconds, warmup=warmup
                )
                loads += generators.wait()
            resident = process.resident
        return loads, resident, _refusals(process.port)


@contextmanager
def _service(stage: Stage, *, limited: bool) -> Iterator[Running]:
    def command(port: int) -> list[str]:
        own = own_command(sys.executable, port, stage)
        if not limited:
            own[own.index("trueprob_service")] = f"{APPLICATIONS}.unlimited"
        return [*own, *_FLAGS]

    with running(command, ready="/v2/health/ready", environment={}) as process:
        yield process


@contextmanager
def _attacker(kind: str | None, port: int, seconds: float, key: str) -> Iterator[None]:
    if kind is None:
        yield
        return
    command = [sys.executable, "-m", "benchmarks.serving.attackers", kind, str(port)]
    process = subprocess.Popen(
        [*command, str(seconds), key], cwd=Path(ROOT), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _refusals(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("trueprob_connection_refusals_total{"):
            n = int(float(line.split()[-1]))
            if n:
                found[line.partition('reason="')[2].partition('"')[0]] = n
    return found
