"""Alarms over HTTP: labels raise them, routes and metrics show them, users acknowledge them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trueprob_service.control.harness import START, World, overconfident, rows
from trueprob.drift import BetState, CalibrationBets

pytestmark = pytest.mark.slow


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
        "worst_class": change["worst_class"],
    }
    page = world.get("/v1/models/m/alarms?limit=1")
    assert page["items"] == [change]
    assert world.get(f"/v1/models/m/alarms?limit=1&cursor={page['next']}")["items"] == [evidence]

    answer = world.get("/v1/models/m/calibration")
    assert answer["alarm"] == change
    assert answer["verdict"]["state"] == "off"
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
        acknowledged = world.call("POST", path)
        assert acknowledged.status_code == 200
        assert acknowledged.json() == {**alarm, "acknowledged_at": "2027-01-15T08:01:00.000Z"}
        world.clock.now += 1.0
        assert world.call("POST", path).json() == acknowledged.json()
        world.clock.now = START + 60.0
    after = world.get("/v1/models/m/calibration")
    assert (after["alarm"], after["change_log10"]) == (None, 0.0)
    assert after["evidence_log10"] > 2.0
    assert "a promotion ends this state" in after["advice"]

    assert world.upload(overconfident())["promoted"]
    anew = world.get("/v1/models/m/calibration")
    assert (anew["change_log10"], abs(anew["evidence_log10"]) < 1e-12) == (0.0, True)
    assert anew["verdict"]["state"] == "unknown"
    assert len(world.get("/v1/models/m/alarms")["items"]) == 2
    # Alarms from before a promotion do not belong to the live pair.
    world.clock.now += 60.0
    live = [pair for pair in world.plane.label_statistics().pairs if pair.live]
    assert [pair.alarm.change_log10 for pair in live if pair.alarm] == [0.0]


def test_every_replica_reports_the_same_and_any_may_acknowledge(
    begin: Callable[..., World],
) -> None:
    first = begin()
    first.declare()
    second = begin(clock=first.clock)
    for seed in range(4):
        send((first, second)[seed % 2], 50 + seed, 150, sharpness=3.0)
    first.clock.now += 60.0
    reports = [world.plane.label_statistics() for world in (first, second)]
    assert [pair.alarm for pair in reports[0].pairs] == [pair.alarm for pair in reports[1].pairs]
    assert reports[0].alarms == reports[1].alarms == {("m", "change"): 1, ("m", "evidence"): 1}
    alarm = first.get("/v1/models/m/calibration")["alarm"]
    assert second.get("/v1/models/m/calibration")["alarm"] == alarm
    assert second.call("POST", f"/v1/models/m/alarms/{alarm['id']}/acknowledge").status_code == 200
    assert figures(first)["change_log10"] == 0.0


def test_what_does_not_exist_is_not_found(shared_world: World) -> None:
    assert shared_world.call("GET", "/v1/models/none/alarms").status_code == 404
    for model, alarm, code in (
        ("m", "99", "alarm_not_found"),
        ("m", "x", "alarm_not_found"),
        ("m", "0", "alarm_not_found"),
        ("m", "9" * 30, "alarm_not_found"),
        ("m", "9" * 5000, "alarm_not_found"),  # too long for int() too
        ("none", "1", "model_not_found"),
    ):
        answer = shared_world.call("POST", f"/v1/models/{model}/alarms/{alarm}/acknowledge")
        assert (answer.status_code, answer.json()["code"]) == (404, code)
    for cursor in ("x", "9" * 5000):
        answer = shared_world.call("GET", f"/v1/models/m/alarms?cursor={cursor}")
        assert answer.status_code == 422
    for method in ("GET", "DELETE"):
        answer = shared_world.call(method, f"/v1/models/m/fits/{'9' * 5000}")
        assert (answer.status_code, answer.json()["code"]) == (404, "fit_not_found")


def send_twice(
    world: World, seed: int, n: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int64]]:
    logits, labels = rows(seed, n)
    _, confidence, prediction, ids = world.predict(logits)
    assert world.label(ids, labels.tolist()).json()["accepted"] == n
    assert world.label(ids, [0] * n).json()["duplicate"] == n
    return confidence, prediction == labels, prediction


def evidence_of(world: World, revision: int) -> BetState:
    with world.plane.services.store.read() as transaction:
        row = transaction.alarm_states.get("m", revision)
    assert row is not None
    return BetState.from_dict(row.evidence)


def test_labels_go_into_the_state_of_the_promotion_that_predicted_and_once(
    begin: Callable[..., World],
) -> None:
    world = begin()
    world.declare()
    logits, labels = rows(30, 80)
    _, confidence, prediction, late = world.predict(logits)
    first, right, chosen = send_twice(world, 31, 40)
    assert world.upload(overconfident())["promoted"]
    send_twice(world, 32, 25)
    assert world.label(late, labels.tolist()).json()["accepted"] == 80
    assert (evidence_of(world, 1).n, evidence_of(world, 2).n) == (120, 25)
    world.plane.close()
    restarted = begin(clock=world.clock)
    send_twice(restarted, 33, 5)
    assert evidence_of(restarted, 2).n == 30
    # A product does not depend on its order: evidence can be computed without the key of the order.
    evidence, bets = restarted.plane.services.alarms.rules.evidence, CalibrationBets(0.02, 0.05)
    expected = evidence.start()
    for p, correct, classes in (
        (first, right, chosen),
        (confidence, prediction == labels, prediction),
    ):
        factors = bets.factors(p, correct, prediction=classes, n_classes=3)
        expected = evidence.update(expected, factors)
    got = evidence_of(restarted, 1)
    assert got.n == expected.n
    np.testing.assert_allclose(got.logs, expected.logs, rtol=0, atol=1e-9)
    assert evidence.log10(got) == pytest.approx(evidence.log10(expected), abs=1e-9)


def test_an_alarm_names_the_class_whose_answers_are_off(world: World) -> None:
    """Answers "1" are right half as often as they say; the other two make up for it."""
    generator = np.random.default_rng(9)
    for _ in range(12):
        logits, _ = rows(int(generator.integers(1 << 30)), 400)
        _, confidence, prediction, ids = world.predict(logits)
        off = prediction == 1
        chance = np.where(off, 0.5 * confidence, 0.5 + 0.5 * confidence)
        right = generator.random(400) < np.where(off, chance, np.minimum(chance, 1.0))
        labels = np.where(right, prediction, (prediction + 1) % 3)
        assert world.label(ids, labels.tolist()).json()["accepted"] == 400
    answer = world.get("/v1/models/m/calibration")
    assert answer["verdict"]["state"] == "off"
    worst, *others = answer["classes"]
    assert worst["class_name"] == "1"
    assert worst["confidence"] - worst["frequency"] > 0.2
    assert worst["low"] > 0.05
    assert worst["sentence"].startswith("answers '1' are ")
    assert "too confident" in worst["sentence"]
    assert {each["class_name"] for each in others} == {"0", "2"}
    assert answer["class_error_low"] > 0.05
    (evidence,) = (
        alarm
        for alarm in world.get("/v1/models/m/alarms")["items"]
        if alarm["statistic"] == "evidence"
    )
    assert evidence["worst_class"]["class_name"] == "1"
