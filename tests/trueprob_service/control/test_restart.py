"""Nothing that was acknowledged is lost, whenever the service ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trueprob_service.control.harness import (
    NPZ,
    START,
    Clock,
    Runner,
    World,
    npz,
    overconfident,
    rows,
)
from trueprob_service.control.fitting.process import FitProcess
from trueprob_service.control.fitting.worker import Job, JobResult, run


class Stuck(Runner):
    """A runner that is in the middle of a fit until the service ends."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._closed = threading.Event()

    def run(self, job: Job) -> JobResult | None:
        self.entered.set()
        self._closed.wait()
        return None

    def close(self) -> None:
        self._closed.set()


class Waits(Runner):
    """A runner that fits when it is told to."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def run(self, job: Job) -> JobResult | None:
        self.go.wait()
        return run(job)

    def close(self) -> None:
        self.go.set()


CHANGE = "?allow_prediction_change=true"


def post(world: World, query: str = "", **headers: str) -> Any:
    return world.call(
        "POST",
        f"/v1/models/m/calibration-sets{query}",
        content=overconfident(),
        headers={**NPZ, **headers},
    )


def wait_for(world: World, fit: str) -> Any:
    while True:
        state = world.get(f"/v1/models/m/fits/{fit}")
        if state["state"] in ("done", "failed", "cancelled"):
            return state


def test_the_live_pair_is_the_same_after_a_restart(begin: Callable[..., World]) -> None:
    world = begin()
    world.declare()
    report = world.upload(overconfident())
    logits, _ = rows(50, 20)
    before = world.deployments.current("m")
    document = world.get(f"/v1/models/m/calibrators/{report['calibrator']}")
    world.plane.close()
    restarted = begin()
    after = restarted.deployments.current("m")
    assert (after.calibrator_id, after.revision) == (before.calibrator_id, 2)
    assert (after.calibrator.predict_proba(logits) == before.calibrator.predict_proba(logits)).all()
    assert restarted.get(f"/v1/models/m/calibrators/{report['calibrator']}") == document


def test_a_fit_that_was_interrupted_is_done_after_the_restart(
    begin: Callable[..., World],
) -> None:
    stuck = Stuck()
    world = begin(job_runner=lambda: stuck)
    world.declare()
    running, queued = (post(world, query).json()["fit"] for query in ("", CHANGE))
    stuck.entered.wait()
    assert world.get(f"/v1/models/m/fits/{running}")["state"] == "running"
    assert world.get(f"/v1/models/m/fits/{queued}")["state"] == "queued"
    world.clock.now += 60
    assert world.plane.label_statistics().fit_queue == {("m", "smart"): 2}
    world.plane.close()
    restarted = begin()
    first, second = wait_for(restarted, running), wait_for(restarted, queued)
    assert (first["state"], first["promoted"], first["revision"]) == ("done", True, 2)
    # The second came after the first had gone live, fitted on the same rows.
    assert (second["state"], second["promoted"]) == ("done", False)
    assert restarted.deployments.current("m").revision == 2


@pytest.mark.slow
def test_a_fit_that_ends_the_service_every_time_is_given_up(begin: Callable[..., World]) -> None:
    fit = ""
    for attempt in range(3):
        stuck = Stuck()
        world = begin(job_runner=lambda stuck=stuck: stuck)
        if attempt == 0:
            world.declare()
            fit = post(world).json()["fit"]
        stuck.entered.wait()
        world.plane.close()
    failed = wait_for(begin(), fit)
    assert failed["state"] == "failed"
    assert "3 times" in failed["error"]


def test_a_wait_that_is_over_gets_the_address(begin: Callable[..., World]) -> None:
    waits = Waits()
    world = begin(job_runner=lambda: waits)
    world.declare()
    answer = post(world, prefer="wait=0")
    assert (answer.status_code, answer.headers["preference-applied"]) == (202, "wait=0")
    assert answer.json()["state"] in ("queued", "running")
    waits.go.set()
    assert wait_for(world, answer.json()["fit"])["promoted"] is True


def test_a_rollback_during_a_fit_is_not_overruled_by_it(begin: Callable[..., World]) -> None:
    waits = Waits()
    waits.go.set()
    world = begin(job_runner=lambda: waits)
    world.declare()
    first = world.upload(overconfident())
    waits.go.clear()
    logits, labels = rows(99, 600, sharpness=6.0)
    second = world.call(
        "POST",
        "/v1/models/m/calibration-sets",
        content=npz(logits=logits, labels=labels),
        headers=NPZ,
    ).json()
    while world.get(f"/v1/models/m/fits/{second['fit']}")["state"] == "queued":
        pass
    assert world.rollback(first["revision"]).status_code == 200
    waits.go.set()
    report = wait_for(world, second["fit"])
    assert (report["verdict"]["admitted"], report["promoted"]) == (True, False)
    assert "another calibrator" in report["verdict"]["reasons"][-1]
    assert world.get("/v1/models/m")["revision"] == 3


def test_a_set_whose_file_is_gone_fails_with_a_sentence(begin: Callable[..., World]) -> None:
    stuck = Stuck()
    world = begin(job_runner=lambda: stuck)
    world.declare()
    fit = post(world).json()["fit"]
    world.plane.close()
    for file in (world.settings.state_dir / "calibration-sets").rglob("*.npz"):
        file.unlink()
    # For an hour it is left to a process that may have the file.
    assert begin().get(f"/v1/models/m/fits/{fit}")["state"] == "queued"
    failed = wait_for(begin(clock=Clock(START + 3601)), fit)
    assert failed["state"] == "failed"
    assert failed["error"]
    assert "calibrator" not in failed


@pytest.mark.parametrize("leftover", ["0.part"])
def test_parts_of_uploads_are_swept_once_they_are_old(
    begin: Callable[..., World], leftover: str
) -> None:
    world = begin()
    uploads = world.settings.state_dir / "uploads"
    world.plane.close()
    fresh, old = uploads / leftover, uploads / "1.part"
    fresh.touch()
    old.touch()
    set_age(old, 7200)
    begin()
    assert [path.name for path in uploads.iterdir()] == [leftover]


def set_age(path: Path, seconds: float) -> None:
    import os
    import time

    os.utime(path, (time.time() - seconds,) * 2)


@pytest.mark.slow
def test_an_upload_is_fitted_in_a_process_of_its_own(begin: Callable[..., World]) -> None:
    world = begin(job_runner=FitProcess)
    world.declare()
    assert world.upload(overconfident())["promoted"] is True
