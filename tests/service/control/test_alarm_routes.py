"""Alarms over HTTP: what is told of them, their history, and that somebody knows."""

from __future__ import annotations

from tests.service.control.harness import START, World, overconfident, rows


def send(world: World, seed: int, n: int, sharpness: float = 1.0) -> None:
    logits, labels = rows(seed, n, sharpness=sharpness)
    _, _, _, ids = world.predict(logits)
    assert world.label(ids, labels.tolist()).json()["accepted"] == n


def figures(world: World) -> dict[str, float]:
    answer = world.get("/v1/models/m/calibration")
    return {name: answer[name] for name in answer if name.endswith("_log10")}


def test_a_calibrated_pair_has_thresholds_and_no_alarm(world: World) -> None:
    start = figures(world)
    assert abs(start["evidence_log10"]) < 1e-12
    assert start["change_log10"] == 0.0
    send(world, 40, 800)
    answer = world.get("/v1/models/m/calibration")
    assert (answer["evidence_threshold_log10"], answer["change_threshold_log10"]) == (2.0, 5.0)
    assert answer["evidence_log10"] < 2.0
    assert 0.0 <= answer["change_log10"] < 5.0
    assert answer["alarm"] is None
    assert world.get("/v1/models/m/alarms") == {"items": [], "next": None}


def test_an_alarm_is_shown_listed_exported_acknowledged_and_over_at_the_next_promotion(
    world: World,
) -> None:
    for seed in (41, 42):
        send(world, seed, 500, sharpness=3.0)
    listed = world.get("/v1/models/m/alarms")["items"]
    assert [alarm["statistic"] for alarm in listed] == ["change", "evidence"]
    change, evidence = listed
    assert change == {
        "id": change["id"],
        "model": "m",
        "version": 1,
        "calibrator": world.deployments.current("m").calibrator_id,
        "revision": 1,
        "statistic": "change",
        "log10": change["log10"],
        "threshold_log10": 5.0,
        "tolerance": 0.02,
        "labels": 500,
        "raised_at": "2027-01-15T08:00:00.000Z",
        "acknowledged_at": None,
        "acknowledged_by": None,
    }
    page = world.get("/v1/models/m/alarms?limit=1")
    assert page["items"] == [change]
    assert world.get(f"/v1/models/m/alarms?limit=1&cursor={page['next']}")["items"] == [evidence]

    answer = world.get("/v1/models/m/calibration")
    assert answer["alarm"] == change
    assert f"acknowledge alarms {evidence['id']} and {change['id']}" in answer["advice"]
    world.clock.now += 60.0
    statistics = world.plane.label_statistics()
    assert statistics.alarms == {("m", "change"): 1, ("m", "evidence"): 1}
    (pair,) = statistics.pairs
    assert pair.alarm is not None
    assert vars(pair.alarm) == figures(world)
    assert pair.alarm.change_log10 > change["log10"] >= 5.0

    for alarm in (evidence, change):
        path = f"/v1/models/m/alarms/{alarm['id']}/acknowledge"
        known = world.call("POST", path)
        assert known.status_code == 200
        assert known.json() == {**alarm, "acknowledged_at": "2027-01-15T08:01:00.000Z"}
        world.clock.now += 1.0
        assert world.call("POST", path).json() == known.json()
        world.clock.now = START + 60.0
    after = world.get("/v1/models/m/calibration")
    assert (after["alarm"], after["change_log10"]) == (None, 0.0)
    assert after["evidence_log10"] > 2.0
    assert "a promotion starts the statistics anew" in after["advice"]

    assert world.upload(overconfident())["promoted"]
    anew = world.get("/v1/models/m/calibration")
    assert (anew["change_log10"], abs(anew["evidence_log10"]) < 1e-12) == (0.0, True)
    assert "No labels" in anew["advice"]
    assert len(world.get("/v1/models/m/alarms")["items"]) == 2
    # Alarms that were raised before a promotion are not those of what is live now.
    world.clock.now += 60.0
    live = [pair for pair in world.plane.label_statistics().pairs if pair.live]
    assert [pair.alarm.change_log10 for pair in live if pair.alarm] == [0.0]


def test_what_does_not_exist_is_not_found(shared_world: World) -> None:
    assert shared_world.call("GET", "/v1/models/none/alarms").status_code == 404
    for model, alarm, code in (
        ("m", "99", "alarm_not_found"),
        ("m", "x", "alarm_not_found"),
        ("m", "9" * 30, "alarm_not_found"),
        ("none", "1", "model_not_found"),
    ):
        answer = shared_world.call("POST", f"/v1/models/{model}/alarms/{alarm}/acknowledge")
        assert (answer.status_code, answer.json()["code"]) == (404, code)
    assert shared_world.call("GET", "/v1/models/m/alarms?cursor=x").status_code == 422
