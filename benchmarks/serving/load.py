"""Load from another process: wrk if it is installed, else our own generator."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.calibration.sets import ROOT
from benchmarks.serving.processes import pinned

POST_LUA = Path(__file__).with_name("post.lua")


@dataclass(frozen=True)
class Request:
    """One HTTP request, always the same."""

    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def with_key(self, key: str) -> Request:
        """The same with a key, which only ours asks for."""
        return replace(self, headers={**self.headers, "Authorization": f"Bearer {key}"})

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"

    @property
    def raw(self) -> bytes:
        body = self.body or b""
        headers = {"Host": "127.0.0.1", **self.headers}
        if self.body is not None:
            headers["Content-Length"] = str(len(body))
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def send(self, port: int) -> bytes:
        """The body of the answer to one of it."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{self.path}", self.body, self.headers, method=self.method
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()[:500].decode("utf-8", "replace")
            raise RuntimeError(f"{self.method} {self.path}: {error.code} {text}") from None


@dataclass(frozen=True)
class Load:
    """Result of a load; times in seconds."""

    requests: int
    seconds: float
    failures: int
    p50: float
    p99: float
    busy: float  # the generator's CPU time over its seconds: near 1 it is the bottleneck

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def wrk() -> str | None:
    """Path of wrk, or None if it is not installed."""
    return shutil.which("wrk")


def generator_name() -> str:
    """The generator of closed loops."""
    program = wrk()
    if program is None:
        return "our own generator (uvloop, httptools)"
    said = subprocess.run([program, "-v"], check=False, capture_output=True, text=True).stdout
    return re.sub(r"^wrk (\S+).*", r"wrk \1", said.splitlines()[0])


def closed_loop(
    port: int,
    request: Request,
    *,
    connections: int,
    seconds: float,
    cores: Collection[int] = (),
    slow: bool = False,
) -> Load:
    """Each connection sends its next request when the last was answered.

    Parameters
    ----------
    slow : bool
        Our own generator, which waits for the answers that are out at the end and counts them:
        wrk drops them, and of few requests a second these are many.

    Raises
    ------
    RuntimeError
        A request failed: a rate of errors says nothing.
    """
    program = wrk()
    # wrk's times are whole seconds.
    if program is not None and not slow and seconds >= 1 and seconds == int(seconds):
        load = _by_wrk(program, port, request, connections, int(seconds), cores)
    else:
        jobs: list[tuple[Request, int, float | None]] = [(request, connections, None)]
        warmup = seconds / 4 if slow else 0.2
        (load,) = Generators(jobs, port, seconds, warmup=warmup, cores=cores).wait()
    if load.failures or not load.requests:
        raise RuntimeError(f"{load.failures} of {load.requests} requests to {request.path} failed")
    return load


def _by_wrk(
    program: str,
    port: int,
    request: Request,
    connections: int,
    seconds: int,
    cores: Collection[int],
) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        script, body = Path(folder, "request.lua"), Path(folder, "body")
        headers = ", ".join(
            f"[{json.dumps(k)}] = {json.dumps(v)}" for k, v in request.headers.items()
        )
        file = ""
        if request.body is not None:
            body.write_bytes(request.body)
            file = f", body = {json.dumps(str(body))}"
        script.write_text(f'return {{method = "{request.method}", headers = {{{headers}}}{file}}}')
        command = [
            program, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s",
            "-s", str(POST_LUA), f"http://127.0.0.1:{port}{request.path}",
        ]  # fmt: skip
        before = _cpu_of_children()
        answer = subprocess.run(
            command, check=True, capture_output=True, text=True, preexec_fn=pinned(cores),
            env={**os.environ, "SERVING_BENCH_REQUEST": str(script)},
        )  # fmt: skip
        busy = (_cpu_of_children() - before) / seconds
    (line,) = (line for line in answer.stdout.splitlines() if line.startswith("JSON "))
    return Load(**json.loads(line.removeprefix("JSON ")), busy=busy)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Generators:
    """Start our generators together, one process per ``(request, connections, interval)``.

    Parameters
    ----------
    jobs : list of (Request, int, float or None)
        The interval is what a connection waits between two requests; None: a closed loop.
    port : int
    seconds : float
        After the warm-up.
    warmup : float
    cores : collection of int
        Where they may run; empty: anywhere.
    """

    def __init__(
        self,
        jobs: list[tuple[Request, int, float | None]],
        port: int,
        seconds: float,
        *,
        warmup: float = 0.2,
        cores: Collection[int] = (),
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._seconds = seconds
        self._before = _cpu_of_children()
        self._processes = []
        for index, (request, connections, interval) in enumerate(jobs):
            raw = Path(self._folder.name, str(index))
            raw.write_bytes(request.raw)
            job = {"request": str(raw), "connections": connections, "interval": interval,
                   "port": port, "seconds": seconds, "warmup": warmup}  # fmt: skip
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.serving.generator"], cwd=ROOT, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=pinned(cores),
            )  # fmt: skip
            assert process.stdin is not None
            process.stdin.write(json.dumps(job))
            process.stdin.close()
            self._processes.append(process)

    def wait(self) -> list[Load]:
        """The outcomes, in the jobs' order."""
        said = []
        for process in self._processes:
            with process:
                assert process.stdout is not None
                said.append(process.stdout.read())
            if process.returncode != 0:
                raise RuntimeError("a load generator failed")
        self._folder.cleanup()
        # Of all together, their imports included: an upper limit.
        busy = (_cpu_of_children() - self._before) / self._seconds / len(said)
        return [Load(**json.loads(line), busy=busy) for line in said]
