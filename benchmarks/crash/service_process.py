"""The service in a process that the benchmark kills."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

__all__ = ["ServiceProcess"]


class ServiceProcess:
    """A running service on a free port; its clock may be wrong."""

    def __init__(self, state_dir: Path, *flags: str, clock_shift: float = 0.0) -> None:
        folder = state_dir.parent
        self._log = (folder / "service.log").open("a")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TRUEPROB_")}
        shifted = ["benchmarks.crash.shifted_service", str(clock_shift)]
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", *(shifted if clock_shift else ["trueprob_service", "serve"]),
                "--port", "0",
                "--state-dir", str(state_dir), "--model-repository", str(folder / "no-models"),
                *flags,
            ],
            stdout=subprocess.PIPE, stderr=self._log, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        match = re.match(r"Trueprob listens on (http://\S+) ", self._process.stdout.readline())
        if match is None:
            self.kill()
            raise RuntimeError(f"the service did not start; see {folder / 'service.log'}")
        self.url = match[1]

    def kill(self) -> None:
        """No warning, nothing flushed; the fitting child goes too."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()
