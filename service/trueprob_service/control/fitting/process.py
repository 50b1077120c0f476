"""One spawned process that fits, replaced when it dies.

A `concurrent.futures` pool cannot be told to give up a running job before Python 3.14 and waits
for it when the service ends; a process and a pipe can.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Protocol

from trueprob_service.child_process import Child
from trueprob_service.control.fitting.worker import Fitted, Job, serve

__all__ = ["FitProcess", "FitRunner"]


class FitRunner(Protocol):
    """Whatever runs jobs one after another."""

    progress: float  # which share of the running job is done, 0 to 1

    def run(self, job: Job) -> Fitted | None:
        """What came of a job; None when the runner was told to give it up, or to end."""

    def cancel(self, job: Job) -> None:
        """Give up this job, if it is the one that is running."""

    def close(self) -> None:
        """Give up the job that is running."""


class FitProcess:
    """Runs jobs in a child process that is started when first needed."""

    def __init__(self, target: Callable[[Connection], None] = serve) -> None:
        self._child = Child(target, name="trueprob-fit")
        self._changing = threading.Lock()
        self._job: Job | None = None
        self.progress = 0.0

    @property
    def pid(self) -> int | None:
        """Of the child; None while there is none."""
        return self._child.pid

    def run(self, job: Job) -> Fitted | None:
        """Wait for a job's outcome. Called by one thread.

        Returns: none when the child was told to end, by `cancel`, `close` or a SIGTERM that
        reached the whole service: the job was not finished and may be run again.
        """
        connection = self._started(job)
        if connection is None:
            return None
        try:
            connection.send(job)
            while True:
                answer: Fitted | float = connection.recv()
                if isinstance(answer, Fitted):
                    return answer
                self.progress = answer
        except (EOFError, OSError):
            return self._died()
        finally:
            with self._changing:
                self._job = None

    def cancel(self, job: Job) -> None:
        """End the child if it runs this job; the next job gets another child."""
        with self._changing:
            if self._job is job:
                self._child.terminate()

    def close(self) -> None:
        """End the child, in the middle of a job if need be."""
        self._child.close()

    def _started(self, job: Job) -> Connection | None:
        with self._changing:  # who cancels finds the job only when there is a child to end
            connection = self._child.connection()
            if connection is not None:
                self._job, self.progress = job, 0.0
            return connection

    def _died(self) -> Fitted | None:
        exit_code = self._child.let_go()
        if self._child.closed or exit_code in (None, -signal.SIGTERM):
            return None
        return Fitted(
            error=f"the fitting process ended with exit code {exit_code}; "
            "it may have run out of memory"
        )
