"""A new receipt secret in front of the others, through the whole control plane."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.trueprob_service.control.harness import World, rows

OLD, NEW, NEWEST = "the first of three secrets", "the second of three secrets", "the third of them"
NEVER = {"poll_seconds": 3600.0}


def predicted(world: World, n: int = 4) -> list[str]:
    *_, ids = world.predict(rows(7, n)[0])
    return ids


def outcomes(world: World, ids: list[str]) -> list[str]:
    answer = world.label(ids, [0] * len(ids)).json()
    told = {each["index"]: each["outcome"] for each in answer["outcomes"]}
    return [told.get(index, "accepted") for index in range(len(ids))]


@pytest.mark.slow
def test_what_an_older_secret_signed_counts_once_until_the_secret_is_removed(
    begin: Callable[..., World],
) -> None:
    world = begin(settings={"receipt_secrets": OLD, **NEVER})
    world.declare()
    counted, later, too_late = predicted(world), predicted(world), predicted(world)
    assert outcomes(world, counted) == ["accepted"] * 4
    world.plane.close()

    rotated = begin(settings={"receipt_secrets": f"{NEW},{OLD}", **NEVER}, clock=world.clock)
    new = predicted(rotated)
    assert outcomes(rotated, counted) == ["duplicate"] * 4
    assert outcomes(rotated, [*later, *new]) == ["accepted"] * 8
    assert outcomes(rotated, [*later, *new]) == ["duplicate"] * 8
    rotated.plane.close()

    removed = begin(settings={"receipt_secrets": f"{NEWEST},{NEW}", **NEVER}, clock=world.clock)
    assert outcomes(removed, [*too_late, *later]) == ["forged"] * 8
    assert outcomes(removed, new) == ["duplicate"] * 4
    assert outcomes(removed, predicted(removed)) == ["accepted"] * 4
    counts = [(outcome, n) for _, outcome, n, _ in removed.counted]
    assert counts[0] == ("forged", 8)


def test_a_process_that_does_not_know_a_secret_refuses_its_labels_and_no_others(
    begin: Callable[..., World],
) -> None:
    here = begin(settings={"receipt_secrets": OLD, **NEVER})
    here.declare()
    older = predicted(here)
    there = begin(settings={"receipt_secrets": f"{NEW},{OLD}", **NEVER})
    newer = predicted(there)
    assert outcomes(here, [*newer, *older]) == ["forged"] * 4 + ["accepted"] * 4
    assert outcomes(there, newer) == ["accepted"] * 4
