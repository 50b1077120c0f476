"""``trueprob-service --replicas N``: the parent process that starts, restarts and stops replicas.

If a replica ends before all were ready for the first time, the service stops: the cause is then
most likely a setting, and a restart would not help. Later a dead replica is restarted after a delay
that doubles each time. If it does not stay up, the service stops. A replica whose event loop is
stuck sends no heartbeat: it is killed, and restarted like one that died. One that somebody ended by
SIGTERM is started again at once, and that does not count.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from trueprob_service.child_process import start_without_ctrl_c
from trueprob_service.replicas.listening import CannotListen, TargetsFile, bind, targets
from trueprob_service.replicas.replica import READY, STOP, run_replica
from trueprob_service.server import GRACE_SECONDS, quickstart, server_url
from trueprob_service.settings import Settings

__all__ = ["CrashLoop", "EndSignals", "RestartPolicy", "Supervisor", "serve_replicas"]

_log = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# A stop command may send SIGTERM to the process and to its group: two signals, one request.
_SAME_REQUEST_SECONDS: Final = 1.0
_LEEWAY_SECONDS: Final = 2.5  # for closing the database
_EXPLAINED: Final = 2  # exit code of a replica that has said in one sentence why it cannot start


def serve_replicas(settings: Settings) -> int:
    """Serve with ``settings.replicas`` processes until SIGINT or SIGTERM; returns the exit code.

    0 after a clean stop; 1 when a replica did not start, did not stay up or had to be killed; 2
    when an address cannot be bound or the file for Prometheus cannot be written.
    """
    try:
        listening = bind(settings)
    except CannotListen as error:
        return _failed(str(error), code=2)
    file = TargetsFile(
        settings.resolved_metrics_targets_file, public=settings.metrics_targets_file is not None
    )
    url = server_url(settings, listening.port)
    supervisor = Supervisor(
        settings.replicas,
        target=run_replica,
        arguments=lambda i: (settings, i, listening.service, listening.metrics[i]),
        on_ready=lambda: print(quickstart(url, Path("examples")), flush=True),
        on_stop=listening.close,
        # Without a key file it ends the process, as by default.
        signal_hangup=settings.api_keys_file is not None,
        policy=RestartPolicy(
            stop_seconds=settings.drain_seconds + GRACE_SECONDS + _LEEWAY_SECONDS,
            hang_seconds=settings.replica_hang_seconds,
        ),
    )
    try:
        try:
            file.write(targets(settings, listening.metrics_ports))
        except OSError as error:
            return _failed(f"metrics_targets_file cannot be written: {error.strerror}", code=2)
        clean = supervisor.run()
    except CrashLoop as error:
        return _failed(f"{error}; see the log above", code=2 if error.explained else 1)
    finally:
        listening.close()
        file.remove()
    print("Stopped; what was acknowledged is kept.", file=sys.stderr)
    return 0 if clean else 1


def _failed(sentence: str, *, code: int) -> int:
    print(f"trueprob-service: error: {sentence}", file=sys.stderr)
    return code


class EndSignals:
    """Context in which SIGINT and SIGTERM are noted, and make `fileno` readable.

    With ``hangup`` SIGHUP too. Only the main thread can use it.
    """

    def __init__(self, *, hangup: bool = False) -> None:
        self.received = False
        self.hung_up = False  # SIGHUP came; whoever reads it sets it back
        self._signals = (*_SIGNALS, signal.SIGHUP) if hangup else _SIGNALS
        # Ctrl-C again at any time, or SIGTERM again a second or more after the first signal.
        self.impatient = False
        self._first = 0.0

    def __enter__(self) -> EndSignals:
        self._woken, self._wakes = socket.socketpair()
        for end in (self._woken, self._wakes):
            end.setblocking(False)
        self._handlers = {number: signal.signal(number, self._note) for number in self._signals}
        self._descriptor = signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._descriptor)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._woken.close()
        self._wakes.close()

    def fileno(self) -> int:
        """File descriptor that a signal makes readable, for `multiprocessing.connection.wait`."""
        return self._woken.fileno()

    def drain(self) -> None:
        """Make `fileno` unreadable until the next signal."""
        with contextlib.suppress(BlockingIOError):
            while self._woken.recv(64):
                pass

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self.hung_up = True
            return
        now = time.monotonic()
        if not self.received:
            self.received, self._first = True, now
        elif number == signal.SIGINT or now - self._first >= _SAME_REQUEST_SECONDS:
            self.impatient = True


@dataclass(frozen=True)
class RestartPolicy:
    """When a dead replica is restarted, and how long a replica may take to stop."""

    restart_seconds: float = 0.5  # delay of the first restart; doubles with each one in a row
    longest_restart_seconds: float = 30.0  # longest delay
    stable_seconds: float = 60.0  # a replica that was ready for this long has its count reset
    restarts: int = 8  # most in a row (about 90 s by default); then the service stops
    # From SIGTERM to SIGKILL. A replica needs less, Docker Compose and Kubernetes grant 30.
    stop_seconds: float = 25.0
    hang_seconds: float = 15.0  # without a heartbeat; then a replica is killed


class CrashLoop(RuntimeError):
    """A replica does not stay up. The message is one line for the terminal."""

    def __init__(self, message: str, *, explained: bool = False) -> None:
        super().__init__(message)
        self.explained = explained  # whether the replica has said why it cannot start


@dataclass
class _Replica:
    index: int
    process: BaseProcess | None = None
    lifeline: Connection | None = None
    ready_at: float | None = None
    heard_at: float = 0.0  # when it last sent a heartbeat
    ends_in_a_row: int = 0
    start_at: float = 0.0


class Supervisor:
    """Keeps n replicas running until SIGINT or SIGTERM."""

    def __init__(
        self,
        n: int,
        *,
        target: Callable[..., None],  # what a replica runs; its last argument is the lifeline
        arguments: Callable[[int], tuple[Any, ...]],  # index -> the arguments before the lifeline
        on_ready: Callable[[], None],  # called once, when every replica is ready for the first time
        on_stop: Callable[[], None],  # closes the sockets, so that clients do not wait in vain
        policy: RestartPolicy | None = None,
        signal_hangup: bool = False,  # pass SIGHUP on to the replicas
    ) -> None:
        self._spawn = multiprocessing.get_context("spawn")
        self._replicas = [_Replica(index) for index in range(n)]
        self._target = target
        self._arguments = arguments
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._policy = policy or RestartPolicy()
        self._all_were_ready = False
        self._signals = EndSignals(hangup=signal_hangup)

    def run(self) -> bool:
        """Run until a signal; returns whether every replica stopped in time.

        Raises `CrashLoop` when a replica does not stay up, after the others have been stopped.
        """
        with self._signals:
            try:
                while not self._signals.received:
                    self._start_due()
                    self._wait()
                    self._check_replicas()
                    self._pass_hangup_on()
            finally:
                clean = self._stop()
        return clean

    def _start_due(self) -> None:
        for replica in self._replicas:
            if replica.process is None and replica.start_at <= time.monotonic():
                self._start(replica)

    def _start(self, replica: _Replica) -> None:
        lifeline, child_end = self._spawn.Pipe()
        process = self._spawn.Process(
            target=self._target,
            args=(*self._arguments(replica.index), child_end),
            name=f"trueprob-replica-{replica.index}",
        )
        try:
            start_without_ctrl_c(process)
        except OSError as error:  # temporarily out of memory or processes
            lifeline.close()
            self._count_end(replica, f"could not be started ({error.strerror})", was_ready_at=None)
        else:
            replica.process, replica.lifeline, replica.ready_at = process, lifeline, None
        finally:
            child_end.close()

    def _wait(self) -> None:
        """Wait for a signal, the end of a replica, a message, or the time of a restart."""
        now = time.monotonic()
        due = [each.start_at - now for each in self._replicas if each.process is None]
        hang = self._policy.hang_seconds
        due += [each.heard_at + hang - now for each in self._replicas if each.ready_at is not None]
        watched: list[Any] = [self._signals]
        for each in self._replicas:
            if each.process is not None:
                watched.append(each.process.sentinel)
                if each.lifeline is not None:
                    watched.append(each.lifeline)
        wait(watched, timeout=max(0.0, min(due)) if due else None)
        self._signals.drain()

    def _check_replicas(self) -> None:
        for replica in self._replicas:
            if replica.process is None:
                continue
            messages = _messages(replica)
            if messages:
                replica.heard_at = time.monotonic()
            if replica.ready_at is None and READY in messages:
                replica.ready_at = time.monotonic()
                if self._all_were_ready:
                    _log.info("replica %d is ready again", replica.index)
            self._kill_if_stuck(replica, replica.process)
            if replica.process.exitcode is not None:
                self._ended(replica, replica.process)
        if not self._all_were_ready and all(each.ready_at is not None for each in self._replicas):
            self._all_were_ready = True
            self._on_ready()

    def _pass_hangup_on(self) -> None:
        if not self._signals.hung_up:
            return
        self._signals.hung_up = False
        for replica in self._replicas:
            # One that is starting has no handler yet, and reads the file anyway.
            pid = None if replica.process is None else replica.process.pid
            if pid is not None and replica.ready_at is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGHUP)

    def _kill_if_stuck(self, replica: _Replica, process: BaseProcess) -> None:
        silent = time.monotonic() - replica.heard_at
        if replica.ready_at is None or silent < self._policy.hang_seconds:
            return
        _log.error("replica %d has been stuck for %.0f s and is killed", replica.index, silent)
        process.kill()  # reaches a stopped process too
        process.join()

    def _ended(self, replica: _Replica, process: BaseProcess) -> None:
        how, ready_at = _how_it_ended(process), replica.ready_at
        code = process.exitcode
        _close(replica)
        if self._signals.received:
            return
        if code in (0, -signal.SIGTERM) and ready_at is not None and self._all_were_ready:
            _log.info("replica %d was ended and is started again", replica.index)
            replica.start_at = time.monotonic()
            return
        self._count_end(replica, how, was_ready_at=ready_at, explained=code == _EXPLAINED)

    def _count_end(
        self,
        replica: _Replica,
        how: str,
        *,
        was_ready_at: float | None,
        explained: bool = False,
    ) -> None:
        """Schedule the restart, or raise `CrashLoop`."""
        if not self._all_were_ready:
            raise CrashLoop(
                f"replica {replica.index} {how} before the service was ready", explained=explained
            )
        now = time.monotonic()
        if was_ready_at is not None and now - was_ready_at >= self._policy.stable_seconds:
            replica.ends_in_a_row = 0
        replica.ends_in_a_row += 1
        if replica.ends_in_a_row > self._policy.restarts:
            raise CrashLoop(
                f"replica {replica.index} {how}; that was {replica.ends_in_a_row} times in a row"
            )
        doubled = self._policy.restart_seconds * 2 ** (replica.ends_in_a_row - 1)
        delay = min(doubled, self._policy.longest_restart_seconds)
        replica.start_at = now + delay
        _log.error("replica %d %s; restarted in %.1f s", replica.index, how, delay)

    def _stop(self) -> bool:
        """Send SIGTERM to all replicas, then SIGKILL at the deadline or a second signal."""
        self._on_stop()
        running = {each.index: each.process for each in self._replicas if each.process is not None}
        for each in self._replicas:
            with contextlib.suppress(OSError):  # it has just ended
                if each.lifeline is not None:
                    each.lifeline.send(STOP)
        for process in running.values():
            process.terminate()
        deadline = time.monotonic() + self._policy.stop_seconds
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
                _log.error("replica %d did not stop in time and was killed", index)
                process.kill()
            process.join()
        for each in self._replicas:
            _close(each)
        return clean


def _messages(replica: _Replica) -> list[object]:
    """What a replica has sent since the last call."""
    received: list[object] = []
    try:
        while replica.lifeline is not None and replica.lifeline.poll():
            received.append(replica.lifeline.recv())
    except (EOFError, OSError):
        # The replica is ending; its sentinel tells when. A closed pipe would stay readable.
        if replica.lifeline is not None:
            replica.lifeline.close()
        replica.lifeline = None
    return received


def _close(replica: _Replica) -> None:
    if replica.lifeline is not None:
        replica.lifeline.close()
    if replica.process is not None:
        replica.process.join()
        replica.process.close()
    replica.process = replica.lifeline = replica.ready_at = None


def _how_it_ended(process: BaseProcess) -> str:
    code = process.exitcode or 0
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
