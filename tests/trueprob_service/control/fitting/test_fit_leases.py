"""Leases: one process at a time runs a fit, and a fit ends once, even if that process dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.trueprob_service.control.harness import (
    NPZ,
    START,
    WAIT,
    Clock,
    Runner,
    World,
    npz,
    overconfident,
    rows,
)
from trueprob_service.control.fitting.queue import LEASE_SECONDS
from trueprob_service.control.fitting.worker import Job, JobResult, run
from trueprob_service.control.store import open_store

pytestmark = pytest.mark.slow

QUICK: dict[str, Any] = {"poll_seconds": 0.02}


class Held(Runner):
    """A runner that starts a fit and finishes it when the test says so."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.jobs: list[Job] = []

    def run(self, job: Job) -> JobResult | None:
        self.jobs.append(job)
        self.begun.set()
        self.go.wait()
        return run(job)

    def close(self) -> None:
        self.go.set()


class Counting(Runner):
    """A runner that records its jobs."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, job: Job) -> JobResult | None:
        self.jobs.append(job)
        return run(job)

    def close(self) -> None:
        """Do nothing: no job is running."""


def post(world: World, content: bytes, query: str = "", **headers: str) -> str:
    path = f"/v1/models/m/calibration-sets{query}"
    answer = world.call("POST", path, content=content, headers={**NPZ, **headers})
    assert answer.status_code in (201, 202), answer.text
    return str(answer.json()["fit"])


def fit(world: World, number: str) -> Any:
    return world.get(f"/v1/models/m/fits/{number}")


def wait_for_end(world: World, number: str) -> Any:
    deadline = time.monotonic() + 60
    while (now := fit(world, number))["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, now
        time.sleep(0.01)
    return now


def sharper(seed: int) -> bytes:
    logits, labels = rows(seed, 200, sharpness=2.5)
    return npz(logits=logits, labels=labels)


def look(world: World) -> None:
    world.plane.services.replica_sync.sync()


def test_of_two_processes_one_runs_a_fit(begin: Callable[..., World]) -> None:
    runners = [Counting(), Counting()]
    worlds = [begin(settings=QUICK, job_runner=lambda runner=runner: runner) for runner in runners]
    worlds[0].declare()
    look(worlds[1])
    # Fits that promote nothing do not supersede each other.
    fits = [post(worlds[seed % 2], sharper(seed), "?promote=never") for seed in range(8)]
    assert all(wait_for_end(worlds[0], each)["state"] == "done" for each in fits)
    assert sum(len(runner.jobs) for runner in runners) == 8
    assert len({job.path for runner in runners for job in runner.jobs}) == 8


def test_a_fit_whose_process_died_is_run_by_another_when_its_lease_ends(
    begin: Callable[..., World],
) -> None:
    held, counting = Held(), Counting()
    later = Clock(START)
    # Its clock stands still, as in a process that hangs, so it does not renew the lease.
    dead = begin(settings=QUICK, job_runner=lambda: held)
    dead.declare()
    number = post(dead, overconfident())
    held.begun.wait()
    other = begin(settings=QUICK, job_runner=lambda: counting, clock=later)
    later.now = START + LEASE_SECONDS
    time.sleep(0.2)
    assert (fit(other, number)["state"], counting.jobs) == ("running", [])
    later.now += 1
    report = wait_for_end(other, number)
    assert (report["promoted"], report["revision"]) == (True, 2)
    # It continues after all, and finds that the fit has ended.
    held.go.set()
    dead.plane.close()
    assert wait_for_end(other, number) == report
    assert [each["revision"] for each in other.get("/v1/models/m/promotions")["items"]] == [2, 1]


def test_a_lease_is_extended_while_the_fit_runs(begin: Callable[..., World]) -> None:
    clock, held, counting = Clock(), Held(), Counting()
    begun = begin(settings=QUICK, job_runner=lambda: held, clock=clock)
    begun.declare()
    number = post(begun, overconfident())
    held.begun.wait()
    other = begin(settings=QUICK, job_runner=lambda: counting, clock=clock)
    for _ in range(4):
        clock.now += LEASE_SECONDS / 2
        time.sleep(0.2)
    assert (fit(other, number)["state"], counting.jobs) == ("running", [])
    held.go.set()
    assert wait_for_end(other, number)["state"] == "done"


def test_a_waiting_client_is_answered_when_another_process_ran_the_fit(
    begin: Callable[..., World],
) -> None:
    held = Held()
    busy = begin(settings=QUICK, job_runner=lambda: held)
    busy.declare()
    first = post(busy, sharper(1))
    held.begun.wait()
    other = begin(settings=QUICK)
    second = post(busy, sharper(2), **WAIT)
    assert fit(busy, second)["state"] == "done"
    assert fit(other, first)["state"] == "running"


def test_a_process_that_shuts_down_releases_its_fit_at_once(
    begin: Callable[..., World],
) -> None:
    class Ending(Held):
        def run(self, job: Job) -> JobResult | None:
            super().run(job)
            return None

    ending = Ending()
    world = begin(settings=QUICK, job_runner=lambda: ending)
    world.declare()
    number = post(world, overconfident())
    ending.begun.wait()
    other = begin(settings=QUICK)
    world.plane.close()
    assert wait_for_end(other, number)["promoted"] is True


def test_a_process_without_the_rows_does_not_claim_the_fit(
    begin: Callable[..., World], tmp_path: Any
) -> None:
    held, counting = Held(), Counting()
    busy = begin(settings=QUICK, job_runner=lambda: held)
    busy.declare()
    first, second = post(busy, sharper(1)), post(busy, sharper(2))
    held.begun.wait()
    begin(settings={**QUICK, "state_dir": tmp_path / "other"}, job_runner=lambda: counting)
    time.sleep(0.3)
    held.go.set()
    assert [wait_for_end(busy, each)["state"] for each in (first, second)] == ["done", "done"]
    assert counting.jobs == []


@pytest.mark.parametrize("n_processes", [4])
def test_concurrent_claims_get_different_fits(
    begin: Callable[..., World], database_url: str, n_processes: int
) -> None:
    held = Held()
    world = begin(job_runner=lambda: held)
    world.declare()
    fits = [int(post(world, sharper(seed), "?promote=never")) for seed in range(12)]
    held.begun.wait()  # with the first
    claimed: list[tuple[str, int]] = []

    def claim(owner: str) -> None:
        store = open_store(database_url)
        while True:
            with store.write() as transaction:
                row = transaction.fits.claim(
                    fits, owner=owner, now=START, lease_until=START + LEASE_SECONDS
                )
            # Its own fit would be given to an owner again.
            if row is None or (owner, row.id) in claimed:
                break
            claimed.append((owner, row.id))
            with store.write() as transaction:
                transaction.fits.end(row.id, "failed", now=START, error="none")
        store.close()

    threads = [threading.Thread(target=claim, args=(f"p{i}",)) for i in range(n_processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for _, number in claimed) == fits[1:]
