"""Real processes on one database, of each kind: what one does, the others know."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.running_service import ROOT, running_service
from tests.trueprob_service.control.harness import SECRET, npz, rows
from tests.trueprob_service.replicas.replica_metrics import live_revision, targets
from tests.waiting import is_running, wait_until

pytestmark = pytest.mark.integration
OFTEN = ("--poll-seconds", "0.2")  # so that a test does not wait for the next poll


def test_a_promotion_and_a_new_model_reach_every_replica(tmp_path: Path, database_url: str) -> None:
    state = tmp_path / "state"
    # On SQLite the replicas share the one that the first of them makes.
    secrets = () if database_url.startswith("sqlite") else ("--receipt-secrets", SECRET)
    with running_service(
        state, ROOT / "models", "--replicas", "2", "--database-url", database_url, *secrets, *OFTEN
    ) as service:
        addresses = targets(state).values()

        def all_have(revision: str, model: str = "digits") -> Callable[[], bool]:
            return lambda: {live_revision(each, model) for each in addresses} == {revision}

        assert all_have("1")()
        upload = (ROOT / "examples/digits_drifted.npz").read_bytes()
        report = service.client.post(
            "/v1/models/digits/calibration-sets?promote=always",
            content=upload,
            headers={"content-type": "application/x-npz", "prefer": "wait=60"},
        ).json()
        assert (report["promoted"], report["revision"]) == (True, 2)
        wait_until(all_have("2"), "the promotion everywhere")
        rollback = {"if-match": '"2"'}
        assert service.client.post("/v1/models/digits/rollback", headers=rollback).is_success
        wait_until(all_have("3"), "the rollback everywhere")
        assert service.client.put("/v1/models/mine", json={"n_classes": 3}).status_code == 201
        wait_until(all_have("1", "mine"), "the new model everywhere")
        # Whichever replica is asked: a client that declares a model may use it at once.
        for index in range(20):
            path = f"{service.url}/v1/models/new-{index}"
            assert httpx.put(path, json={"n_classes": 3}).status_code == 201
            answer = httpx.post(f"{path}/probabilities", json={"logits": [[1.0, 2.0, 3.0]]})
            assert answer.status_code == 200, answer.text


def test_two_services_on_one_database_follow_each_other(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with (
        running_service(state, ROOT / "models") as one,
        running_service(state, ROOT / "models", *OFTEN) as other,
    ):
        assert one.client.put("/v1/models/mine", json={"n_classes": 3}).status_code == 201
        logits = {"logits": [[1.0, 2.0, 3.0]]}

        def other_answers() -> bool:
            answer = other.client.post("/v1/models/mine/probabilities", json=logits)
            return answer.is_success and bool(answer.json()["revision"] == 1)

        wait_until(other_answers, "the model in the other service")


def children(process_id: int) -> list[int]:
    return [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/stat")
        if parent_of(path) == process_id
    ]


def parent_of(path: Path) -> int | None:
    try:
        return int(path.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def test_a_fit_whose_replica_is_killed_is_ended_by_another_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    logits, labels = rows(1, 400, sharpness=2.5)  # its process takes longer to start
    with running_service(state, ROOT / "models", "--replicas", "2", *OFTEN) as service:
        assert service.client.put("/v1/models/m", json={"n_classes": 3}).status_code == 201
        replicas = [each[-1] for each in service.replica_ids().values()]
        before = {each: set(children(each)) for each in replicas}  # one has inspected networks
        posted = service.client.post(
            "/v1/models/m/calibration-sets?method=smart-mlp",
            content=npz(logits=logits, labels=labels),
            headers={"content-type": "application/x-npz"},
        ).json()
        path = f"{service.url}/v1/models/m/fits/{posted['fit']}"

        def report() -> Any:
            return httpx.get(path).json()

        def who_fits() -> list[int]:
            return [each for each in replicas if set(children(each)) - before[each]]

        wait_until(lambda: len(who_fits()) == 1, "a fit that runs")
        (replica,) = who_fits()
        (*_, fitting) = sorted(children(replica))
        os.kill(replica, signal.SIGKILL)
        wait_until(lambda: not is_running(fitting), "the end of the process that fitted")
        wait_until(lambda: report()["state"] not in ("queued", "running"), "the fit's end")
        assert report()["state"] == "done"
        history = httpx.get(f"{service.url}/v1/models/m/promotions").json()["items"]
        assert [each["fit"] for each in history] == [posted["fit"], None]
