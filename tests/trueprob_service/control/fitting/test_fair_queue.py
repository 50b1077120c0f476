"""Models take turns, newer requests supersede waiting ones, and each model's queue is bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.trueprob_service.control.harness import NPZ, World, overconfident
from trueprob.client.answers import FitSummary
from trueprob_service.control.fitting.worker import Job, JobResult

pytestmark = pytest.mark.slow


class Gate:
    """A runner whose jobs fail once they may; it keeps the class names of the models it ran."""

    def __init__(self) -> None:
        self.progress = 0.0
        self.started = threading.Event()
        self.ran: list[tuple[str, ...]] = []
        self._open = threading.Event()
        self._closed = False

    def run(self, job: Job) -> JobResult | None:
        self.ran.append(job.class_names)
        self.started.set()
        self._open.wait()
        return None if self._closed else JobResult(error="not fitted")

    def open(self) -> None:
        self._open.set()

    def cancel(self, job: Job) -> None:
        self._open.set()

    def close(self) -> None:
        self._closed = True
        self._open.set()


def declare(world: World, *models: str) -> None:
    for model in models:
        body = {"class_names": [f"{model}{c}" for c in range(3)]}
        assert world.call("PUT", f"/v1/models/{model}", json=body).status_code in (200, 201)


def post(world: World, model: str, seed: int, query: str = "") -> Any:
    path = f"/v1/models/{model}/calibration-sets{query}"
    return world.call("POST", path, content=overconfident(seed), headers=NPZ)


def state(world: World, model: str, fit: str) -> Any:
    return world.get(f"/v1/models/{model}/fits/{fit}")


@pytest.fixture
def busy(begin: Callable[..., World]) -> tuple[World, Gate]:
    """A service whose runner is busy with a fit of model `first`."""
    gate = Gate()
    settings = {"poll_seconds": 0.02, "max_queued_fits": 4}
    world = begin(job_runner=lambda: gate, settings=settings)
    declare(world, "first", "a", "b", "c")
    assert post(world, "first", 1).status_code == 202
    assert gate.started.wait(20)
    return world, gate


def finish(world: World, gate: Gate, *fits: tuple[str, str]) -> list[Any]:
    gate.open()
    for model, fit in fits:
        while state(world, model, fit)["state"] in ("queued", "running"):
            threading.Event().wait(0.01)
    return [state(world, model, fit) for model, fit in fits]


def test_models_take_turns(busy: tuple[World, Gate]) -> None:
    world, gate = busy
    fits = [
        (model, post(world, model, 2, f"?promote=never&method={method}").json()["fit"])
        for model in ("a", "b")
        for method in ("smart", "temperature", "isotonic")
    ]
    fits.append(("c", post(world, "c", 4).json()["fit"]))
    finish(world, gate, *fits)
    order = [names[0][:-1] for names in gate.ran]
    assert order == ["first", "a", "b", "c", "a", "b", "a", "b"]


def test_the_newest_request_supersedes_those_that_wait(busy: tuple[World, Gate]) -> None:
    world, gate = busy
    fits = [post(world, "a", seed).json()["fit"] for seed in range(5, 12)]
    old, new = fits[:-1], fits[-1]
    for fit in old:
        found = state(world, "a", fit)
        assert found["state"] == "superseded"
        assert found["error"].startswith("superseded by fit ")
        assert found["finished_at"] is not None
        assert "progress" not in found
        assert FitSummary(**{k: v for k, v in found.items() if k != "n"}, n=1).ended
    assert finish(world, gate, ("a", new))[0]["state"] == "failed"
    world.clock.now += 60  # statistics are kept for a while
    assert world.plane.label_statistics().fits["a", "smart", "superseded"] == len(old)
    assert world.call("DELETE", f"/v1/models/a/fits/{old[0]}").status_code == 409


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("?promote=never", "?promote=never"),  # each report is wanted for itself
        ("", "?method=temperature"),
        ("?method=temperature", ""),
        ("?promote=always", ""),
        ("", "?promote=shadow"),
        ("", "?allow_prediction_change=true"),
        ("", "?keep_prediction=true"),
    ],
)
def test_other_requests_are_not_superseded(
    busy: tuple[World, Gate], first: str, second: str
) -> None:
    world, _ = busy
    one = post(world, "a", 5, first).json()["fit"]
    two = post(world, "a", 6, second).json()["fit"]
    post(world, "b", 7, first)
    assert one != two
    assert [state(world, "a", fit)["state"] for fit in (one, two)] == ["queued", "queued"]


def test_a_superseded_request_that_is_repeated_is_a_new_fit(busy: tuple[World, Gate]) -> None:
    world, gate = busy
    one, two = (post(world, "a", seed).json()["fit"] for seed in (5, 6))
    again = post(world, "a", 5).json()["fit"]
    assert len({one, two, again}) == 3
    assert [state(world, "a", fit)["state"] for fit in (one, two)] == ["superseded"] * 2
    assert finish(world, gate, ("a", again))[0]["state"] == "failed"


def test_a_running_fit_is_not_superseded(busy: tuple[World, Gate]) -> None:
    world, gate = busy
    running = world.get("/v1/models/first/fits")["items"][0]["fit"]
    new = post(world, "first", 5).json()["fit"]
    assert state(world, "first", running)["state"] == "running"
    ended = finish(world, gate, ("first", running), ("first", new))
    assert [fit["state"] for fit in ended] == ["failed", "failed"]


def test_a_waiting_client_is_told_that_its_fit_was_superseded(busy: tuple[World, Gate]) -> None:
    world, _ = busy
    answers: list[Any] = []
    path = "/v1/models/a/calibration-sets"
    headers = {**NPZ, "prefer": "wait=30"}
    waiting = threading.Thread(
        target=lambda: answers.append(
            world.call("POST", path, content=overconfident(5), headers=headers)
        )
    )
    waiting.start()
    while not world.get("/v1/models/a/fits")["items"]:
        threading.Event().wait(0.01)
    post(world, "a", 6)
    waiting.join(20)
    assert not waiting.is_alive()
    assert answers[0].json()["state"] == "superseded"


def test_too_many_waiting_fits_of_a_model_are_refused_and_nothing_is_kept(
    busy: tuple[World, Gate],
) -> None:
    world, gate = busy
    fits = [post(world, "a", seed, "?promote=never").json()["fit"] for seed in range(5, 9)]
    refused = post(world, "a", 9, "?promote=never")
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "30"
    assert "4 fits of model 'a' wait, the limit" in refused.json()["detail"]
    assert len(world.get("/v1/models/a/calibration-sets")["items"]) == 4
    assert len(world.get("/v1/models/a/fits")["items"]) == 4
    # The same request again, and another model, are not refused.
    assert post(world, "a", 5, "?promote=never").json()["fit"] == fits[0]
    assert post(world, "b", 9, "?promote=never").status_code == 202
    assert world.call("DELETE", f"/v1/models/a/fits/{fits[0]}").status_code == 200
    assert post(world, "a", 9, "?promote=never").status_code == 202
    gate.open()


def test_a_refused_request_supersedes_nothing(busy: tuple[World, Gate]) -> None:
    world, _ = busy
    waiting = post(world, "a", 5).json()["fit"]
    for seed in range(6, 9):
        assert post(world, "a", seed, "?promote=never").status_code == 202
    newer = post(world, "a", 9)  # takes the place of the one that it supersedes
    assert newer.status_code == 202
    assert state(world, "a", waiting)["state"] == "superseded"
    refused = post(world, "a", 10, "?method=temperature")
    assert refused.status_code == 503
    assert state(world, "a", newer.json()["fit"])["state"] == "queued"
