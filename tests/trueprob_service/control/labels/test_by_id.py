"""Labels by the callers' own ids: the same as labels by receipt, each id once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.trueprob_service.control.harness import World, overconfident, rows, settings_in, start
from tests.waiting import wait_until
from trueprob_service.control.labels.by_receipt import CLOCK_TOLERANCE_SECONDS
from trueprob_service.control.store.tables import label_key

pytestmark = pytest.mark.slow

DAY = 86_400.0


def named(n: int, start: int = 0) -> list[str]:
    return [f"order-{number}" for number in range(start, start + n)]


def tables_of_labels(world: World) -> dict[str, list[object]]:
    """All rows that labels change, of tables that do not name the way of a label."""
    names = ("bin_total", "bin_running", "window_block", "alarm_state", "group_count", "shadow")
    with world.plane.services.store.read() as transaction:
        return {name: sorted(map(str, transaction.state.rows(name))) for name in names}


@pytest.fixture(params=["sqlite", "postgresql"])
def two_databases(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Two empty databases of one kind."""
    if request.param == "postgresql":
        new = request.getfixturevalue("new_postgres_url")
        return [new(), new()]
    return [f"sqlite:///{tmp_path / name}.sqlite3" for name in ("a", "b")]


def test_labels_by_id_are_labels_by_receipt_to_the_bit(
    two_databases: list[str], tmp_path: Path
) -> None:
    """Several requests, copies of inputs, a promotion in between, and a predecessor in shadow."""
    found: list[object] = []
    logits, labels = rows(3, 700, sharpness=2.5)
    logits[650:] = logits[300:350]  # copies of an input share their group
    for url, by_id in zip(two_databases, (False, True), strict=True):
        world = start(settings_in(tmp_path, database_url=url, labels_per_input=1))
        world.plane.services.receipt_labels.order_key = b"the same for both"
        world.plane.receipts.process = bytes(16)  # the order of labels depends on the nonces
        world.declare()
        receipts = world.predict_with_ids(logits[:300], named(300))
        assert world.upload(overconfident())["promoted"]
        receipts += world.predict_with_ids(logits[300:], named(400, 300))
        for part in (slice(0, 1), slice(200, 500), slice(1, 200), slice(500, 700)):
            if by_id:
                outcomes = world.label_by_id(named(700)[part], labels[part].tolist())
            else:
                answer = world.label(receipts[part], labels[part].tolist()).json()
                outcomes = [each["outcome"] for each in answer["outcomes"]]
                outcomes += ["accepted"] * answer["accepted"]
            found.append(sorted(outcomes))
        found.append(tables_of_labels(world))
        world.plane.close()
    assert found[:5] == found[5:]
    assert "capped" in str(found[:4])


def test_an_id_counts_once_by_id_and_by_receipt_also_after_a_restart(
    begin: Callable[..., World],
) -> None:
    world = begin()
    world.declare()
    logits, labels = rows(6, 4)
    given = labels.tolist()
    receipts = world.predict_with_ids(logits, named(4))
    assert world.label_by_id(named(2), given[:2]) == ["accepted"] * 2
    assert world.label(receipts[:3], given[:3]).json()["duplicate"] == 2
    assert world.label_by_id(named(3), given[:3]) == ["duplicate"] * 3
    world.plane.close()
    restarted = begin(clock=world.clock)
    assert restarted.label_by_id(named(4), given) == [*["duplicate"] * 3, "accepted"]


def test_another_label_for_an_id_is_a_conflict_and_the_first_stays(world: World) -> None:
    logits, _ = rows(7, 4)
    world.predict_with_ids(logits, named(4))
    twice = world.label_by_id([*named(3), "order-0", "order-1"], [0, 1, 2, 0, 2])
    assert twice == ["accepted", "accepted", "accepted", "duplicate", "conflict"]
    assert world.label_by_id(named(4), [1, 1, 1, 1]) == [
        "conflict", "duplicate", "conflict", "accepted",
    ]  # fmt: skip
    assert world.label_by_id(["order-2"], ["2"]) == ["duplicate"]  # the name of class 2


def test_a_label_that_did_not_count_leaves_no_claim(begin: Callable[..., World]) -> None:
    """Capped today, it counts tomorrow, with whatever label it has then."""
    world = begin(settings={"labels_per_input": 1})
    world.declare()
    logits = np.repeat(rows(8, 1)[0], 3, axis=0)
    world.predict_with_ids(logits, named(3))
    assert world.label_by_id(["order-0"], [0]) == ["accepted"]
    assert world.label_by_id(["order-1", "order-1"], [0, 1]) == ["capped", "duplicate"]
    world.clock.now += DAY
    assert world.label_by_id(["order-1"], [1]) == ["accepted"]


