"""A load generator for its own process: keep-alive connections over raw sockets.

It reads a job as JSON on standard input and prints its outcome as one line of JSON. Each
connection sends its next request when the answer to the last has come (`interval` null), or at
fixed times. A latency is then counted from the time at which the request was due: a server that
stalls is not asked less often.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httptools


@dataclass
class Outcome:
    """Results of all connections since the end of the warm-up."""

    counts_from: float
    latencies: list[float] = field(default_factory=list)
    failures: int = 0


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(
        self, raw: bytes, outcome: Outcome, interval: float | None, first: float, end: float
    ) -> None:
        self._raw, self._outcome, self._interval = raw, outcome, interval
        self._due, self._end = first, end
        self._loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        if self._interval is None:
            self._send()
        else:
            self._loop.call_later(max(0.0, self._due - time.perf_counter()), self._send)

    def _send(self) -> None:
        if self._interval is None:
            self._due = time.perf_counter()
        self._transport.write(self._raw)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        outcome = self._outcome
        if now >= outcome.counts_from:
            outcome.latencies.append(now - self._due)
            if self._parser.get_status_code() != 200:
                outcome.failures += 1
        # Asked here: after the callback the parser has forgotten.
        if now >= self._end or not self._parser.should_keep_alive():
            self._transport.close()
            return
        # The parser is inside its callback: the next one, or the request, comes after it.
        self._loop.call_soon(self._next, now)

    def _next(self, now: float) -> None:
        self._parser = httptools.HttpResponseParser(self)
        if self._interval is None:
            self._send()
        else:
            self._due += self._interval
            self._loop.call_later(max(0.0, self._due - now), self._send)

    def connection_lost(self, _: Exception | None) -> None:
        if time.perf_counter() < self._end:
            self._outcome.failures += 1  # it should have stayed open
        if not self.finished.done():
            self.finished.set_result(None)


async def run(job: dict[str, Any]) -> Outcome:
    """Run all connections until the time is over, and wait for open answers."""
    raw = Path(job["request"]).read_bytes()
    start = time.perf_counter()
    outcome = Outcome(counts_from=start + job["warmup"])
    end = outcome.counts_from + job["seconds"]
    loop = asyncio.get_running_loop()
    connections = []
    for index in range(job["connections"]):
        offset = 0.0 if job["interval"] is None else index * job["interval"] / job["connections"]

        def make(first: float = start + offset) -> Connection:
            return Connection(raw, outcome, job["interval"], first, end)

        _, connection = await loop.create_connection(make, "127.0.0.1", job["port"])
        connections.append(connection)
    finished = [connection.finished for connection in connections]
    _, late = await asyncio.wait(finished, timeout=job["warmup"] + job["seconds"] + 60)
    outcome.failures += len(late)
    return outcome


def quantile(values: list[float], level: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return values[max(0, -int(-level * len(values) // 1) - 1)] if values else float("nan")


def main() -> None:
    """Run one job."""
    job = json.load(sys.stdin)
    try:
        import uvloop

        outcome = uvloop.run(run(job))
    except ImportError:
        outcome = asyncio.run(run(job))
    latencies = sorted(outcome.latencies)
    print(
        json.dumps(
            {
                "requests": len(latencies),
                "seconds": time.perf_counter() - outcome.counts_from,
                "failures": outcome.failures,
                "p50": quantile(latencies, 0.5),
                "p99": quantile(latencies, 0.99),
            }
        )
    )


if __name__ == "__main__":
    main()
