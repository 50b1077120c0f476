"""Labels with logits: each id counts once, and changes the refit window and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

from tests.trueprob_service.control.harness import START, WAIT, World, rows

pytestmark = pytest.mark.slow


def row(number: int, **more: object) -> dict[str, object]:
    return {"id": f"row {number}", "logits": [number, 0.5, -1], "label": number % 3, **more}


def send(world: World, rows: object, query: str = "", **headers: str) -> httpx.Response:
    return world.call("POST", f"/v1/models/m/labels{query}", json={"rows": rows}, headers=headers)


def sent(world: World, rows: object, query: str = "", **headers: str) -> Any:
    answer = send(world, rows, query, **headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def window(world: World) -> list[int]:
    found = world.plane.services.refit_window.read("m", 1)
    return [] if found is None else found.logits[:, 0].astype(int).tolist()


def test_rows_reach_the_window_and_no_statistic(world: World) -> None:
    rows = [row(0), row(1, label="1"), row(2, group="a"), row(3, group="a"), row(4, group=7)]
    assert sent(world, rows) == {"accepted": 5, "duplicate": 0, "rejected": 0, "outcomes": []}
    found = world.plane.services.refit_window.read("m", 1)
    assert found is not None
    assert found.labels.tolist() == [0, 1, 2, 0, 1]
    assert found.groups is not None
    assert found.groups.tolist() == [0, 1, 2, 2, 3]
    assert world.get("/v1/models/m/calibration")["labels"] == 0
    world.clock.now += 60
    assert sum(pair.totals.n for pair in world.plane.label_statistics().pairs) == 0
    assert world.counted == []  # labels_total counts labels of predictions only


def test_an_id_counts_once_in_a_request_across_requests_and_after_a_restart(
    begin: Callable[..., World],
) -> None:
    world = begin()
    world.declare()
    twice = sent(world, [row(1), row(1, logits=[9, 9, 9], label=2), row(2)])
    assert twice["outcomes"] == [{"index": 1, "outcome": "duplicate"}]
    assert sent(world, [row(3), row(2)])["outcomes"] == [{"index": 1, "outcome": "duplicate"}]
    world.plane.close()
    again = begin(clock=world.clock)
    assert sent(again, [row(1), row(2), row(3)])["duplicate"] == 3
    assert window(again) == [1, 2, 3]


def test_an_idempotency_key_is_ignored(world: World) -> None:
    key = {"idempotency-key": "one"}
    assert sent(world, [row(1)], **key)["accepted"] == 1
    assert sent(world, [row(2)], **key)["accepted"] == 1
    refused = send(world, [{"logits": [1, 0, 0], "label": 0}], **key)
    assert (refused.status_code, "rows[0].id is missing" in refused.text) == (422, True)


def test_ids_are_separate_for_each_model(world: World) -> None:
    world.declare("other")
    assert sent(world, [row(1)])["accepted"] == 1
    path = "/v1/models/other/labels"
    assert world.call("POST", path, json={"rows": [row(1)]}).json()["accepted"] == 1


def test_ids_are_remembered_for_a_receipts_life_and_while_the_row_is_there(
    begin: Callable[..., World],
) -> None:
    world = begin(settings={"receipt_ttl_seconds": 1000, "refit_window_rows": 2})
    world.declare()
    sent(world, [row(1), row(2), row(3)])
    assert window(world) == [2, 3]
    sweep = world.plane.services.retention.clean_up
    world.clock.now += 1299
    assert sweep().label_keys == 0
    assert sent(world, [row(1), row(3)])["duplicate"] == 2
    world.clock.now += 2
    assert sweep().label_keys == 3
    assert sent(world, [row(3), row(1)])["outcomes"] == [{"index": 0, "outcome": "duplicate"}]
    assert window(world) == [3, 1]


def test_a_clock_set_back_after_the_clean_up_counts_no_row_twice(
    begin: Callable[..., World],
) -> None:
    world = begin(settings={"receipt_ttl_seconds": 1000, "refit_window_rows": 1})
    world.declare()
    sent(world, [row(1), row(2)])
    world.clock.now += 1301
    assert world.plane.services.retention.clean_up().label_keys == 2
    for now in (START, START + 999):
        world.clock.now = now
        refused = sent(world, [row(1), row(3)])
        assert [each["outcome"] for each in refused["outcomes"]] == ["expired", "expired"]
    world.clock.now = START + 1001  # the time of the clean-up, less the tolerance between clocks
    assert sent(world, [row(3)])["accepted"] == 1


def test_labels_that_are_no_class(world: World) -> None:
    some = sent(world, [row(1, label=3), row(2, label="1"), row(3, label="no")])
    assert some["outcomes"] == [
        {"index": 0, "outcome": "unknown_class"},
        {"index": 2, "outcome": "unknown_class"},
    ]
    assert sent(world, [row(1)])["accepted"] == 1  # its id was not used up
    refused = send(world, [row(4, label=-1), row(5, label=3)])
    assert refused.status_code == 422
    assert "rows[0].label must be an integer 0..2" in refused.json()["detail"]
    assert window(world) == [2, 1]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({}, "rows must be a list, got an object"),
        ([[]], "rows[0] must be an object with id, logits and label, got a list"),
        ([row(1), {"logits": [1, 2, 3], "label": 0}], "rows[1].id is missing"),
        ([row(1, id=None)], "rows[0].id must be a text of 1 to 200, got null"),
        ([row(1, id="")], "rows[0].id must be a text of 1 to 200, got 0 characters"),
        ([row(1, id="x" * 201)], "got 201 characters"),
        ([row(1, x=1)], "rows[0] has an unknown field 'x'"),
        ([{"id": "a", "label": 1}], "rows[0].logits is missing"),
        ([{"id": "a", "logits": [1, 2, 3]}], "rows[0].label is missing"),
        ([row(1, label=True)], "rows[0].label must be an integer"),
        ([row(1, label=1.0)], "rows[0].label must be an integer"),
        ([row(1, group=1.5)], "rows[0].group must be an integer or a text, got a fraction"),
        ([row(1, group=None)], "rows[0].group must be an integer or a text, got null"),
        ([row(1, logits="123")], "rows[0].logits must be a list of numbers, got a text"),
        ([row(1), row(2, logits=[1, 2])], "rows[1].logits must have 3 numbers, got 2"),
        ([row(1), row(2, logits=[1, 2, True])], "rows[1].logits[2] must be a number, got a bool"),
        ([row(1), row(2, logits=[1, None, 3])], "rows[1].logits[1] must be a number, got null"),
        ([row(1), row(2, logits=[1, "2", 3])], "rows[1].logits[1] must be a number, got a text"),
        ([row(1), row(2, logits=[1, [2], 3])], "rows[1].logits[1] must be a number, got a list"),
        ([row(1), row(2, logits=[1, 1e39, 3])], "rows[1].logits must be finite in float32"),
        ([row(1)] * 100_001, "rows must be at most 100000, got 100001"),
    ],
)
def test_rows_that_cannot_be_used_name_their_field_and_nothing_is_taken(
    shared_world: World, rows: object, words: str
) -> None:
    refused = send(shared_world, rows)
    assert refused.status_code == 422
    assert words in refused.json()["detail"]
    assert window(shared_world) == []


def test_requests_that_cannot_be_used(shared_world: World) -> None:
    assert send(shared_world, [row(1)], "?version=2").status_code == 404
    unknown = shared_world.call("POST", "/v1/models/no/labels", json={"rows": [row(1)]})
    assert unknown.status_code == 404
    both = {"rows": [], "prediction_ids": [], "labels": []}
    assert shared_world.call("POST", "/v1/models/m/labels", json=both).status_code == 422
    version = {"prediction_ids": [], "labels": []}
    refused = shared_world.call("POST", "/v1/models/m/labels?version=1", json=version)
    assert refused.status_code == 422
    assert "version" in refused.json()["detail"]
    assert sent(shared_world, [])["accepted"] == 0


def test_the_same_rows_from_several_threads_count_once(world: World) -> None:
    accepted: list[int] = []
    barrier = threading.Barrier(4)

    def work(step: int) -> None:
        barrier.wait()
        accepted.append(sent(world, [row(number) for number in range(60)][::step])["accepted"])

    threads = [threading.Thread(target=work, args=(step,)) for step in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(accepted) == 60
    assert sorted(window(world)) == list(range(60))


def test_a_thousand_rows_are_what_they_were(sqlite_world: World) -> None:
    logits = np.random.default_rng(3).normal(0, 4, (1000, 3)).astype(np.float32)
    rows = [
        {"id": str(index), "logits": values, "label": index % 3}
        for index, values in enumerate(logits.tolist())
    ]
    assert sent(sqlite_world, rows)["accepted"] == 1000
    found = sqlite_world.plane.services.refit_window.read("m", 1)
    assert found is not None
    np.testing.assert_array_equal(found.logits, logits)


def test_the_window_can_be_fitted_by_hand(world: World) -> None:
    body = {"source": "refit-window", "method": "temperature"}
    path = "/v1/models/m/fits"
    empty = world.call("POST", path, json=body)
    assert empty.status_code == 409
    assert "send labels as rows to fill it" in empty.json()["detail"]
    logits, labels = rows(3, 400, sharpness=3.0)
    of = [
        {"id": str(index), "logits": values, "label": int(label)}
        for index, (values, label) in enumerate(zip(logits.tolist(), labels, strict=True))
    ]
    sent(world, of[:300])
    answer = world.call("POST", path, json=body, headers=WAIT)
    assert answer.status_code == 201, answer.text
    report = answer.json()
    assert (report["state"], report["n"], report["promoted"]) == ("done", 300, True)
    stored = f"/v1/models/m/calibration-sets/{report['calibration_set']}"
    assert world.get(stored)["n"] == 300
    again = world.call("POST", path, json=body, headers=WAIT).json()
    assert (again["fit"], again["n"]) == (report["fit"], 300)
    sent(world, of[300:])
    assert world.call("POST", path, json=body, headers=WAIT).json()["n"] == 400


def test_a_fit_is_of_a_set_or_of_the_window(shared_world: World) -> None:
    for body in ({}, {"calibration_set": "a", "source": "refit-window"}, {"source": "elsewhere"}):
        answer = shared_world.call("POST", "/v1/models/m/fits", json=body)
        assert answer.status_code == 422
        assert "source" in answer.text