def test_of_several_predictions_of_an_id_the_latest_gets_the_label(world: World) -> None:
    logits = np.array([[9, 0, 0], [0, 9, 0], [0, 0, 9]], np.float32)
    for row, place in zip(logits, ("flushed", "flushed", "not"), strict=True):
        world.clock.now += 1.0
        world.predict_with_ids(row[np.newaxis], ["order"])
        if place == "flushed":
            memory = world.plane.services.memory
            assert memory is not None
            assert memory.flush()
    assert world.label_by_id(["order"], [2]) == ["replaced"]
    (pair,) = world.plane.label_statistics().pairs
    assert (pair.totals.n, pair.totals.accuracy()) == (1, 1.0)  # the one that said class 2
    assert ("m", "replaced", 1, [0.0]) in world.counted
    # Once a label has counted, another prediction of the id is no other outcome.
    world.predict_with_ids(logits[:1], ["order"])
    assert world.label_by_id(["order", "order"], [2, 0]) == ["duplicate", "conflict"]


def test_outcomes_that_do_not_count(begin: Callable[..., World]) -> None:
    world = begin(settings={"remember_ttl_seconds": 3 * DAY, "receipt_ttl_seconds": 2 * DAY})
    world.declare()
    world.declare("other")
    logits, _ = rows(9, 6)
    world.predict_with_ids(logits, named(6))
    assert world.label_by_id(["order-0", "nobody"], [0, 0]) == ["accepted", "unknown_id"]
    assert world.label_by_id(["order-1"], [0], model="other") == ["unknown_id"]
    assert world.label_by_id(["order-1", "order-2"], [7, 1]) == ["unknown_class", "accepted"]
    world.clock.now += 2 * DAY + 1
    assert world.label_by_id(["order-3"], [0]) == ["expired"]
    world.clock.now += DAY
    assert world.label_by_id(["order-3"], [0]) == ["unknown_id"]
    outcomes = {(model, outcome) for model, outcome, _, _ in world.counted}
    assert {("m", "unknown_id"), ("other", "unknown_id"), ("m", "expired")} <= outcomes


def test_requests_that_are_refused_name_the_field(shared_world: World) -> None:
    def refused(body: object, query: str = "") -> str:
        answer = shared_world.call("POST", f"/v1/models/m/labels{query}", json=body)
        assert answer.status_code == 422, answer.text
        detail = answer.json()["detail"]
        assert isinstance(detail, str)
        return detail

    assert refused({"ids": ["a"], "labels": []}) == "labels must be as many as ids, 1, got 0"
    assert refused({"ids": ["a", ""], "labels": [0, 1]}) == (
        "ids[1] must have 1 to 128 characters, got 0"
    )
    assert refused({"ids": ["x" * 129], "labels": [0]}) == (
        "ids[0] must have 1 to 128 characters, got 129"
    )
    assert refused({"ids": ["a\nb"], "labels": [0]}) == (
        "ids[0] must have no control characters, got 'a\\nb'"
    )
    assert refused({"ids": [True], "labels": [0]}) == (
        "ids[0] must be a text or an integer, got a boolean"
    )
    assert refused({"ids": "a", "labels": [0]}) == "ids must be a list, got a text"
    assert refused({"labels": [{"id": "a", "label": 1}, {"id": "b"}]}) == (
        "labels[1] must be an object with id and label, got id"
    )
    assert refused({"labels": [{"id": 1.5, "label": 1}]}) == (
        "labels[0].id must be a text or an integer, got a fraction"
    )
    assert refused({"labels": [{"id": "a", "label": 1.5}]}).startswith("labels[0].label must be")
    assert refused({"labels": [0]}) == "labels[0] must be an object with id and label, got a number"
    assert refused({"ids": ["a"], "labels": [0]}, "?version=1").startswith("version is only")
    too_many = {"labels": [{"id": "a", "label": 1}] * 100_001}
    assert refused(too_many) == "labels must be at most 100000, got 100001"
    assert (
        shared_world.call(
            "POST", "/v1/models/nobody/labels", json={"ids": ["a"], "labels": [0]}
        ).status_code
        == 404
    )
    all_unknown = refused({"ids": ["a"], "labels": [3]}, "?wait=0")
    assert all_unknown.startswith("labels[0] must be an integer 0..2")


def test_ids_of_a_service_that_remembers_nothing_are_refused(begin: Callable[..., World]) -> None:
    world = begin(settings={"remember_ttl_seconds": 0})
    world.declare()
    assert world.plane.identified is None
    answer = world.call("POST", "/v1/models/m/labels", json={"ids": ["a"], "labels": [0]})
    assert answer.status_code == 422
    assert "remember_ttl_seconds is 0" in answer.json()["detail"]


def test_integers_and_texts_of_their_digits_are_one_id(world: World) -> None:
    world.predict_with_ids(rows(1, 2)[0], ["17", "18"])
    answer = world.call(
        "POST", "/v1/models/m/labels?wait=0",
        json={"labels": [{"id": 17, "label": 0}, {"id": "18", "label": 1}]},
    )  # fmt: skip
    assert answer.json()["accepted"] == 2


