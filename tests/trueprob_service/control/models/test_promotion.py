"""Making a pair live and going back: one revision each, and never by accident."""

from __future__ import annotations

import threading

import pytest

from tests.trueprob_service.control.harness import World, calibrated, overconfident

pytestmark = pytest.mark.slow


def history(world: World) -> list[tuple[int, str, int | None]]:
    items = world.get("/v1/models/m/promotions")["items"]
    return [(item["revision"], item["cause"], item["restores"]) for item in items]


def three_calibrators(world: World) -> tuple[str, str, str]:
    """Revisions 1 to 3: the factory's, an admitted one, a forced one."""
    factory = world.get("/v1/models/m")["calibrator"]
    second = world.upload(overconfident())["calibrator"]
    third = world.upload(overconfident(7), "?promote=always")["calibrator"]
    return factory, second, third


def test_a_change_must_name_the_revision_that_it_saw(world: World) -> None:
    calibrator = world.upload(overconfident(), "?promote=never")["calibrator"]
    path = f"/v1/models/m/calibrators/{calibrator}/promote"
    assert world.call("POST", path).status_code == 428
    for wrong in ("*", "four", '"1", "2"', ""):
        assert world.call("POST", path, headers={"if-match": wrong}).status_code == 422
    stale = world.promote(calibrator, 7)
    assert stale.status_code == 412
    assert "is 1" in stale.json()["detail"]
    assert world.promote(calibrator, 1).json()["revision"] == 2
    assert world.promote(calibrator, 1).status_code == 412
    assert world.call("GET", "/v1/models/m").headers["etag"] == '"2"'


def test_what_was_not_admitted_goes_live_only_by_force(world: World) -> None:
    calibrator = world.upload(calibrated())["calibrator"]
    refused = world.promote(calibrator, 1)
    assert refused.status_code == 409
    assert "force" in refused.json()["detail"]
    assert world.promote(calibrator, 1, "?force=true").status_code == 200
    assert history(world)[0] == (2, "forced", None)
    assert world.promote("smart-000000000000", 2).status_code == 404


def test_rollback_undoes_step_by_step_and_never_a_rollback(world: World) -> None:
    factory, second, _ = three_calibrators(world)
    first = world.rollback(3)
    assert first.json() == {"model": "m", "version": 1, "calibrator": second, "revision": 4}
    assert world.deployments.current("m").calibrator_id == second
    assert world.rollback(4).json()["calibrator"] == factory
    nothing = world.rollback(5)
    assert nothing.status_code == 409
    assert "undo" in nothing.json()["detail"]
    assert history(world) == [
        (5, "rollback", 1),
        (4, "rollback", 2),
        (3, "forced", None),
        (2, "admitted", None),
        (1, "factory", None),
    ]


def test_rollback_to_a_revision_puts_its_pair_back(world: World) -> None:
    factory, _, third = three_calibrators(world)
    assert world.rollback(3, {"revision": 1}).json()["calibrator"] == factory
    assert world.rollback(4, {"revision": 3}).json()["calibrator"] == third
    # What revision 5 put back was itself a promotion over revision 2.
    assert world.rollback(5).json()["revision"] == 6
    assert world.get("/v1/models/m")["calibrator"] not in (factory, third)
    assert world.rollback(6, {"revision": 99}).status_code == 404
    assert world.call("POST", "/v1/models/m/rollback").status_code == 428


@pytest.mark.parametrize("model", ["none"])
def test_an_unknown_model_is_not_found(shared_world: World, model: str) -> None:
    headers = {"if-match": '"1"'}
    for method, path in (
        ("GET", ""),
        ("GET", "/promotions"),
        ("GET", "/fits"),
        ("GET", "/fits/1"),
        ("GET", "/calibrators"),
        ("GET", "/calibrators/x"),
        ("GET", "/calibration-sets"),
        ("GET", "/calibration-sets/x"),
        ("GET", "/calibration"),
        ("POST", "/rollback"),
        ("POST", "/calibrators/x/promote"),
    ):
        answer = shared_world.call(method, f"/v1/models/{model}{path}", headers=headers)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"


def test_of_two_changes_from_one_revision_exactly_one_happens(world: World) -> None:
    calibrator = world.upload(overconfident(), "?promote=never")["calibrator"]
    statuses: list[int] = []
    barrier = threading.Barrier(4)

    def promote() -> None:
        barrier.wait()
        statuses.append(world.promote(calibrator, 1).status_code)

    threads = [threading.Thread(target=promote) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 412, 412, 412]
    assert world.get("/v1/models/m")["revision"] == 2


def test_lists_are_paged_newest_first(sqlite_world: World) -> None:
    factory = sqlite_world.get("/v1/models/m")["calibrator"]
    for revision in range(1, 6):
        assert sqlite_world.promote(factory, revision).status_code == 200
    seen: list[int] = []
    query = "?limit=4"
    while True:
        page = sqlite_world.get(f"/v1/models/m/promotions{query}")
        assert set(page) == {"items", "next"}
        seen += [item["revision"] for item in page["items"]]
        if page["next"] is None:
            break
        query = f"?limit=4&cursor={page['next']}"
    assert seen == [6, 5, 4, 3, 2, 1]
    for wrong in ("?cursor=x", "?limit=0", "?limit=501", "?cursor=99999999999999999999"):
        path = f"/v1/models/m/promotions{wrong}"
        assert sqlite_world.call("GET", path).status_code == 422
