"""Runs fit jobs in one spawned child process, which is replaced when it dies.

Before Python 3.14 a pool of `concurrent.futures` cannot cancel a running job, and at shutdown it
waits for the job. A process with a pipe has neither problem.

The child says several times a minute that it is alive. One that has fallen silent (it was stopped,
or is stuck in a system call) is replaced, and its job is run again.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Final, Protocol

from trueprob_service.child_process import Child
from trueprob_service.control.fitting.worker import BEAT_SECONDS, Job, JobResult, serve

__all__ = ["FitProcess", "JobRunner"]

_LOG: Final = logging.getLogger(__name__)
# A start imports SciPy, and one long operation may keep the interpreter from saying anything.
_SILENCE_SECONDS: Final = 12 * BEAT_SECONDS


class JobRunner(Protocol):
    """Runs fit jobs one after another."""

    @property
    def progress(self) -> float:
        """Share of the running job that is done, 0 to 1."""

    def run(self, job: Job) -> JobResult | None:
        """Run a job and return its result; None when it was cancelled or the runner is closing."""

    def cancel(self, job: Job) -> None:
        """Cancel this job if it is running."""

    def close(self) -> None:
        """Cancel the running job and stop."""


class FitProcess:
    """A `JobRunner` with a child process, which starts with the first job."""

    def __init__(
        self,
        target: Callable[[Connection], None] = serve,
        *,
        silence_seconds: float = _SILENCE_SECONDS,
        end_seconds: float = 5.0,  # between SIGTERM and SIGKILL
    ) -> None:
        self._child = Child(target, name="trueprob-fit", end_seconds=end_seconds)
        self._silence_seconds = silence_seconds
        self._heard_at = 0.0
        self._changing = threading.Lock()
        self._job: Job | None = None
        self.progress = 0.0

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return self._child.pid

    def run(self, job: Job) -> JobResult | None:
        """Run a job in the child and wait for its result. Call it from one thread only.

        Returns None when the child was ended by `cancel`, by `close`, by a SIGTERM to the whole
        service or because it had fallen silent. The job is then unfinished and may be run again.
        """
        connection = self._started(job)
        if connection is None:
            return None
        done = threading.Event()
        threading.Thread(target=self._watch, args=(job, done), daemon=True).start()
        try:
            connection.send(job)
            while True:
                message: JobResult | float = connection.recv()
                self._heard_at = time.monotonic()
                if isinstance(message, JobResult):
                    return message
                self.progress = message
        except (EOFError, OSError):
            return self._failed_result()
        finally:
            done.set()
            with self._changing:
                self._job = None

    def _watch(self, job: Job, done: threading.Event) -> None:
        """End a child that has fallen silent."""
        late = False
        while not done.wait(self._silence_seconds / 4):
            was_late, late = late, time.monotonic() - self._heard_at > self._silence_seconds
            # Twice in a row: after a pause of the whole machine the child can still report.
            if late and was_late:
                _LOG.warning(
                    "the fitting process %s has said nothing for %g s and is replaced",
                    self.pid,
                    self._silence_seconds,
                )
                self.cancel(job)
                return

    def cancel(self, job: Job) -> None:
        """End the child if it runs this job; the next job gets a new child."""
        with self._changing:
            if self._job is job:
                self._child.terminate()

    def close(self) -> None:
        """End the child, even in the middle of a job."""
        self._child.close()

    def _started(self, job: Job) -> Connection | None:
        with self._changing:  # so `cancel` sees a job only together with its child
            connection = self._child.connection()
            if connection is not None:
                self._job, self.progress, self._heard_at = job, 0.0, time.monotonic()
            return connection

    def _failed_result(self) -> JobResult | None:
        exit_code = self._child.join()
        unfinished = self._child.closed or self._child.terminated
        if unfinished or exit_code in (None, -signal.SIGTERM):
            return None
        return JobResult(
            error=f"the fitting process ended with exit code {exit_code}; "
            "it may have run out of memory"
        )
