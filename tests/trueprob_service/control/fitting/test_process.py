"""The child process that fits: it survives failing jobs and is replaced when it dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from tests.trueprob_service.control.harness import rows
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.calibrators import IdentityCalibrator, dumps_calibrator, loads_calibrator
from trueprob_service.control.fitting.process import FitProcess
from trueprob_service.control.fitting.worker import Job, run


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
