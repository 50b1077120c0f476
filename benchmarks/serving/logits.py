"""Requests of logits per second: each server in turn on the same cores, in rounds."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.calibration.report import table
from benchmarks.serving.cases import CASES, Case
from benchmarks.serving.environments import Environment
from benchmarks.serving.load import Load, Request, closed_loop, generator_name
from benchmarks.serving.processes import Running, server_and_client_cores
from benchmarks.serving.servers import BARE, OURS, Server
from benchmarks.serving.spread import judged, middle, ratio
from benchmarks.serving.stage import Stage

CONNECTIONS = 8
# Against the bare application and against MLServer on the smallest body; every other: ahead.
BARE_SHARE, MLSERVER_TIMES = 0.85, 5.0


@dataclass
class Rates:
    """Requests per second by row and case, one per round, and what could not run."""

    rounds: dict[tuple[str, Case], list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, str] = field(default_factory=dict)  # a server, or "row, case"
    busiest: float = 0.0

    def of(self, row: str, case: Case) -> list[float]:
        return self.rounds.get((row, case), [])


def measure(
    stage: Stage,
    servers: Sequence[Server],
    environments: Mapping[str, Environment],
    *,
    rounds: int,
    seconds: float,
    cases: Sequence[Case] = CASES,
) -> Rates:
    """Run every server in every round; the order rotates by one each time.

    A competitor that does not start, or a case that it answers wrongly, is left out with the
    reason; the service and the bare application must not fail.
    """
    rates = Rates()
    for server in servers:
        reason = server.environment and environments[server.environment].missing
        if reason:
            rates.failed[server.name] = reason
    for number in range(rounds):
        turn = number % len(servers)
        for server in [*servers[turn:], *servers[:turn]]:
            if server.name in rates.failed:
                continue
            python = (
                str(environments[server.environment].python)
                if server.environment
                else sys.executable
            )
            try:
                with server.running(python, stage, cores=server_and_client_cores()[0]) as process:
                    _measure_one(rates, server, process, stage, seconds, cases)
            except (RuntimeError, OSError) as error:
                if server in (OURS, BARE):
                    raise
                rates.failed[server.name] = _reason(error)
    return rates


def _measure_one(
    rates: Rates,
    server: Server,
    process: Running,
    stage: Stage,
    seconds: float,
    cases: Sequence[Case],
) -> None:
    for row, asked in server.rows(stage).items():
        for case in cases:
            request, what = asked(case), f"{row}, {case.name}"
            if request is None or what in rates.failed:
                continue
            try:
                start = time.perf_counter()
                check(server, case, stage, request.send(process.port))
                load = _load(process.port, request, seconds, time.perf_counter() - start)
            except RuntimeError as error:
                if server in (OURS, BARE):
                    raise
                rates.failed[what] = _reason(error)
                continue
            rates.rounds[row, case].append(load.rate)
            rates.busiest = max(rates.busiest, load.busy)
            print(f"{what}: {load.rate:.1f}/s, generator {load.busy:.2f}", file=sys.stderr)


def _load(port: int, request: Request, seconds: float, one: float) -> Load:
    """Run a closed loop; `one` is the seconds of the first answer."""
    connections = CONNECTIONS
    if 2 * CONNECTIONS * one > seconds:
        # Two keep a slow server as busy as eight, and four answers each are a rate.
        connections, seconds = 2, max(seconds, math.ceil(4 * one))
    return closed_loop(
        port,
        request,
        connections=connections,
        seconds=seconds,
        cores=server_and_client_cores()[1],
        slow=connections < CONNECTIONS,
    )


def _reason(error: Exception) -> str:
    print(error, file=sys.stderr)
    return str(error).splitlines()[0][:200]


def check(server: Server, case: Case, stage: Stage, body: bytes) -> None:
    """Compare an answer with the library's.

    Raises
    ------
    RuntimeError
        Another shape or other probabilities.
    """
    expected = stage.calibrators[case.k].predict_proba(case.logits)
    got = server.probabilities(body, case)
    if got.shape != expected.shape or not np.allclose(got, expected, rtol=1e-6, atol=1e-8):
        raise RuntimeError(f"{server.name} answers {case.name} otherwise than the library")


def logits_report(
    stage: Stage,
    servers: Sequence[Server],
    environments: Mapping[str, Environment],
    *,
    small: bool,
) -> str:
    """The tables."""
    rates = measure(
        stage, servers, environments, rounds=2 if small else 5, seconds=1.0 if small else 2.0
    )
    server_cores, client_cores = server_and_client_cores()
    lines = [
        (
            f"Server on {len(server_cores)} core(s), {generator_name()} on {len(client_cores)} "
            f"with {CONNECTIONS} connections (2 where one answer takes long); at its busiest it "
            f"used {100 * rates.busiest:.0f} % of its core."
        ),
        "",
        "### Requests a second",
        "",
        rate_table(rates, servers),
        "",
        f"### {OURS.name.strip('*')} over each, ratios of the same round",
        "",
        ratio_table(rates, servers),
        "",
        "### Targets",
        "",
        *targets(rates, servers),
        "",
        "### Versions",
        "",
        *(
            f"- {name}: {environment.missing or environment.versions()}"
            for name, environment in environments.items()
        ),
    ]
    return "\n".join(lines)


def _rows(servers: Sequence[Server]) -> list[str]:
    return [row for server in servers for row in (server.name, *server.more)]


def rate_table(rates: Rates, servers: Sequence[Server]) -> str:
    """Median and extremes over the rounds."""
    header = ["server", *(case.name for case in CASES)]
    rows = [[row, *(middle(rates.of(row, case)) for case in CASES)] for row in _rows(servers)]
    failures = [f"- {what}: {reason}" for what, reason in rates.failed.items()]
    return "\n".join([table(header, rows), *([""] if failures else []), *failures])


def ratio_table(rates: Rates, servers: Sequence[Server]) -> str:
    """Ratio of the service to every other row."""
    rows = [
        [row, *(ratio(rates.of(OURS.name, case), rates.of(row, case)) for case in CASES)]
        for row in _rows(servers)
        if row != OURS.name
    ]
    return table(["over", *(case.name for case in CASES)], rows)


def targets(rates: Rates, servers: Sequence[Server]) -> list[str]:
    """The targets, and whether the medians reach them."""

    def shares(row: str, case: Case) -> float | None:
        ours, theirs = rates.of(OURS.name, case), rates.of(row, case)
        pairs = [a / b for a, b in zip(ours, theirs, strict=False)]
        return statistics.median(pairs) if pairs else None

    bare = {case.name: shares(BARE.name, case) for case in CASES}
    lines = [judged(f"at least {BARE_SHARE} of bare ASGI in each", BARE_SHARE, bare)]
    others = {
        f"{server.name} {case.name}": shares(server.name, case)
        for server in servers
        if server not in (OURS, BARE)
        for case in CASES
    }
    lines.append(judged("ahead of every other server in each", 1.0, others))
    mlserver = {CASES[0].name: shares("MLServer", CASES[0])}
    lines.append(judged(f"at least {MLSERVER_TIMES} times MLServer", MLSERVER_TIMES, mlserver))
    return lines
