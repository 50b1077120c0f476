"""Faults: how each begins and ends, and what must hold of requests while it lasts."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.torture.request_log import NO_ANSWER, Request

if TYPE_CHECKING:
    from benchmarks.torture.own_service import OwnService

__all__ = ["CommandFailed", "Fault", "Promise", "command_faults", "own_faults", "small_disk"]

DISK_MEGABYTES = 64
FILE_LIMIT_BYTES = 4096  # where no disk may be mounted


class Promise(Enum):
    """What must hold of the requests during a fault and until it has healed."""

    COMES_BACK = "requests may get no answer or 503, and the service is ready again"
    PREDICTIONS_GO_ON = "every prediction is answered; what must be stored may be 503"
    NOTHING_FAILS = "every request is answered, none with 5xx"

    def broken(self, requests: Sequence[Request]) -> Iterable[str]:
        """A sentence for each way in which requests do not keep the promise."""
        failed = [each for each in requests if each.outcome[0] == "5" and each.outcome != "503"]
        if failed:
            first = failed[0]
            yield f"{len(failed)} requests were answered with {first.outcome} ({first.kind})"
        refused = [
            each
            for each in requests
            if each.kind in ("predict", "label")
            and each.outcome[0] == "4"
            and each.outcome != "429"
        ]
        if refused:
            yield f"{len(refused)} right requests were answered with {refused[0].outcome}"
        predictions = [each for each in requests if each.kind == "predict"]
        if self is Promise.PREDICTIONS_GO_ON:
            unanswered = [each for each in predictions if each.outcome[0] != "2"]
            if not predictions or unanswered:
                said = f", the first with {unanswered[0].outcome}" if unanswered else ""
                yield f"{len(unanswered)} of {len(predictions)} predictions failed{said}"
        if self is Promise.NOTHING_FAILS:
            lost = [each for each in requests if each.outcome in (NO_ANSWER, "503")]
            if lost:
                first = lost[0]
                yield (
                    f"{len(lost)} of {len(requests)} requests failed, the first: "
                    f"{first.kind}, {first.cause or first.outcome}"
                )


@dataclass(frozen=True)
class Fault:
    """One fault."""

    name: str  # kill, stop, fill, hang, restart, or the user's word
    what: str  # in a few words, for the table
    inflict: Callable[[], None]
    heal: Callable[[], None] | None = None  # None: it heals by itself
    hold_seconds: float = 0.0  # until it is healed
    promise: Promise = Promise.COMES_BACK
    degraded: bool = False  # whether readiness must say so
    unseen_seconds: float = 10.0  # after that, one that heals by itself has begun, seen or not


def own_faults(service: OwnService, hold_seconds: float) -> list[Fault]:
    """All faults of a service of our own."""
    go_on, degraded = Promise.PREDICTIONS_GO_ON, {"hold_seconds": hold_seconds, "degraded": True}
    faults = [
        Fault("kill", "a replica, SIGKILL", lambda: service.signal_replica(signal.SIGKILL)),
        Fault("kill", "all processes, SIGKILL", service.kill, service.start, 0.5),
        Fault("stop", "a replica, SIGSTOP", lambda: service.signal_replica(signal.SIGSTOP)),
        Fault(
            "restart", "a replica, SIGTERM", lambda: service.signal_replica(signal.SIGTERM),
            promise=Promise.NOTHING_FAILS,
        ),
        Fault("restart", "the service, SIGTERM", service.terminate, service.start),
    ]  # fmt: skip
    filling = _FullDisk(service)
    faults.append(
        Fault("fill", filling.what, filling.fill, filling.free, promise=go_on, **degraded)
    )
    server = service.postgres
    if server is None:
        lock = _HeldLock(service.sqlite_file)
        what = "the database, a held lock"
        faults.append(Fault("hang", what, lock.take, lock.release, promise=go_on, **degraded))
    else:
        faults += [
            Fault(
                "hang", "the database, SIGSTOP",
                lambda: server.signal(signal.SIGSTOP), lambda: server.signal(signal.SIGCONT),
                promise=go_on, **degraded,
            ),
            Fault(
                "kill", "the database, SIGKILL",
                lambda: server.signal(signal.SIGKILL), server.start, promise=go_on, **degraded,
            ),
        ]  # fmt: skip
    return faults


class CommandFailed(Exception):
    """A command of the user ended with another exit code than 0."""


def command_faults(
    faults: Mapping[str, str], heals: Mapping[str, str], hold_seconds: float
) -> list[Fault]:
    """Faults that are commands of the user; one with a ``heal`` lasts until then."""
    return [
        Fault(
            name,
            command,
            lambda command=command: _run(command),  # type: ignore[misc]
            (lambda heal=heals[name]: _run(heal)) if name in heals else None,  # type: ignore[misc]
            hold_seconds if name in heals else 0.0,
            unseen_seconds=hold_seconds,
        )
        for name, command in faults.items()
    ]


def _run(command: str) -> None:
    done = subprocess.run(command, shell=True, check=False)
    if done.returncode:
        raise CommandFailed(f"exit code {done.returncode}: {command}")


def small_disk(folder: Path) -> bool:
    """Mount a small file system on a folder, if that is permitted."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={DISK_MEGABYTES}m,mode=0700"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


class _FullDisk:
    """The disk of the state without a free byte, or a limit on the size of files."""

    def __init__(self, service: OwnService) -> None:
        self._service = service
        self._ballast = service.state_dir / "ballast"
        self._limited: list[int] = []
        self.what = (
            f"the disk of the state, {DISK_MEGABYTES} MB"
            if service.on_small_disk
            else f"files limited to {FILE_LIMIT_BYTES} bytes (no disk may be mounted)"
        )

    def fill(self) -> None:
        if not self._service.on_small_disk:
            self._limited = self._service.replica_ids()
            self._limit(FILE_LIMIT_BYTES)
            return
        with self._ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)
        self._limit(resource.RLIM_INFINITY)
        self._limited = []

    def _limit(self, size: int) -> None:
        for process_id in self._limited:
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(process_id, resource.RLIMIT_FSIZE)
                resource.prlimit(process_id, resource.RLIMIT_FSIZE, (size, hard))


class _HeldLock:
    """SQLite's lock, held by another process that writes nothing."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._connection: sqlite3.Connection | None = None

    def take(self) -> None:
        self._connection = sqlite3.connect(self._file, isolation_level=None, timeout=30)
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        assert self._connection is not None
        self._connection.execute("ROLLBACK")
        self._connection.close()
        self._connection = None
