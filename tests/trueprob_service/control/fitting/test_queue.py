"""Progress, cancellation, deadline, and fits that may change predictions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest

from tests.trueprob_service.control.harness import NPZ, Runner, World, npz, overconfident
from tests.trueprob_service.control.test_restart import wait_for
from trueprob_service.control.fitting.process import FitProcess
from trueprob_service.control.fitting.worker import Job, JobResult, run
from trueprob_service.settings import Settings

pytestmark = pytest.mark.slow

FITS = "/v1/models/m/fits"


class Cancellable:
    """A runner whose first job lasts until it is cancelled; later jobs run as usual."""

    def __init__(self) -> None:
        self.progress = 0.4
        self.cancelled: list[Job] = []
        self._first = True
        self._given_up = threading.Event()

    def run(self, job: Job) -> JobResult | None:
        if self._first:
            self._first = False
            self._given_up.wait()
            return None
        return run(job)

    def cancel(self, job: Job) -> None:
        self.cancelled.append(job)
        self._given_up.set()

    def close(self) -> None:
        self._given_up.set()


def post(world: World, query: str = "") -> Any:
    path = f"/v1/models/m/calibration-sets{query}"
    return world.call("POST", path, content=overconfident(), headers=NPZ).json()


def until(world: World, fit: str, wanted: Callable[[Any], bool]) -> Any:
    while not wanted(found := world.get(f"{FITS}/{fit}")):
        time.sleep(0.005)
    return found


def test_a_running_fit_is_watched_and_cancelled_and_the_next_one_begins(
    begin: Callable[..., World],
) -> None:
    runner = Cancellable()
    world = begin(job_runner=lambda: runner, settings={"poll_seconds": 0.02})
    world.declare()
    running, queued = post(world)["fit"], post(world, "?promote=always")["fit"]
    assert until(world, running, lambda fit: fit["progress"] == 0.4)["state"] == "running"
    assert world.get(f"{FITS}/{queued}")["progress"] == 0.0
    answer = world.call("DELETE", f"{FITS}/{running}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert wait_for(world, queued)["promoted"] is True
    assert runner.cancelled
    ended = world.get(f"{FITS}/{running}")
    assert (ended["state"], ended["error"]) == ("cancelled", "cancelled")
    assert world.call("DELETE", f"{FITS}/{running}").status_code == 200
    assert world.call("DELETE", f"{FITS}/{queued}").status_code == 409
    world.clock.now += 60
    fits = world.plane.label_statistics().fits
    assert fits["m", "smart", "cancelled"] == fits["m", "smart", "admitted"] == 1


def test_a_queued_fit_that_is_cancelled_never_starts(begin: Callable[..., World]) -> None:
    runner = Cancellable()
    world = begin(job_runner=lambda: runner, settings={"poll_seconds": 0.02})
    world.declare()
    running, queued = post(world)["fit"], post(world, "?promote=never")["fit"]
    until(world, running, lambda fit: fit["state"] == "running")
    assert world.call("DELETE", f"{FITS}/{queued}").json()["state"] == "cancelled"
    assert world.get(f"{FITS}/{running}")["state"] == "running"
    assert runner.cancelled == []
    assert world.call("DELETE", f"{FITS}/{running}").status_code == 200
    last = post(world)["fit"]
    assert wait_for(world, last)["state"] == "done"
    assert world.get(f"{FITS}/{queued}")["state"] == "cancelled"


@pytest.mark.parametrize("fit", ["0", "999", "x", "²", "9" * 30])
def test_a_fit_that_is_not_there_cannot_be_cancelled(shared_world: World, fit: str) -> None:
    assert shared_world.call("DELETE", f"{FITS}/{fit}").status_code == 404


def test_a_fit_that_takes_too_long_fails(begin: Callable[..., World]) -> None:
    runner = Cancellable()
    limits = {"poll_seconds": 0.02, "fit_deadline_seconds": 0.05}
    world = begin(job_runner=lambda: runner, settings=limits)
    world.declare()
    failed = wait_for(world, post(world)["fit"])
    assert (failed["state"], failed["error"]) == ("failed", "the fit took longer than 0.05 s")


def say_half_and_wait(connection: Connection) -> None:
    while True:
        connection.recv()
        connection.send(0.5)
        time.sleep(600)


@pytest.mark.slow
def test_the_child_reports_progress_and_a_cancelled_job_ends_only_itself() -> None:
    runner = FitProcess(say_half_and_wait)
    job, other = (Job(path, ("0", "1", "2"), "smart", "", b"", 0.0) for path in ("a", "b"))  # type: ignore[arg-type]
    outcomes: list[object] = []
    thread = threading.Thread(target=lambda: outcomes.append(runner.run(job)))
    thread.start()
    while runner.progress != 0.5:
        time.sleep(0.01)
    runner.cancel(other)
    assert thread.is_alive()
    runner.cancel(job)
    thread.join()
    runner.cancel(job)
    assert outcomes == [None]
    runner.close()


def test_progress_rises_to_the_end(tmp_path: Any) -> None:
    from tests.trueprob_service.control.fitting.test_process import job, stored

    told: list[float] = []
    assert run(job(stored(tmp_path)[0]), told.append).error is None
    assert told == sorted(told)
    assert len(told) == 15  # five folds of three divisions
    assert 0 < told[0] < told[-1] <= 0.8 + 1e-12


def lopsided(n: int = 200) -> bytes:
    """Rows of a network that favours one class: only other predictions help."""
    rng = np.random.default_rng(5)
    logits = rng.normal(0.0, 2.0, (n, 3))
    labels = np.argmax(logits + rng.gumbel(size=(n, 3)), axis=1)
    return npz(logits=(logits + np.array([3.0, 0.0, 0.0])).astype(np.float32), labels=labels)


class Recording(Runner):
    """A runner that records jobs, and fits a temperature: `auto` would take seconds."""

    def __init__(self) -> None:
        self.allowed: list[bool] = []

    def run(self, job: Job) -> JobResult | None:
        self.allowed.append(job.allow_prediction_change)
        return run(replace(job, method="temperature"))


def test_predictions_change_only_where_that_is_allowed(begin: Callable[..., World]) -> None:
    recording = Recording()
    world = begin(job_runner=lambda: recording)
    world.declare()
    reports = [
        world.upload(lopsided(), f"?method=auto&promote=never{query}")
        for query in ("", "&allow_prediction_change=true", "&allow_prediction_change=false")
    ]
    assert recording.allowed == [False, True]
    assert reports[2] == reports[0]  # the setting is the default


def test_a_method_that_changes_predictions_needs_both_parameters(sqlite_world: World) -> None:
    path = "/v1/models/m/calibration-sets?method=vector"
    refused = sqlite_world.call("POST", path, content=lopsided(), headers=NPZ)
    assert (refused.status_code, "allow_prediction_change" in refused.text) == (422, True)
    allowed = sqlite_world.upload(lopsided(), "?method=vector&allow_prediction_change=true")
    assert allowed["verdict"]["admitted"] is True


def test_the_setting_is_the_default_of_the_parameter(begin: Callable[..., World]) -> None:
    settings = {"allow_prediction_change": True, "fit_method": "vector"}
    world = begin(settings=settings)
    world.declare()
    assert world.upload(lopsided())["method"] == "vector"
    path = "/v1/models/m/calibration-sets?allow_prediction_change=false"
    assert world.call("POST", path, content=lopsided(), headers=NPZ).status_code == 422
    with pytest.raises(ValueError, match="allow_prediction_change"):
        Settings(fit_method="vector")
