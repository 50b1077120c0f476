"""A real service in its own process, on a real port, for tests that need both."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]


@dataclass
class RunningService:
    """The process, its address and a client of it."""

    process: subprocess.Popen[str]
    url: str
    client: httpx.Client
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def replica_ids(self) -> dict[int, list[int]]:
        """Process ids of each replica, the present one last, as the log has them."""
        ids: dict[int, list[int]] = {}
        lines = re.findall(
            r"replica (\d+) .*Started server process \[(\d+)\]", self.log.read_text()
        )
        for index, process_id in lines:
            ids.setdefault(int(index), []).append(int(process_id))
        return ids

    def kill(self) -> None:
        """As the kernel would when memory runs out: no warning, nothing flushed."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def interrupt(self) -> int:
        """Ctrl-C in the terminal: the whole foreground group gets it."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(30)


@contextmanager
def running_service(
    state_dir: Path,
    models: Path,
    *flags: str,
    headers: dict[str, str] | None = None,
    cwd: Path = ROOT,
    scheme: str = "http",
) -> Iterator[RunningService]:
    """Start the service on a free port, wait until it listens, kill it at the end."""
    command: Sequence[str] = (
        sys.executable, "-m", "trueprob_service", "serve", "--port", "0",
        "--state-dir", str(state_dir), "--model-repository", str(models),
        "--drain-seconds", "0", *flags,
    )  # fmt: skip
    log_path = state_dir.parent / f"{state_dir.name}.log"
    log = log_path.open("a")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRUEPROB_")}
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.match(rf"Trueprob listens on ({scheme}://\S+) ", line)
        assert match, f"the service did not start: {log_path.read_text()}"
        with httpx.Client(base_url=match[1], timeout=60, headers=headers) as client:
            yield RunningService(process, match[1], client, log_path)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
        assert process.stdout is not None
        process.stdout.close()
        log.close()
