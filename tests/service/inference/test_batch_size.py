"""Batches of the size that goes fastest by the row."""

from collections.abc import Callable

import pytest

from service.inference.batch_size import BatchSize


def sizes(
    rate: Callable[[int], float], *, waiting: int = 32, most: int = 64, n: int = 400
) -> list[int]:
    chooser, chosen = BatchSize(most), []
    for _ in range(n):
        rows = chooser.choose(waiting)
        chooser.observe(rows, rows / rate(rows))
        chosen.append(rows)
    return chosen


def test_a_network_that_gains_by_size_gets_all_that_waits() -> None:
    chosen = sizes(lambda rows: 100 + rows, waiting=31)
    assert chosen[0] == 31
    assert chosen.count(31) > 0.97 * len(chosen)


@pytest.mark.parametrize("waiting", [31, 32, 60, 64, 200])
def test_a_network_that_outgrows_the_caches_is_given_its_best(waiting: int) -> None:
    measured = {4: 21.6, 8: 22.7, 16: 24.6, 32: 17.6, 64: 13.3}

    def rate(rows: int) -> float:
        return measured[min(measured, key=lambda size: abs(size - rows))]

    chosen = sizes(rate, waiting=waiting)
    assert chosen[:10].count(16) >= 5
    assert chosen.count(16) > 0.95 * len(chosen)


def test_few_are_never_split() -> None:
    assert set(sizes(lambda rows: 1 / rows, waiting=7)) == {7}


def test_what_changes_is_noticed() -> None:
    chooser = BatchSize(64)

    def run(rate: Callable[[int], float]) -> list[int]:
        chosen = []
        for _ in range(2500):
            chosen.append(chooser.choose(32))
            chooser.observe(chosen[-1], chosen[-1] / rate(chosen[-1]))
        return chosen[-200:]

    assert run(lambda rows: 100.0 if rows <= 8 else 50.0).count(8) > 180
    assert run(lambda rows: 50.0 + rows).count(32) > 180
    assert run(lambda rows: 100.0 if rows <= 8 else 50.0).count(8) > 180


@pytest.mark.parametrize("most", [1, 2, 3, 5, 12, 64])
@pytest.mark.parametrize("waiting", [1, 2, 3, 7, 8, 9, 100])
def test_never_none_and_never_too_many(most: int, waiting: int) -> None:
    for slope in (-0.01, 0.0, 1.0):
        chosen = sizes(lambda rows, slope=slope: 10 + slope * rows, waiting=waiting, most=most)
        assert min(chosen) >= 1
        assert max(chosen) == min(waiting, most)
