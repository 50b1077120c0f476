"""Labels by receipt: each counts once, for its promotion, and every outcome is reported."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from sqlalchemy import select

from tests.trueprob_service.control.harness import START, World, overconfident, rows
from trueprob.scores.binned import BinnedCalibration
from trueprob_service.control.labels.by_receipt import CLOCK_TOLERANCE_SECONDS, NO_CLASS, ClassList
from trueprob_service.control.store.tables import label_key
from trueprob_service.metrics.label_statistics import PairStatistics

pytestmark = pytest.mark.slow


def live_totals(world: World) -> PairStatistics:
    world.clock.now += 60.0  # readings are cached for a few seconds
    (pair,) = [pair for pair in world.plane.label_statistics().pairs if pair.live]
    return pair


def assert_same_sums(got: BinnedCalibration, expected: BinnedCalibration) -> None:
    for name in ("count", "confidence", "correct", "variance"):
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=0, atol=1e-12)


def test_sums_are_those_of_the_library_on_the_same_data(world: World) -> None:
    logits, labels = rows(5, 500)
    _, confidence, prediction, ids = world.predict(logits)
    for part in (slice(0, 300), slice(300, 500)):
        answer = world.label(ids[part], labels[part].tolist())
        assert answer.json()["accepted"] == len(ids[part])
    pair = live_totals(world)
    assert_same_sums(pair.totals, BinnedCalibration.of(confidence, prediction == labels))
    assert_same_sums(pair.window, pair.totals)


def test_a_label_counts_once_in_a_request_across_requests_and_after_a_restart(
    begin: Callable[..., World],
) -> None:
    world = begin()
    world.declare()
    logits, labels = rows(6, 3)
    _, _, _, ids = world.predict(logits)
    twice = world.label([ids[0], ids[0], ids[1]], [int(labels[0])] * 3)
    assert twice.json() == {
        "accepted": 2,
        "duplicate": 1,
        "rejected": 0,
        "outcomes": [{"index": 1, "outcome": "duplicate"}],
    }
    again = world.label(ids, labels.tolist())
    assert (again.json()["accepted"], again.json()["duplicate"]) == (1, 2)
    totals = live_totals(world).totals
    world.plane.close()
    restarted = begin(clock=world.clock)
    after = restarted.label(ids, labels.tolist())
    assert after.json() == {
        "accepted": 0,
        "duplicate": 3,
        "rejected": 0,
        "outcomes": [{"index": index, "outcome": "duplicate"} for index in range(3)],
    }
    assert_same_sums(live_totals(restarted).totals, totals)


def test_labels_land_on_the_promotion_that_predicted(world: World) -> None:
    logits, labels = rows(7, 50)
    before, _, _, ids = world.predict(logits)
    report = world.upload(overconfident())
    assert report["promoted"]
    assert world.label(ids, labels.tolist()).json()["accepted"] == 50
    world.clock.now += 60.0
    pairs = {pair.calibrator: pair for pair in world.plane.label_statistics().pairs}
    assert pairs[before.calibrator_id].totals.n == 50
    assert not pairs[before.calibrator_id].live
    assert pairs[report["calibrator"]].totals.n == 0
    assert pairs[report["calibrator"]].live
    assert world.get("/v1/models/m/calibration")["labels"] == 0
    # Replaced longer ago than a receipt is valid: no label can arrive any more.
    world.clock.now += world.settings.receipt_ttl_seconds
    assert [pair.live for pair in world.plane.label_statistics().pairs] == [True]


def test_every_outcome_is_reported_by_index_and_counted(world: World) -> None:
    world.declare("other")
    logits, _ = rows(8, 6)
    _, _, _, ids = world.predict(logits)
    _, _, _, foreign = world.predict(logits[:1], model="other")
    world.clock.now = START + world.settings.receipt_ttl_seconds + 1
    _, _, _, late = world.predict(logits[:3])
    served = world.deployments.current("m").served
    superseded = world.plane.receipts.issue(
        model=served.model_digest,
        version=1,
        revision=1,
        class_list=bytes(8),
        prediction=np.array([0]),
        confidence=np.array([0.5]),
    )
    gone = world.plane.receipts.issue(
        model=served.model_digest,
        version=1,
        revision=99,
        class_list=served.class_list_digest,
        prediction=np.array([0]),
        confidence=np.array([0.5]),
    )
    changed = late[2][:-1] + ("A" if late[2][-1] != "A" else "B")
    sent = [ids[0], late[0], late[0], late[1], foreign[0], superseded[0], gone[0], changed, "x"]
    sent.append(ids[1])
    answer = world.label(sent, [0, 0, 0, "no such class", 0, 0, 0, 0, 0, "no such class"])
    assert answer.json() == {
        "accepted": 1,
        "duplicate": 1,
        "rejected": 8,
        "outcomes": [
            {"index": 0, "outcome": "expired"},
            {"index": 2, "outcome": "duplicate"},
            {"index": 3, "outcome": "unknown_class"},
            {"index": 4, "outcome": "foreign"},
            {"index": 5, "outcome": "superseded"},
            {"index": 6, "outcome": "superseded"},
            {"index": 7, "outcome": "forged"},
            {"index": 8, "outcome": "forged"},
            {"index": 9, "outcome": "expired"},
        ],
    }
    assert {(outcome, n) for _, outcome, n, _ in world.counted} == {
        ("accepted", 1),
        ("duplicate", 1),
        ("expired", 2),
        ("unknown_class", 1),
        ("foreign", 1),
        ("superseded", 2),
        ("forged", 2),
    }
    lags = [lag for _, outcome, _, of in world.counted for lag in of if outcome == "accepted"]
    assert lags == [0.0]


def test_labels_of_all_kinds_are_resolved_as_each_alone() -> None:
    classes = ClassList(1, {"a": 0, "b": 1, "1": 2})
    given = [0, 2, 3, -1, 2**63 - 1, "a", "1", "", "c"]
    alone = [int(classes.resolve([label])[0]) for label in given]
    assert alone == [0, 2, NO_CLASS, NO_CLASS, NO_CLASS, 0, 2, NO_CLASS, NO_CLASS]
    assert classes.resolve(given).tolist() == alone
    assert classes.resolve(given[:5]).tolist() == alone[:5]
    assert classes.resolve([2**64 - 1, 1]).tolist() == [NO_CLASS, 1]  # JSON's largest integer
    assert classes.resolve([]).tolist() == []


def test_labels_of_several_promotions_in_one_request_go_to_their_own(world: World) -> None:
    logits, labels = rows(18, 60)
    _, _, prediction, before = world.predict(logits[:30])
    world.upload(overconfident(), "?promote=always")
    _, _, later, after = world.predict(logits[30:])
    mixed = [text for pair in zip(before, after, strict=True) for text in pair]
    truth = [int(y) for pair in zip(labels[:30], labels[30:], strict=True) for y in pair]
    answer = world.label([*mixed, mixed[0]], [*truth, truth[0]]).json()
    assert (answer["accepted"], answer["duplicate"]) == (60, 1)
    right = {1: prediction == labels[:30], 2: later == labels[30:]}
    with world.plane.services.store.read() as transaction:
        for revision, correct in right.items():
            promotion = transaction.promotions.get("m", revision)
            assert promotion is not None
            sums = transaction.bins.running()["m", 1, promotion.calibrator].labels
            assert (sums.n, sums.correct.sum()) == (30, correct.sum())


def test_a_used_nonce_is_stored_longer_than_its_receipt_is_valid(world: World) -> None:
    logits, _ = rows(8, 1)
    _, _, _, ids = world.predict(logits)
    world.label(ids, [0])
    with world.plane.services.store._engine.connect() as connection:
        kept = connection.execute(select(label_key.c.expires_at)).scalar_one()
    assert kept == START + world.settings.receipt_ttl_seconds + CLOCK_TOLERANCE_SECONDS


def test_a_request_of_unknown_classes_only_is_refused_and_counts_nothing(world: World) -> None:
    logits, labels = rows(9, 2)
    _, _, _, ids = world.predict(logits)
    for wrong, shown in ((10, "10"), (-1, "-1"), ("seven", "'seven'")):
        answer = world.label(ids, [wrong, 3])
        assert answer.status_code == 422
        assert "labels[0]" in answer.json()["detail"]
        assert "0..2" in answer.json()["detail"]
        assert shown in answer.json()["detail"]
    assert world.label(ids, labels.tolist()).json()["accepted"] == 2


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"prediction_ids": ["a", "b"], "labels": [0, True]}, 422, "labels[1]"),
        ({"prediction_ids": ["a"], "labels": [0.0]}, 422, "labels[0]"),
        ({"prediction_ids": ["a"], "labels": [None]}, 422, "labels[0]"),
        ({"prediction_ids": ["a"], "labels": [[0]]}, 422, "labels[0]"),
        ({"prediction_ids": [5], "labels": [0]}, 422, "prediction_ids[0]"),
        ({"prediction_ids": ["a"], "labels": []}, 422, "labels"),
        ({"prediction_ids": "a", "labels": [0]}, 422, "prediction_ids"),
        ({"prediction_ids": []}, 422, "labels"),
        ({"prediction_ids": ["a"] * 100_001, "labels": [0] * 100_001}, 422, "100000"),
    ],
)
def test_a_body_that_cannot_be_used_names_its_field(
    shared_world: World, body: object, status: int, word: str
) -> None:
    answer = shared_world.call("POST", "/v1/models/m/labels", json=body)
    assert answer.status_code == status
    assert word in answer.json()["detail"]


def test_bodies_that_are_not_json(shared_world: World) -> None:
    for content, kind, status in (
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"{}", "text/csv", 415),
    ):
        answer = shared_world.call(
            "POST", "/v1/models/m/labels", content=content, headers={"content-type": kind}
        )
        assert answer.status_code == status


def test_an_empty_list_of_labels_is_accepted(shared_world: World) -> None:
    assert shared_world.label([], []).json() == {
        "accepted": 0,
        "duplicate": 0,
        "rejected": 0,
        "outcomes": [],
    }


def test_the_same_labels_from_several_threads_count_once(world: World) -> None:
    logits, labels = rows(10, 400)
    _, confidence, prediction, ids = world.predict(logits)
    accepted: list[int] = []
    barrier = threading.Barrier(4)

    def send(step: int) -> None:
        barrier.wait()
        # In opposite orders, so statements that lock row by row would deadlock.
        answer = world.label(ids[::step], labels[::step].tolist())
        accepted.append(answer.json()["accepted"])

    threads = [threading.Thread(target=send, args=(step,)) for step in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(accepted) == 400
    expected = BinnedCalibration.of(confidence, prediction == labels)
    assert_same_sums(live_totals(world).totals, expected)


@pytest.mark.slow
def test_a_request_of_many_labels(sqlite_world: World) -> None:
    logits, labels = rows(11, 20_000)
    _, _, _, ids = sqlite_world.predict(logits)
    assert sqlite_world.label(ids, labels.tolist()).json()["accepted"] == 20_000
    assert sqlite_world.label(ids, labels.tolist()).json()["duplicate"] == 20_000
