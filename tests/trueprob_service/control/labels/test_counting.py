"""The tally of groups: how many labels of each counted before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from trueprob_service.control.labels.counting import GroupTally
from trueprob_service.control.store import Store, open_store

LARGEST = 2**64 - 1


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.mark.parametrize("most", [12, 400])
def test_the_tally_is_that_of_a_loop(store: Store, most: int) -> None:
    """Compare random requests on several days with a dictionary and a counter."""
    rng = np.random.default_rng(0)
    seen: set[int] = set()
    counts: Counter[tuple[int, int]] = Counter()
    choices = np.array([0, 0, 1, 2, 3, 2**63, LARGEST], np.uint64)
    for request in range(60):
        day = request // 20
        group = rng.choice(choices, rng.integers(0, most))
        if most > 100 and request % 3:  # many groups, often all of them new
            group = rng.integers(0, 2**64, len(group), dtype=np.uint64)
            group[::7] = group[:1]
        taken = rng.random(len(group)) < (0.7 if request % 2 else 1.1)
        with store.write() as transaction:
            tally = GroupTally.claim(transaction, 4, 2, group, day=day)
            tally.write(transaction, taken)
        given = group.tolist()
        assert tally.repeated.tolist() == [g in seen for g in given]
        within = [given[:index].count(g) for index, g in enumerate(given)]
        assert tally.before.tolist() == [
            counts[g, day] + earlier if g else 0 for g, earlier in zip(given, within, strict=True)
        ]
        new = [g for g, counted in zip(given, taken, strict=True) if counted and g]
        seen |= set(new)
        counts.update((g, day) for g in new)


def test_a_group_whose_labels_were_all_capped_was_not_counted(store: Store) -> None:
    group = np.arange(
        1, 201, dtype=np.uint64
    )  # many new groups: inserted before it is clear what counts
    taken = group % 3 == 0
    with store.write() as transaction:
        tally = GroupTally.claim(transaction, 1, 1, group, day=3)
        assert tally.written
        tally.write(transaction, taken)
    with store.write() as transaction:
        again = GroupTally.claim(transaction, 1, 1, group, day=3)
        assert not again.written
        assert again.repeated.tolist() == taken.tolist()
        assert again.before.tolist() == taken.astype(int).tolist()


def test_models_and_promotions_have_separate_tallies(store: Store) -> None:
    group = np.array([7, LARGEST], np.uint64)
    with store.write() as transaction:
        for place in ((1, 1), (1, 2), (2, 1)):
            tally = GroupTally.claim(transaction, *place, group, day=3)
            assert not tally.repeated.any()
            tally.write(transaction, np.array([True, place == (1, 2)]))
        again = GroupTally.claim(transaction, 1, 2, group[::-1].copy(), day=3)
        assert again.repeated.tolist() == [True, True]
        assert GroupTally.claim(transaction, 2, 1, group, day=3).repeated.tolist() == [True, False]
