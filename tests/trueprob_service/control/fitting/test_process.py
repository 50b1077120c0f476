"""The child process that fits: it survives failing jobs and is replaced when it dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.trueprob_service.control.harness import rows
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.calibrators import IdentityCalibrator, dumps_calibrator, loads_calibrator
from trueprob_service.control.fitting import worker
from trueprob_service.control.fitting.process import FitProcess
from trueprob_service.control.fitting.worker import Job, JobResult, run


def job(path: Path, method: str = "temperature") -> Job:
    return Job(
        path=path,
        class_names=("0", "1", "2"),
        method=method,
        incumbent=dumps_calibrator(IdentityCalibrator(3)).decode(),
        seen_row_digests=b"",
        created_at=1_800_000_000.0,
    )


def stored(folder: Path) -> tuple[Path, CalibrationSet]:
    logits, labels = rows(60, 300, sharpness=2.0)
    held_out = CalibrationSet.from_arrays({"logits": logits, "labels": labels})
    held_out.save(folder / "set.npz")
    return folder / "set.npz", held_out


def die(connection: Connection) -> None:
    connection.recv()
    os._exit(7)


def never_answer(connection: Connection) -> None:
    connection.recv()
    time.sleep(600)


def test_a_job_gives_the_calibrator_the_verdict_and_where_it_comes_from(tmp_path: Path) -> None:
    path, held_out = stored(tmp_path)
    fitted = run(job(path))
    assert fitted.error is None
    assert fitted.admitted
    calibrator = loads_calibrator(fitted.document)
    assert (calibrator.id, calibrator.kind) == (fitted.calibrator, "temperature")
    assert held_out.digest in fitted.document
    assert '"2027-01-15T08:00:00' in fitted.document
    assert fitted.scores is not None
    assert set(fitted.scores) == {"incumbent", "candidate"}


def test_rows_that_the_incumbent_has_seen_do_not_count(tmp_path: Path) -> None:
    path, held_out = stored(tmp_path)
    seen = held_out.row_digests.tobytes()
    fitted = run(Job(**{**vars(job(path)), "seen_row_digests": seen}))
    assert not fitted.admitted
    assert fitted.error is None


def test_the_calibrator_bears_the_names_of_the_version(tmp_path: Path) -> None:
    path, _ = stored(tmp_path)
    named = {**vars(job(path)), "class_names": ("cat", "dog", "bird")}
    fitted = loads_calibrator(run(Job(**named)).document)
    assert fitted.class_names == ("cat", "dog", "bird")


def test_a_failure_is_a_result_with_an_error(tmp_path: Path) -> None:
    path, _ = stored(tmp_path)
    assert run(job(tmp_path / "none.npz")).error
    assert run(job(path, "magic")).error


@pytest.mark.slow
def test_a_child_that_dies_is_reported_and_replaced() -> None:
    runner = FitProcess(die)
    for _ in range(2):
        outcome = runner.run(job(Path("x")))
        assert outcome is not None
        assert outcome.error is not None
        assert "exit code 7" in outcome.error
    runner.close()


def test_closing_cancels_the_running_job() -> None:
    runner = FitProcess(never_answer)
    outcomes: list[object] = []
    thread = threading.Thread(target=lambda: outcomes.append(runner.run(job(Path("x")))))
    thread.start()
    while runner.pid is None:
        time.sleep(0.01)
    runner.close()
    thread.join()
    assert outcomes == [None]
    assert runner.run(job(Path("x"))) is None


def ignore_sigterm(connection: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.recv()
    connection.send(0.5)
    time.sleep(600)


def hang_without_a_pipe(connection: Connection) -> None:
    connection.recv()
    connection.close()
    time.sleep(600)


def stop_at_first(connection: Connection) -> None:
    """Stops itself in the first job of its folder, and answers the next one."""
    wanted: Job = connection.recv()
    if not wanted.path.exists():
        wanted.path.touch()
        os.kill(os.getpid(), signal.SIGSTOP)
    connection.send(JobResult(seconds=1.0))


def in_thread(runner: FitProcess, wanted: Job) -> tuple[threading.Thread, list[JobResult | None]]:
    outcomes: list[JobResult | None] = []
    thread = threading.Thread(target=lambda: outcomes.append(runner.run(wanted)))
    thread.start()
    return thread, outcomes


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("closing", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_child_that_does_not_end_is_killed(closing: bool, stopped: bool) -> None:
    runner, wanted = FitProcess(ignore_sigterm, end_seconds=0.2), job(Path("x"))
    thread, outcomes = in_thread(runner, wanted)
    while runner.progress != 0.5:
        time.sleep(0.01)
    pid = runner.pid
    assert pid is not None
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    if closing:
        runner.close()
    else:
        runner.cancel(wanted)
    thread.join(20)
    assert outcomes == [None]
    assert not is_running(pid)
    runner.close()


@pytest.mark.slow
def test_a_child_that_closes_its_pipe_and_lives_on_is_killed() -> None:
    runner = FitProcess(hang_without_a_pipe, end_seconds=0.2)
    outcome = runner.run(job(Path("x")))
    assert outcome is not None
    assert outcome.error is not None
    assert "ended with exit code -9" in outcome.error
    runner.close()


@pytest.mark.slow
def test_a_stopped_child_is_noticed_and_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Longer than a child takes to start on a busy machine.
    runner = FitProcess(stop_at_first, silence_seconds=6.0, end_seconds=0.2)
    wanted = job(tmp_path / "stopped-once")
    assert runner.run(wanted) is None
    assert "has said nothing for 6 s and is replaced" in caplog.text
    outcome = runner.run(wanted)
    assert outcome is not None
    assert outcome.seconds == 1.0
    runner.close()


def test_a_long_job_says_that_it_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "BEAT_SECONDS", 0.02)
    path, _ = stored(tmp_path)

    def slow(_job: Job, progress: Callable[[float], None]) -> JobResult:
        progress(0.25)
        time.sleep(0.3)
        return JobResult()

    monkeypatch.setattr(worker, "run", slow)
    mine, theirs = Pipe()
    thread = threading.Thread(target=worker.serve, args=(theirs,))
    thread.start()
    mine.send(job(path))
    messages = []
    while not isinstance(message := mine.recv(), JobResult):
        messages.append(message)
    assert set(messages) == {0.25}
    assert len(messages) > 3
    mine.close()
    thread.join()


@pytest.mark.slow
def test_ctrl_c_does_not_reach_the_child(tmp_path: Path) -> None:
    path, _ = stored(tmp_path)
    runner = FitProcess()
    assert runner.run(job(path)) is not None
    assert runner.pid is not None
    os.kill(runner.pid, signal.SIGINT)
    outcome = runner.run(job(path))
    assert outcome is not None
    assert outcome.error is None
    runner.close()
