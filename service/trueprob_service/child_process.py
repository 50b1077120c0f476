"""Child processes that ignore Ctrl-C in the terminal; their parent ends them.

Whoever does not end after SIGTERM gets SIGKILL: a process that is stopped (SIGSTOP, a debugger)
receives the first only when it goes on.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final

__all__ = ["Child", "start_without_ctrl_c"]

_END_SECONDS: Final = 5.0  # from SIGTERM to SIGKILL


class Child:
    """A spawned process with a pipe, started when first needed and restarted after it ended."""

    def __init__(
        self,
        target: Callable[[Connection], None],  # runs in the child, with its end of the pipe
        *,
        name: str,
        end_seconds: float = _END_SECONDS,  # how long the process may take to end
    ) -> None:
        self._target = target
        self._name = name
        self._end_seconds = end_seconds
        self._spawn = multiprocessing.get_context("spawn")
        self._changing = threading.Lock()
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._closed = False
        self._terminated = False

    @property
    def pid(self) -> int | None:
        """Process id; None while there is no process."""
        return self._process.pid if self._process is not None else None

    @property
    def closed(self) -> bool:
        """Whether `close` was called; then no process is started any more."""
        return self._closed

    @property
    def terminated(self) -> bool:
        """Whether `terminate` was called since a process was started."""
        return self._terminated

    def connection(self) -> Connection | None:
        """Start the process if there is none; the parent's end of the pipe, None once closed."""
        with self._changing:
            if self._closed:
                return None
            if self._connection is None:
                parent_end, child_end = self._spawn.Pipe()
                process = self._spawn.Process(
                    target=self._target, args=(child_end,), name=self._name, daemon=True
                )
                start_without_ctrl_c(process)
                self._process = process
                self._terminated = False
                child_end.close()
                self._connection = parent_end
            return self._connection

    def join(self) -> int | None:
        """Wait for a process whose pipe broke; returns its exit code, None without a process."""
        with self._changing:
            process, connection = self._process, self._connection
            self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return None
        if not wait([process.sentinel], self._end_seconds):
            process.kill()  # its pipe is gone, and it lives on
        process.join()
        return process.exitcode

    def terminate(self) -> None:
        """End the process, if there is one, without waiting. `connection` starts the next."""
        with self._changing:
            process = self._process
            if process is not None:
                self._terminated = True
                threading.Thread(target=self._end, args=(process,), daemon=True).start()

    def close(self) -> None:
        """End the process at once, even in the middle of its work. No other is started."""
        with self._changing:
            self._closed = True
            process = self._process
        if process is not None:
            self._end(process)
            process.join()

    def _end(self, process: BaseProcess) -> None:
        process.terminate()
        if not wait([process.sentinel], self._end_seconds):
            process.kill()


def start_without_ctrl_c(process: BaseProcess) -> None:
    """Start a child that Ctrl-C does not reach, so that its parent decides when it ends.

    The child inherits a signal mask, which blocks SIGINT from its first instruction on.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        process.start()
        return
    # Starting the resource tracker unblocks SIGINT, so it is started before the signal is blocked.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
