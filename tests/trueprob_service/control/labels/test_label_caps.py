"""The daily cap of labels of one input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.trueprob_service.control.harness import World
from trueprob_service.control.labels.counting import within_cap

DAY = 86_400.0


def issue(world: World, n: int, group: int = 0) -> list[str]:
    """Receipts of predictions of class 0; with a group, all of one input."""
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


def count(world: World, ids: list[str]) -> list[str]:
    return world.plane.services.receipt_labels.count("m", ids, [0] * len(ids))


def test_one_input_that_is_sent_again_and_again_counts_so_often(
    begin: Callable[..., World],
) -> None:
    world = begin(settings={"labels_per_input": 2})
    world.declare()
    same = issue(world, 3, group=2**64 - 1)
    other = issue(world, 2, group=7)
    alone = issue(world, 4)  # each row without a digest is another input
    assert count(world, [*same, *other, *alone]) == [
        "accepted", "accepted", "capped", *["accepted"] * 6,
    ]  # fmt: skip
    assert count(world, [same[2], *issue(world, 1, group=7)]) == ["capped", "capped"]
    restarted = begin(settings={"labels_per_input": 2}, clock=world.clock)
    assert count(restarted, [same[2]]) == ["capped"]


def test_an_input_counts_anew_on_another_day_and_goes_on_in_a_later_request(
    begin: Callable[..., World],
) -> None:
    world = begin(settings={"labels_per_input": 3})
    world.declare()
    ids = issue(world, 9, group=5)
    assert count(world, ids[:2]) == ["accepted"] * 2
    assert count(world, ids[2:5]) == ["accepted", "capped", "capped"]
    world.clock.now += DAY
    assert count(world, ids[3:]) == [*["accepted"] * 3, *["capped"] * 3]


def test_the_route_reports_capped_labels(begin: Callable[..., World]) -> None:
    world = begin(settings={"labels_per_input": 1})
    world.declare()
    answer = world.label(issue(world, 2, group=7), [0, 0]).json()
    assert (answer["accepted"], answer["rejected"]) == (1, 1)
    assert answer["outcomes"] == [{"index": 1, "outcome": "capped"}]
    assert {outcome for _, outcome, _, _ in world.counted} == {"accepted", "capped"}


@pytest.mark.parametrize("per_input", [0, 1000])
def test_a_limit_of_zero_is_no_limit(per_input: int) -> None:
    assert within_cap(np.arange(5), per_input=per_input).all()


def test_rows_that_are_sent_with_their_labels_are_capped_too(begin: Callable[..., World]) -> None:
    world = begin(settings={"labels_per_input": 3})
    world.declare()
    sent = [{"id": f"r{index}", "logits": [0.0, 1.0, 2.0], "label": 1} for index in range(5)]

    def send() -> list[str]:
        answer = world.call("POST", "/v1/models/m/labels", json={"rows": sent})
        assert answer.status_code == 200, answer.text
        return [each["outcome"] for each in answer.json()["outcomes"]]

    assert send() == ["capped"] * 2
    assert send() == [*["duplicate"] * 3, *["capped"] * 2]
    assert world.plane.services.refit_window.size("m", 1) == (3, 3)
    world.clock.now += DAY
    assert send() == ["duplicate"] * 3
    assert world.plane.services.refit_window.size("m", 1) == (5, 5)
