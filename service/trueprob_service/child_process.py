"""Child processes that outlive a Ctrl-C in the terminal until their parent ends them."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

__all__ = ["Child", "start_without_ctrl_c"]


class Child:
    """A spawned process behind a pipe: started when first needed, and again after it ended."""

    def __init__(self, target: Callable[[Connection], None], *, name: str) -> None:
        self._target = target
        self._name = name
        self._spawn = multiprocessing.get_context("spawn")
        self._changing = threading.Lock()
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """None while there is no process."""
        return self._process.pid if self._process is not None else None

    @property
    def closed(self) -> bool:
        """Whether no other process will be started."""
        return self._closed

    def connection(self) -> Connection | None:
        """The parent's end of the pipe to a process that is there; None once closed."""
        with self._changing:
            if self._closed:
                return None
            if self._connection is None:
                ours, theirs = self._spawn.Pipe()
                self._process = self._spawn.Process(
                    target=self._target, args=(theirs,), name=self._name, daemon=True
                )
                start_without_ctrl_c(self._process)
                theirs.close()
                self._connection = ours
            return self._connection

    def let_go(self) -> int | None:
        """Forget a process whose pipe broke; its exit code, None when there was none."""
        with self._changing:
            process, connection = self._process, self._connection
            self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return None
        process.join()
        return process.exitcode

    def terminate(self) -> None:
        """End the process that is there."""
        with self._changing:
            if self._process is not None:
                self._process.terminate()

    def close(self) -> None:
        """End the process, in the middle of its work if need be, for good."""
        with self._changing:
            self._closed = True
            process = self._process
        if process is not None:
            process.terminate()
            process.join()


def start_without_ctrl_c(process: BaseProcess) -> None:
    """Start a child that Ctrl-C does not reach: its parent decides when it ends.

    The mask is inherited, so it holds from the child's first instruction on, before it could
    ignore the signal by itself.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        process.start()
        return
    # The first child brings this process along, and with it SIGINT would be let through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
