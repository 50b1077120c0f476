"""A repeated request gets the same fit or is judged again; nothing is fitted twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.trueprob_service.control.fitting.test_queue import Cancellable, post, until
from tests.trueprob_service.control.harness import Runner, World, npz, overconfident, rows
from trueprob_service.control.fitting.worker import Job, JobResult, run

pytestmark = pytest.mark.slow

FITS = "/v1/models/m/fits"


class Watched(Runner):
    """A runner that records its jobs, and fails while the test says so."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.fails = False

    def run(self, job: Job) -> JobResult | None:
        self.jobs.append(job)
        return JobResult(error="told to fail") if self.fails else run(job)


@pytest.fixture
def runner() -> Watched:
    return Watched()


@pytest.fixture
def watched(begin: Callable[..., World], runner: Watched) -> World:
    world = begin(job_runner=lambda: runner)
    world.declare()
    return world


def sharper() -> bytes:
    logits, labels = rows(11, 600, sharpness=6.0)
    return npz(logits=logits, labels=labels)


def test_the_fit_is_the_same_while_its_calibrator_is_live(watched: World, runner: Watched) -> None:
    first = watched.upload(overconfident(), "?name=may")
    assert first["promoted"]
    assert watched.upload(overconfident()) == first
    by_name = {"calibration_set": "may", "force": True}
    answer = watched.call("POST", FITS, json=by_name, headers={"prefer": "wait=60"})
    assert answer.json() == first
    assert len(runner.jobs) == 1


def test_the_fit_is_the_same_while_nothing_was_promoted_since(
    watched: World, runner: Watched
) -> None:
    for query in ("?promote=never", "?promote=shadow"):
        first = watched.upload(overconfident(), query)
        assert watched.upload(overconfident(), query) == first
    assert len(runner.jobs) == 2


@pytest.mark.parametrize("query", ["promote=always", "method=temperature", "version=2"])
def test_other_options_are_another_fit(
    begin: Callable[..., World], tmp_path: Any, query: str
) -> None:
    from tests.trueprob_service.control.model_folders import add_version

    for version in (1, 2):
        add_version(tmp_path / "models", version=version)
    world = begin()
    first = world.upload(overconfident(), "?promote=never&version=1", "blocks")
    other = world.upload(overconfident(), f"?promote=never&version=1&{query}"
                         if "=2" not in query else f"?promote=never&{query}", "blocks")  # fmt: skip
    assert first["fit"] != other["fit"]


def test_after_a_promotion_it_is_judged_again_and_not_fitted_again(
    watched: World, runner: Watched
) -> None:
    first = watched.upload(overconfident())
    document = watched.get(f"/v1/models/m/calibrators/{first['calibrator']}")
    watched.clock.now += 60
    assert watched.rollback(2).status_code == 200
    again = watched.upload(overconfident())
    assert again["fit"] != first["fit"]
    assert again["calibrator"] == first["calibrator"]
    assert (again["promoted"], again["revision"]) == (True, 4)
    assert again["verdict"] == first["verdict"]
    assert again["scores"] == first["scores"]
    assert [job.earlier is None for job in runner.jobs] == [True, False]
    assert runner.jobs[1].earlier is not None
    assert json.loads(runner.jobs[1].earlier.document)["id"] == first["calibrator"]
    # The same document, which says when it was fitted.
    assert watched.get(f"/v1/models/m/calibrators/{first['calibrator']}") == document


def test_it_is_judged_against_the_pair_that_is_live_now(watched: World) -> None:
    first = watched.upload(overconfident(), "?promote=never")
    watched.upload(sharper(), "?promote=always")
    again = watched.upload(overconfident(), "?promote=never")
    assert again["fit"] != first["fit"]
    assert again["scores"]["incumbent"] != first["scores"]["incumbent"]
    assert again["scores"]["candidate"] == first["scores"]["candidate"]


def test_another_value_of_promote_reuses_the_calibrator(watched: World, runner: Watched) -> None:
    never = watched.upload(overconfident(), "?promote=never")
    auto = watched.upload(overconfident())
    assert (auto["calibrator"], auto["promoted"]) == (never["calibrator"], True)
    assert [job.earlier is None for job in runner.jobs] == [True, False]


def test_a_fit_that_failed_is_tried_again(watched: World, runner: Watched) -> None:
    runner.fails = True
    path = "/v1/models/m/calibration-sets"
    headers = {"content-type": "application/x-npz", "prefer": "wait=60"}
    failed = watched.call("POST", path, content=overconfident(), headers=headers).json()
    assert failed["state"] == "failed"
    runner.fails = False
    again = watched.upload(overconfident())
    assert (again["fit"] != failed["fit"], again["state"]) == (True, "done")


def test_a_queued_or_running_fit_is_the_same_and_a_cancelled_one_is_not(
    begin: Callable[..., World],
) -> None:
    world = begin(job_runner=Cancellable, settings={"poll_seconds": 0.02})
    world.declare()
    running = post(world)["fit"]
    until(world, running, lambda fit: fit["state"] == "running")
    queued = post(world, "?promote=never")["fit"]
    assert [post(world)["fit"], post(world, "?promote=never")["fit"]] == [running, queued]
    world.call("DELETE", f"{FITS}/{queued}")
    assert post(world, "?promote=never")["fit"] not in (running, queued)
