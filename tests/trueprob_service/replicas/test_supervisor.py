"""The parent alone, with children that only pretend to serve."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from trueprob_service.replicas.replica import READY
from trueprob_service.replicas.supervisor import CrashLoop, EndSignals, RestartPolicy, Supervisor

pytestmark = pytest.mark.slow

QUICK = RestartPolicy(restart_seconds=0.01, restarts=2, stop_seconds=20.0)


def fails_at_once(folder: Path, index: int, lifeline: Connection) -> None:
    os._exit(4)


def does_not_stay_up(folder: Path, index: int, lifeline: Connection) -> None:
    (folder / f"{index}-{time.monotonic_ns()}").touch()
    lifeline.send(READY)
    if index == 1:
        while len({path.name[0] for path in folder.iterdir()}) < 2:
            time.sleep(0.01)
        time.sleep(0.2)  # the parent has heard both
        os._exit(3)
    time.sleep(600)


def ends_when_asked(folder: Path, index: int, lifeline: Connection) -> None:
    lifeline.send(READY)
    time.sleep(600)


def ignores_sigterm(folder: Path, index: int, lifeline: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    lifeline.send(READY)
    time.sleep(600)


def end_now() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def supervisor(
    folder: Path,
    target: Callable[..., None],
    policy: RestartPolicy = QUICK,
    on_ready: Callable[[], None] = end_now,
) -> Supervisor:
    """Of two children; by default told to end when both are ready."""
    return Supervisor(
        2,
        target=target,
        arguments=lambda index: (folder, index),
        on_ready=on_ready,
        on_stop=lambda: None,
        policy=policy,
    )


def test_a_service_that_cannot_start_ends_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(CrashLoop, match=r"replica \d ended with exit code 4 before the service"):
        supervisor(tmp_path, fails_at_once).run()


def test_a_replica_that_does_not_stay_up_is_given_up(tmp_path: Path) -> None:
    parent = supervisor(tmp_path, does_not_stay_up, on_ready=lambda: None)
    with pytest.raises(CrashLoop, match=r"replica 1 ended with exit code 3; that was 3 times"):
        parent.run()
    started = [path.name[0] for path in tmp_path.iterdir()]
    assert (started.count("0"), started.count("1")) == (1, 3)


def test_sigterm_ends_every_replica_and_restores_the_handlers(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert supervisor(tmp_path, ends_when_asked).run()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_replica_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    policy = RestartPolicy(stop_seconds=0.1)
    assert not supervisor(tmp_path, ignores_sigterm, policy).run()


@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGINT, 0.3), (signal.SIGTERM, 1.2)])
def test_a_second_signal_waits_no_longer(tmp_path: Path, number: int, seconds: float) -> None:
    def twice() -> None:
        for delay in (0.0, seconds):
            threading.Timer(delay, os.kill, (os.getpid(), number)).start()

    parent = supervisor(tmp_path, ignores_sigterm, RestartPolicy(stop_seconds=300), on_ready=twice)
    assert not parent.run()


def test_sigterm_to_the_process_and_to_its_group_is_one_request() -> None:
    with EndSignals() as signals:
        end_now()
        end_now()
        assert (signals.received, signals.impatient) == (True, False)
