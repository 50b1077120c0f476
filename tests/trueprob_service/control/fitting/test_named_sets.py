"""Named calibration sets: append, download, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.trueprob_service.control.harness import NPZ, WAIT, World, npz, overconfident, rows
from tests.trueprob_service.control.model_folders import add_version
from tests.trueprob_service.control.test_restart import Waits
from trueprob.arrays.calibration_set import CalibrationSet, load_calibration_set

pytestmark = pytest.mark.slow

SETS = "/v1/models/m/calibration-sets"
LOGITS, LABELS = rows(7, 90, sharpness=2.5)


def part(start: int, stop: int, **more: Any) -> bytes:
    return npz(logits=LOGITS[start:stop], labels=LABELS[start:stop], **more)


def append(world: World, content: bytes, name: str = "may", **headers: str) -> httpx.Response:
    return world.call("POST", f"{SETS}/{name}/rows", content=content, headers={**NPZ, **headers})


def files(world: World) -> list[str]:
    folder = world.settings.state_dir / "calibration-sets"
    return [path.name for path in folder.rglob("*.npz")]


def test_rows_of_several_requests_are_one_set(world: World) -> None:
    for start in (0, 30, 60):
        answer = append(world, part(start, start + 30))
        assert (answer.status_code, answer.json()["n"]) == (200, start + 30), answer.text
    whole = CalibrationSet(LOGITS, LABELS)
    assert answer.json()["digest"] == whole.digest
    assert answer.json()["names"] == ["may"]
    # The shorter set is deleted: nothing else refers to it.
    assert [s["digest"] for s in world.get(SETS)["items"]] == [whole.digest]
    assert world.get("/v1/models/m/fits")["items"] == []
    got = world.call("GET", f"{SETS}/may", headers={"accept": "application/x-npz"})
    assert got.headers["content-type"] == "application/x-npz"
    assert load_calibration_set(got.content).digest == whole.digest
    fit = world.call("POST", "/v1/models/m/fits", json={"calibration_set": "may"}, headers=WAIT)
    assert (fit.status_code, fit.json()["n"], fit.json()["state"]) == (201, 90, "done")
    assert fit.json()["calibration_set"] == whole.digest


def test_a_stored_set_is_only_for_versions_with_its_classes_in_its_order(
    begin: Callable[..., World], tmp_path: Path
) -> None:
    add_version(tmp_path / "models", version=1)
    add_version(tmp_path / "models", version=2, classes=("b", "a", "c"))
    add_version(tmp_path / "models", version=3)
    world = begin(network=True)
    sets = "/v1/models/blocks/calibration-sets"

    def send(name: str, version: int, content: bytes) -> httpx.Response:
        path = f"{sets}/{name}/rows?version={version}"
        return world.call("POST", path, content=content, headers=NPZ)

    stored = send("may", 1, part(0, 90))
    assert stored.status_code == 200, stored.text
    both = "the set has the classes a, b, c, version 2 has b, a, c"
    body = {"calibration_set": "may", "version": 2, "promote": "never"}
    for refused in (
        world.call("POST", "/v1/models/blocks/fits", json=body),
        send("may", 2, part(0, 5)),
    ):
        assert (refused.status_code, both in refused.json()["detail"]) == (409, True), refused.text
    same = world.call("POST", "/v1/models/blocks/fits", json={**body, "version": 3}, headers=WAIT)
    assert same.json()["state"] == "done"
    # Sent for version 2, the same numbers are rows of its classes.
    again = send("june", 2, part(0, 90))
    assert again.json()["digest"] == stored.json()["digest"]
    assert world.call("POST", "/v1/models/blocks/fits", json=body).status_code == 202


def test_a_set_that_was_fitted_stays_when_rows_are_appended(sqlite_world: World) -> None:
    first = sqlite_world.upload(overconfident(), "?name=may")["calibration_set"]
    longer = append(sqlite_world, part(0, 30)).json()
    assert {s["digest"]: s["names"] for s in sqlite_world.get(SETS)["items"]} == {
        first: [],
        longer["digest"]: ["may"],
    }


def test_requests_that_append_at_the_same_time_lose_no_row(world: World) -> None:
    async def scenario() -> list[int]:
        transport = httpx.ASGITransport(app=world.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            path = f"{SETS}/may/rows"
            sent = [
                client.post(path, content=part(start, start + 15), headers=NPZ)
                for start in range(0, 90, 15)
            ]
            return [answer.status_code for answer in await asyncio.gather(*sent)]

    assert asyncio.run(scenario()) == [200] * 6
    got = world.call("GET", f"{SETS}/may", headers={"accept": "application/x-npz"})
    found = load_calibration_set(got.content)
    wanted = CalibrationSet(LOGITS, LABELS)
    assert sorted(map(bytes, found.row_digests)) == sorted(map(bytes, wanted.row_digests))


@pytest.mark.parametrize(
    ("first", "second", "word"),
    [
        ({}, {"weights": np.ones(30)}, "weights"),
        ({"weights": np.ones(30)}, {}, "weights"),
        ({"groups": np.arange(30)}, {"groups": np.array(["a"] * 30)}, "groups"),
    ],
)
def test_rows_that_do_not_fit_the_set_are_refused(
    sqlite_world: World, first: dict[str, Any], second: dict[str, Any], word: str
) -> None:
    assert append(sqlite_world, part(0, 30, **first)).status_code == 200
    answer = append(sqlite_world, part(30, 60, **second))
    assert (answer.status_code, word in answer.text) == (422, True)
    assert sqlite_world.get(f"{SETS}/may")["n"] == 30


def test_a_set_may_not_outgrow_an_upload(begin: Callable[..., World]) -> None:
    world = begin(settings={"max_upload_bytes": 1700})
    world.declare()
    assert append(world, part(0, 45)).status_code == 200
    answer = append(world, part(45, 90))
    assert (answer.status_code, "1700" in answer.text) == (413, True)


def test_rows_that_are_sent_again_are_not_appended_again(world: World) -> None:
    for start in (0, 30):
        assert append(world, part(start, start + 30)).json()["n"] == start + 30
    again = append(world, part(0, 30))
    assert (again.status_code, again.json()["n"]) == (200, 60)
    # In another order, or together with other rows, they are new.
    assert append(world, part(15, 45)).json()["n"] == 60
    assert append(world, part(30, 75)).json()["n"] == 105
    assert append(world, part(0, 30), name="june").json()["n"] == 30


def test_rows_with_another_weight_or_group_are_new(sqlite_world: World) -> None:
    for groups in (np.arange(30), np.arange(1, 31)):
        for weight in (1.0, 2.0):
            content = part(0, 30, weights=np.full(30, weight), groups=groups)
            found = [append(sqlite_world, content).json()["n"] for _ in range(2)]
            assert found[0] == found[1]
    assert found[1] == 120


def test_a_full_set_accepts_rows_that_it_contains(begin: Callable[..., World]) -> None:
    world = begin(settings={"max_upload_bytes": 1700})
    world.declare()
    for _ in range(2):
        assert append(world, part(0, 45)).status_code == 200


def test_a_set_is_not_deleted_while_a_fit_on_it_waits(begin: Callable[..., World]) -> None:
    waits = Waits()
    world = begin(job_runner=lambda: waits)
    world.declare()
    report = world.call("POST", f"{SETS}?name=may", content=overconfident(), headers=NPZ).json()
    refused = world.call("DELETE", f"{SETS}/may")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    waits.go.set()
    done = world.upload(overconfident(), "?promote=never")  # waits: a fit on the same rows
    assert world.call("DELETE", f"{SETS}/may").status_code == 204
    assert world.get(SETS) == {"items": [], "next": None}
    for path in (f"{SETS}/may", f"{SETS}/{report['calibration_set']}"):
        assert world.call("GET", path).status_code == 404
        assert world.call("DELETE", path).status_code == 404
    fit = world.get(f"/v1/models/m/fits/{done['fit']}")
    assert (fit["n"], fit["calibration_set"]) == (600, report["calibration_set"])
    # The digests of its rows remain, so the same rows are no new evidence.
    again = world.upload(overconfident(), "?method=temperature")
    assert again["promoted"] is False
    assert "new: the incumbent was fitted on all of them" in again["verdict"]["reasons"][0]
    assert world.get(f"{SETS}/{report['calibration_set']}")["n"] == 600


def test_an_unknown_set_cannot_be_fitted_or_deleted(shared_world: World) -> None:
    for body in ({"calibration_set": "none"}, {"calibration_set": "sha256:0"}):
        assert shared_world.call("POST", "/v1/models/m/fits", json=body).status_code == 404
    assert shared_world.call("DELETE", "/v1/models/none/calibration-sets/x").status_code == 404
    assert append(shared_world, b"x", "a%20b").status_code == 422
    assert shared_world.call("POST", "/v1/models/m/fits", json={"set": "may"}).status_code == 422
