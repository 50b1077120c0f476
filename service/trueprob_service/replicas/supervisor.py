"""The parent of the replicas: starts them, replaces those that die, ends them all.

A replica that ends before all were ready for the first time ends the service: what stops it is
then most likely a setting, which a restart does not change. Later a dead one is replaced after a
delay that doubles each time, and given up, with the service, when it does not stay up.
"""

from __future__ import annotations

import logging
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final

from trueprob_service.child_process import start_without_ctrl_c
from trueprob_service.replicas.end_signals import EndSignals
from trueprob_service.replicas.replica import READY

__all__ = ["CrashLoop", "Patience", "Supervisor"]

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long what is waited for."""

    restart_seconds: float = 0.5  # before the first restart; doubled for each further one in a row
    longest_restart_seconds: float = 30.0  # to which it is doubled
    settled_seconds: float = 60.0  # a replica that was ready for so long has not ended "in a row"
    # in a row; at the next end, by default after a minute and a half, the service is given up
    restarts: int = 8
    # from SIGTERM to SIGKILL. More than a replica needs, less than supervisors of supervisors
    # grant (Docker Compose and Kubernetes: 30)
    stop_seconds: float = 25.0


class CrashLoop(RuntimeError):
    """A replica does not stay up; the message is one line for the terminal."""


@dataclass
class _Replica:
    index: int
    process: BaseProcess | None = None
    lifeline: Connection | None = None
    ready_at: float | None = None
    ends_in_a_row: int = 0
    start_at: float = 0.0


class Supervisor:
    """Keeps n replicas running until SIGINT or SIGTERM."""

    def __init__(
        self,
        n: int,
        *,
        target: Callable[..., None],
        arguments: Callable[[int], tuple[Any, ...]],
        on_ready: Callable[[], None],  # called once, when every replica is ready for the first time
        on_stop: Callable[[], None],
        patience: Patience | None = None,
    ) -> None:
        self._spawn = multiprocessing.get_context("spawn")
        self._replicas = [_Replica(index) for index in range(n)]
        self._target = target
        self._arguments = arguments
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._patience = patience or Patience()
        self._all_were_ready = False
        self._signals = EndSignals()

    def run(self) -> bool:
        """Work until told to end.

        Returns: whether every replica ended within its time. Raises `CrashLoop`: a replica does
        not stay up; the others have been ended.
        """
        with self._signals:
            try:
                while not self._signals.received:
                    self._start_those_due()
                    self._wait()
                    self._look()
            finally:
                clean = self._stop()
        return clean

    def _start_those_due(self) -> None:
        for replica in self._replicas:
            if replica.process is None and replica.start_at <= time.monotonic():
                self._start(replica)

    def _start(self, replica: _Replica) -> None:
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(
            target=self._target,
            args=(*self._arguments(replica.index), theirs),
            name=f"trueprob-replica-{replica.index}",
        )
        try:
            start_without_ctrl_c(process)
        except OSError as error:  # no memory or no process to be had now
            ours.close()
            self._count_end(replica, f"could not be started ({error.strerror})", up=None)
        else:
            replica.process, replica.lifeline, replica.ready_at = process, ours, None
        finally:
            theirs.close()

    def _wait(self) -> None:
        """Until a signal, a death, a message, or the next restart."""
        now = time.monotonic()
        due = [each.start_at - now for each in self._replicas if each.process is None]
        watched: list[Any] = [self._signals]
        for each in self._replicas:
            if each.process is not None:
                watched.append(each.process.sentinel)
                if each.lifeline is not None and each.ready_at is None:
                    watched.append(each.lifeline)
        wait(watched, timeout=max(0.0, min(due)) if due else None)
        self._signals.drain()

    def _look(self) -> None:
        for replica in self._replicas:
            if replica.process is None:
                continue
            if replica.ready_at is None and _says_ready(replica):
                replica.ready_at = time.monotonic()
                if self._all_were_ready:
                    _LOG.info("replica %d is ready again", replica.index)
            if replica.process.exitcode is not None:
                self._ended(replica, replica.process)
        if not self._all_were_ready and all(each.ready_at is not None for each in self._replicas):
            self._all_were_ready = True
            self._on_ready()

    def _ended(self, replica: _Replica, process: BaseProcess) -> None:
        how, up = _how(process), replica.ready_at
        _close(replica)
        if not self._signals.received:
            self._count_end(replica, how, up=up)

    def _count_end(self, replica: _Replica, how: str, *, up: float | None) -> None:
        """Settle when it is started again; `up` is since when it was ready, if it was."""
        if not self._all_were_ready:
            raise CrashLoop(f"replica {replica.index} {how} before the service was ready")
        now = time.monotonic()
        if up is not None and now - up >= self._patience.settled_seconds:
            replica.ends_in_a_row = 0
        replica.ends_in_a_row += 1
        if replica.ends_in_a_row > self._patience.restarts:
            raise CrashLoop(
                f"replica {replica.index} {how}; that was {replica.ends_in_a_row} times in a row"
            )
        doubled = self._patience.restart_seconds * 2 ** (replica.ends_in_a_row - 1)
        delay = min(doubled, self._patience.longest_restart_seconds)
        replica.start_at = now + delay
        _LOG.error("replica %d %s; restarted in %.1f s", replica.index, how, delay)

    def _stop(self) -> bool:
        """End every replica: asked first, killed at the deadline or at a second signal."""
        self._on_stop()
        running = {each.index: each.process for each in self._replicas if each.process is not None}
        for process in running.values():
            process.terminate()
        deadline = time.monotonic() + self._patience.stop_seconds
        while waiting := [each for each in running.values() if each.exitcode is None]:
            left = deadline - time.monotonic()
            if left <= 0 or self._signals.impatient:
                break
            watched: list[Any] = [self._signals, *(each.sentinel for each in waiting)]
            wait(watched, timeout=left)
            self._signals.drain()
        clean = True
        for index, process in running.items():
            if process.exitcode is None:
                clean = False
                _LOG.error("replica %d did not end in time and is killed", index)
                process.kill()
            process.join()
        for each in self._replicas:
            _close(each)
        return clean


def _says_ready(replica: _Replica) -> bool:
    if replica.lifeline is None:
        return False
    try:
        return replica.lifeline.poll() and replica.lifeline.recv() == READY
    except (EOFError, OSError):
        # It is ending; its sentinel tells when. A closed pipe would be readable for ever.
        replica.lifeline.close()
        replica.lifeline = None
        return False


def _close(replica: _Replica) -> None:
    if replica.lifeline is not None:
        replica.lifeline.close()
    if replica.process is not None:
        replica.process.join()
        replica.process.close()
    replica.process = replica.lifeline = replica.ready_at = None


def _how(process: BaseProcess) -> str:
    code = process.exitcode or 0
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
