"""Servers as processes: started on given cores and stopped with all their children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.calibration.sets import ROOT

# glibc's adaptive threshold moves rates of large bodies by a factor of three from run to run: the
# image sets these for the service, and here every server has them.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
# So that the service comes from this checkout, whatever is installed.
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "service")])


@dataclass(frozen=True)
class Running:
    """A server that is running and answers."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def resident(self) -> int:
        """Bytes of the process itself."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS:"))
        return 1024 * int(line.split()[1])


def available_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def server_and_client_cores() -> tuple[list[int], list[int]]:
    """The last core for the generator, the others for the server; one core is shared."""
    cores = available_cores()
    return (cores[:-1] or cores), cores[-1:]


def pinned(cores: Collection[int]) -> Callable[[], None] | None:
    """For `preexec_fn`: the child and its children stay on these cores; empty: anywhere."""
    return (lambda: os.sched_setaffinity(0, cores)) if cores else None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def running(
    command: Callable[[int], Sequence[str]],
    *,
    ready: str,
    environment: Mapping[str, str],
    folder: Path = ROOT,
    cores: Collection[int] = (),
    limit: float = 120,
) -> Iterator[Running]:
    """Start a server and stop it at the end.

    Parameters
    ----------
    command : callable
        Its command line for a port.
    ready : str
        A path that answers 2xx when the server is ready.
    environment : mapping
        Variables besides ours.
    folder : Path
        Its working directory.
    cores : collection of int
        Where it may run; empty: anywhere.
    limit : float
        Seconds until it must be ready.

    Raises
    ------
    RuntimeError
        It ended or was not ready in time; the message has the end of what it said.
    """
    port = free_port()
    ours = {k: v for k, v in os.environ.items() if not k.startswith("TRUEPROB_")}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command(port), cwd=folder, stdout=log, stderr=log, start_new_session=True,
            env={**ours, "PYTHONPATH": PYTHONPATH, **MALLOC, **environment},
            preexec_fn=pinned(cores),
        )  # fmt: skip
        try:
            if not _wait(process, f"http://127.0.0.1:{port}{ready}", limit):
                log.seek(0)
                said = log.read().decode("utf-8", "replace")[-3000:]
                raise RuntimeError(f"{command(port)[0]} is not ready after {limit} s:\n{said}")
            yield Running(port, process)
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], url: str, limit: float) -> bool:
    end = time.monotonic() + limit
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status < 300:
                    return True
        except (urllib.error.URLError, OSError):
            pass
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM, then kill the session of the process."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
