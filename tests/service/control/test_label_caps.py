"""Labels of one key, and of one input, count up to a number a day."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from service.control.label_caps import LabelCaps
from tests.service.control.harness import World, rows

DAY = 86_400.0


def issue(world: World, n: int, group: int = 0) -> list[str]:
    """Receipts of predictions of class 0, of one input when a group is given."""
    live = world.deployments.current("m")
    assert live.revision is not None
    return world.plane.receipts.issue(
        model=live.served.model_digest,
        version=live.served.version,
        revision=live.revision,
        class_list=live.served.class_list_digest,
        prediction=np.zeros(n, np.int64),
        confidence=np.full(n, 0.9),
        group=group,
    )


def count(world: World, ids: list[str], by: str | None) -> list[str]:
    return world.plane.parts.labels.count("m", ids, [0] * len(ids), by=by)


def test_what_a_key_sends_beyond_its_limit_counts_on_another_day(
    begin: Callable[..., World],
) -> None:
    world = begin(settings={"labels_per_key": 5})
    world.declare()
    ids = issue(world, 8)
    assert count(world, ids[:3], "a") == ["accepted"] * 3
    # A duplicate is not charged, and what is capped is not used up.
    assert count(world, ids, "a") == [*["duplicate"] * 3, *["accepted"] * 2, *["capped"] * 3]
    assert count(world, ids[5:6], "b") == ["accepted"]
    assert count(world, ids[5:], "a") == ["duplicate", "capped", "capped"]
    assert world.get("/v1/models/m/calibration")["labels"] == 6
    world.clock.now += DAY
    assert count(world, ids[5:], "a") == ["duplicate", "accepted", "accepted"]
    assert {outcome for _, outcome, _, _ in world.counted} == {"accepted", "duplicate", "capped"}


def test_one_input_that_is_sent_again_and_again_counts_so_often(
    begin: Callable[..., World],
) -> None:
    world = begin(settings={"labels_per_input": 2})
    world.declare()
    same = issue(world, 3, group=2**64 - 1)
    other = issue(world, 2, group=7)
    alone = issue(world, 4)  # rows without a digest are inputs of their own
    assert count(world, [*same, *other, *alone], None) == [
        "accepted", "accepted", "capped", *["accepted"] * 6,
    ]  # fmt: skip
    assert count(world, [same[2], *issue(world, 1, group=7)], None) == ["capped", "capped"]
    restarted = begin(settings={"labels_per_input": 2}, clock=world.clock)
    assert count(restarted, [same[2]], None) == ["capped"]


def test_an_input_counts_anew_on_another_day_and_goes_on_in_a_later_request(
    begin: Callable[..., World],
) -> None:
    world = begin(settings={"labels_per_input": 3})
    world.declare()
    ids = issue(world, 9, group=5)
    assert count(world, ids[:2], None) == ["accepted"] * 2
    assert count(world, ids[2:5], None) == ["accepted", "capped", "capped"]
    world.clock.now += DAY
    assert count(world, ids[3:], None) == [*["accepted"] * 3, *["capped"] * 3]


def test_a_key_is_charged_for_what_counts_only(begin: Callable[..., World]) -> None:
    world = begin(settings={"labels_per_key": 3, "labels_per_input": 1})
    world.declare()
    same = issue(world, 3, group=7)
    assert count(world, same, "a") == ["accepted", "capped", "capped"]
    others = [issue(world, 1, group=group)[0] for group in (8, 9, 10)]
    assert count(world, [same[1], *others], "a") == ["capped", "accepted", "accepted", "capped"]
    # What the key could not have is no label of its input.
    assert count(world, others[2:], "b") == ["accepted"]


def test_the_route_charges_the_key_and_tells(begin: Callable[..., World]) -> None:
    world = begin(settings={"labels_per_key": 1})
    world.declare()
    answer = world.label(issue(world, 2), [0, 0]).json()
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    assert answer["outcomes"] == [{"index": 1, "outcome": "capped"}]


@pytest.mark.parametrize("caps", [LabelCaps(0, 0), LabelCaps(0, 1000), LabelCaps(1000, 0)])
def test_a_limit_of_zero_is_none(world: World, caps: LabelCaps) -> None:
    with world.plane.parts.store.write() as transaction:
        assert caps.take(transaction, "m", np.arange(5), by="a", day=1).all()


def test_counts_of_days_gone_by_are_forgotten(world: World) -> None:
    _, _, _, ids = world.predict(rows(5, 3)[0])
    count(world, ids, "a")
    assert world.plane.parts.retention.sweep().key_counts == 0
    world.clock.now += 2 * DAY
    assert world.plane.parts.retention.sweep().key_counts == 1


def test_rows_that_are_sent_with_their_labels_are_charged_too(begin: Callable[..., World]) -> None:
    world = begin(settings={"labels_per_key": 3})
    world.declare()
    sent = [
        {"id": f"r{index}", "logits": [0.0, 1.0, float(index)], "label": 1} for index in range(5)
    ]

    def send() -> list[str]:
        answer = world.call("POST", "/v1/models/m/labels", json={"rows": sent})
        assert answer.status_code == 200, answer.text
        return [each["outcome"] for each in answer.json()["outcomes"]]

    assert send() == ["capped"] * 2
    assert send() == [*["duplicate"] * 3, *["capped"] * 2]
    assert world.plane.parts.refit_window.size("m", 1) == (3, 3)
    world.clock.now += DAY
    assert send() == ["duplicate"] * 3
    assert world.plane.parts.refit_window.size("m", 1) == (5, 5)
