"""A candidate in shadow: scored by labels beside what is live, then promoted or dropped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.trueprob_service.control.harness import World, overconfident, rows
from trueprob.drift import Comparison, top_label_brier
from trueprob_service.control.labels.counting import CountedLabels, counting_order
from trueprob_service.control.labels.shadow_scoring import losses
from trueprob_service.receipts.columns import ROW, ReceiptColumns

pytestmark = pytest.mark.slow

SHADOW = "/v1/models/m/shadow"


def candidate(world: World) -> str:
    """A calibrator that is better on overconfident logits than the identity, which is live."""
    report = world.upload(overconfident(), "?promote=never")
    return str(report["calibrator"])


def put(world: World, calibrator: str, **body: str) -> Any:
    answer = world.call("PUT", SHADOW, json={"calibrator": calibrator, **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def send(world: World, seed: int, n: int = 1000, *, sharpness: float = 2.5) -> None:
    """Overconfident traffic, all of it labelled."""
    logits, labels = rows(seed, n, sharpness=sharpness)
    _, _, _, ids = world.predict(logits)
    assert world.label(ids, labels.tolist()).json()["accepted"] == n


def test_a_better_candidate_is_promoted_as_the_history_says(world: World) -> None:
    calibrator = candidate(world)
    started = put(world, calibrator)
    assert (started["state"], started["labels"], started["revision"]) == ("running", 0, 1)
    assert started["threshold_log10"] == pytest.approx(2.0)
    send(world, 20)
    shadow = world.get(SHADOW)
    assert (shadow["state"], shadow["labels"], shadow["promoted"]) == ("better", 1000, 2)
    assert shadow["better_log10"] >= 2.0 > shadow["worse_log10"]
    live = world.deployments.current("m")
    assert (live.calibrator_id, live.revision, live.candidate) == (calibrator, 2, None)
    history = world.get("/v1/models/m/promotions")["items"]
    assert (history[0]["cause"], history[0]["calibrator"]) == ("shadow", calibrator)
    (summary, *_) = world.get("/v1/models/m/calibrators")["items"]
    assert summary["admitted"]


def test_a_worse_candidate_is_dropped(world: World) -> None:
    report = world.upload(overconfident())
    assert report["revision"] == 2
    identity = world.get("/v1/models/m/promotions")["items"][1]["calibrator"]
    put(world, identity)
    send(world, 21)
    shadow = world.get(SHADOW)
    assert (shadow["state"], shadow["promoted"]) == ("worse", None)
    live = world.deployments.current("m")
    assert (live.calibrator_id, live.revision, live.candidate) == (report["calibrator"], 2, None)


def test_who_wants_to_be_told_is_only_told(sqlite_world: World) -> None:
    world = sqlite_world
    calibrator = candidate(world)
    put(world, calibrator, policy="tell")
    send(world, 22)
    assert (world.get(SHADOW)["state"], world.get(SHADOW)["promoted"]) == ("better", None)
    assert world.deployments.current("m").revision == 1
    # What has proved itself needs no force.
    assert world.promote(calibrator, 1).status_code == 200


def test_the_evidence_is_the_librarys_on_the_same_rows(world: World) -> None:
    calibrator = candidate(world)
    put(world, calibrator)
    logits, labels = rows(23, 60, sharpness=2.5)
    live, confidence, prediction, ids = world.predict(logits)
    assert live.candidate is not None
    beside = live.candidate.answer(logits)
    world.label(ids[:30], labels[:30].tolist())
    world.label(ids[30:], labels[30:].tolist())
    labels_of = world.plane.services.receipt_labels
    comparison = Comparison(alpha=0.01)
    state = comparison.start()
    for part in (slice(0, 30), slice(30, 60)):
        correct = prediction[part] == labels[part]
        state = comparison.update(
            state,
            top_label_brier(confidence[part], correct),
            top_label_brier(beside.confidence[part], beside.prediction[part] == labels[part]),
            order=counting_order(labels_of.order_key, world.plane.receipts.verify_all(ids[part])),
        )
    shadow = world.get(SHADOW)
    assert shadow["labels"] == 60
    assert shadow["better_log10"] == pytest.approx(comparison.better_log10(state), abs=1e-12)
    assert shadow["worse_log10"] == pytest.approx(comparison.worse_log10(state), abs=1e-12)


def test_evidence_outlives_the_process_and_is_shared(begin: Callable[..., World]) -> None:
    slow = {"poll_seconds": 3600.0, "shadow_alpha": 1e-30}
    here, there = begin(settings=slow), begin(settings=slow)
    here.declare()
    put(here, candidate(here))
    there.plane.services.replica_sync.sync()
    logits, labels = rows(24, 400, sharpness=2.5)
    _, _, _, ids = there.predict(logits)
    there.label(ids[:200], labels[:200].tolist())
    here.label(ids[200:300], labels[200:300].tolist())
    assert here.get(SHADOW) == there.get(SHADOW)
    assert here.get(SHADOW)["labels"] == 300
    here.plane.close()
    again = begin(settings=slow)
    assert again.deployments.current("m").candidate is not None
    again.label(ids[300:], labels[300:].tolist())
    assert again.get(SHADOW)["labels"] == 400
    assert again.call("DELETE", SHADOW).status_code == 204
    there.plane.services.replica_sync.sync()
    assert there.deployments.current("m").candidate is None


def test_another_promotion_supersedes_it(world: World) -> None:
    calibrator = candidate(world)
    put(world, calibrator)
    _, _, _, ids = world.predict(rows(25, 10)[0])
    assert world.promote(calibrator, 1).status_code == 200
    assert world.get(SHADOW)["state"] == "superseded"
    assert world.deployments.current("m").candidate is None
    # Receipts of the time before count for what was live, and score nothing.
    assert world.label(ids, [0] * 10).json()["accepted"] == 10
    assert world.get(SHADOW)["labels"] == 0


def test_an_upload_may_ask_for_the_shadow(world: World) -> None:
    report = world.upload(overconfident(), "?promote=shadow")
    assert (report["promoted"], report["revision"]) == (False, None)
    assert "shadow" in report["verdict"]["reasons"][-1]
    assert world.get(SHADOW)["calibrator"] == report["calibrator"]
    assert world.deployments.current("m").candidate is not None


def test_what_cannot_shadow_is_refused(sqlite_world: World) -> None:
    world = sqlite_world
    assert world.call("GET", SHADOW).status_code == 404
    assert world.call("DELETE", SHADOW).status_code == 404
    live = world.deployments.current("m").calibrator_id
    for body, status in (
        ({"calibrator": live}, 409),
        ({"calibrator": "smart-000000000000"}, 404),
        ({"calibrator": live, "policy": "hope"}, 422),
        ({}, 422),
    ):
        assert world.call("PUT", SHADOW, json=body).status_code == status, body
    assert world.call("PUT", "/v1/models/none/shadow", json={"calibrator": live}).status_code == 404


def test_the_same_again_changes_nothing_and_another_takes_its_place(sqlite_world: World) -> None:
    world = sqlite_world
    first = candidate(world)
    put(world, first)
    same = world.call("PUT", SHADOW, json={"calibrator": first})
    assert same.status_code == 200
    second = str(world.upload(overconfident(7), "?promote=never")["calibrator"])
    put(world, second)
    assert world.get(SHADOW)["calibrator"] == second
    shadow = world.deployments.current("m").candidate
    assert shadow is not None
    assert shadow.calibrator_id == second


def test_predicting_unlikely_classes_wins_nothing() -> None:
    """A class of probability 0.05 at confidence 0.05 has a tiny Brier score, and no merit."""
    rows = np.zeros(100, ROW)
    rows["confidence"] = 0.7
    rows["candidate"]["confidence"], rows["candidate"]["prediction"] = 0.05, 1
    receipts, label = (
        ReceiptColumns(rows, np.ones(100, np.bool_)),
        np.repeat([0, 1, 2], [70, 5, 25]),
    )
    counted = CountedLabels(
        receipts, label, np.arange(100, dtype=np.uint64), np.zeros(100, np.bool_)
    )
    live, other = losses(counted, role="candidate", changes_prediction=False)
    assert np.mean(other) < np.mean(live)
    live, other = losses(counted, role="candidate", changes_prediction=True)
    assert np.mean(other) > np.mean(live)
    assert other.max() <= 1.0