def test_an_id_that_another_replica_is_about_to_write_is_found(
    begin: Callable[..., World],
) -> None:
    """A labels request looks again until the prediction is there."""
    answering, labelling = begin(settings={"remember_flush_seconds": 60}), None
    answering.declare()
    labelling = begin(clock=answering.clock)
    answering.predict_with_ids(rows(2, 1)[0], ["late"])
    memory = answering.plane.services.memory
    assert memory is not None
    assert labelling.label_by_id(["late"], [0]) == ["unknown_id"]
    writing = threading.Timer(0.3, memory.flush)
    writing.start()
    assert labelling.label_by_id(["late"], [0], wait=5.0) == ["accepted"]
    writing.join()


def test_a_hundred_thousand_labels_in_one_request(sqlite_world: World) -> None:
    world = sqlite_world
    n = 100_000
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(n, 3)).astype(np.float32)
    for first in range(0, n, 10_000):
        world.predict_with_ids(logits[first : first + 10_000], named(10_000, first))
    shuffled = rng.permutation(n)
    ids = [f"order-{number}" for number in shuffled.tolist()]
    labels = rng.integers(0, 3, n)
    outcomes = world.label_by_id(ids, labels.tolist())
    assert set(outcomes) == {"accepted"}
    right = logits.argmax(axis=1)[shuffled] == labels
    # On a busy machine the canary takes so long a transaction for one that hangs.
    wait_until(lambda: world.plane.services.store.fault is None, "the canary")
    with world.plane.services.store.read() as transaction:
        bins = list(transaction.state.rows("bin_running"))
    assert sum(each["count"] for each in bins) == n
    assert sum(each["correct"] for each in bins) == np.count_nonzero(right)


def test_masked_logits_are_remembered(world: World) -> None:
    logits = np.array([[1, -np.inf, 0], [0, 2, -np.inf]], np.float32)
    world.predict_with_ids(logits, named(2))
    assert world.label_by_id(named(2), [0, 1]) == ["accepted"] * 2


def test_the_candidate_in_shadow_is_scored_by_labels_by_id(world: World) -> None:
    report = world.upload(overconfident(), "?promote=never")
    body = {"calibrator": report["calibrator"], "policy": "tell"}
    assert world.call("PUT", "/v1/models/m/shadow", json=body).status_code < 300
    logits, labels = rows(4, 40, sharpness=2.5)
    world.predict_with_ids(logits, named(40))
    assert world.label_by_id(named(40), labels.tolist()) == ["accepted"] * 40
    assert world.get("/v1/models/m/shadow")["labels"] == 40


def test_keys_of_ids_are_deleted_like_those_of_receipts(world: World) -> None:
    world.predict_with_ids(rows(1, 2)[0], named(2))
    assert world.label_by_id(named(2), [0, 1]) == ["accepted"] * 2
    assert n_keys(world) == 4  # two of the predictions, two of the ids
    world.clock.now += world.settings.receipt_ttl_seconds + CLOCK_TOLERANCE_SECONDS + 1
    world.plane.services.retention.clean_up()
    assert n_keys(world) == 0


def n_keys(world: World) -> int:
    with world.plane.services.store.read() as transaction:
        return len(list(transaction.state.rows(label_key.name)))


def test_a_deleted_model_forgets_its_ids(world: World) -> None:
    world.predict_with_ids(rows(1, 2)[0], named(2))
    assert world.label_by_id(["order-0"], [0]) == ["accepted"]
    answer = world.call("DELETE", "/v1/models/m", headers={"if-match": '"1"'})
    assert answer.status_code == 204
    world.declare()
    assert world.label_by_id(named(2), [0, 0]) == ["unknown_id"] * 2
    world.predict_with_ids(rows(1, 2)[0], named(2))
    assert world.label_by_id(named(2), [0, 0]) == ["accepted"] * 2


def test_the_verdict_knows_labels_by_id(world: World) -> None:
    logits, labels = rows(5, 400)
    world.predict_with_ids(logits, named(400))
    assert set(world.label_by_id(named(400), labels.tolist())) == {"accepted"}
    calibration = world.get("/v1/models/m/calibration")
    assert calibration["labels"] == calibration["verdict"]["labels"] == 400


def test_two_requests_at_once_count_an_id_once(world: World) -> None:
    logits, labels = rows(5, 200)
    world.predict_with_ids(logits, named(200))
    outcomes: list[Sequence[str]] = []

    def send() -> None:
        outcomes.append(world.label_by_id(named(200), labels.tolist()))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in zip(*outcomes, strict=True):
        assert sorted(each) == ["accepted", *["duplicate"] * 3]
