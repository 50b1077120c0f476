"""The service in a process that the benchmark kills, stops or asks to end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["ServiceProcess"]


class ServiceProcess:
    """A running service; its clock may be wrong.

    Parameters
    ----------
    state_dir : Path
        The log, ``service.log``, is beside it.
    *flags : str
        Settings.
    clock_shift : float
        Seconds.
    port : int
        0 takes a free one.
    models : Path, optional
        The model repository; default: none.
    """

    def __init__(
        self,
        state_dir: Path,
        *flags: str,
        clock_shift: float = 0.0,
        port: int = 0,
        models: Path | None = None,
    ) -> None:
        folder = state_dir.parent
        self._state_dir = state_dir
        self._log_path = folder / "service.log"
        self._log = self._log_path.open("a")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TRUEPROB_")}
        shifted = ["benchmarks.crash.shifted_service", str(clock_shift)]
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", *(shifted if clock_shift else ["trueprob_service", "serve"]),
                "--port", str(port),
                "--state-dir", str(state_dir),
                "--model-repository", str(models or folder / "no-models"),
                *flags,
            ],
            stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        match = re.match(r"Trueprob listens on (http://\S+) ", self._process.stdout.readline())
        if match is None:
            self.kill()
            raise RuntimeError(f"the service did not start; see {self._log_path}")
        self.url = match[1]

    @property
    def process_id(self) -> int:
        """Of the process itself, the parent of its replicas."""
        return self._process.pid

    def replica_ids(self) -> list[int]:
        """Process ids of the replicas, each the newest one that the log names."""
        started = re.findall(
            r"replica (\d+) .*Started server process \[(\d+)\]", self._log_path.read_text()
        )
        return [int(process_id) for _, process_id in sorted(dict(started).items())]

    def metrics_urls(self) -> list[str]:
        """Where each replica has its metrics and its own readiness."""
        groups = json.loads((self._state_dir / "metrics-targets.json").read_text())
        return [f"http://{target}" for group in groups for target in group["targets"]]

    def terminate(self, seconds: float) -> int:
        """Ask the service to end and wait for it; the exit code."""
        self._process.terminate()
        try:
            code = self._process.wait(seconds)
        finally:
            self.kill()
        return code

    def kill(self) -> None:
        """No warning, nothing flushed; the fitting child goes too."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
