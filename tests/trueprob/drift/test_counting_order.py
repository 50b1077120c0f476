"""The order in which rows are counted, and the rows that make one factor."""

import numpy as np
import pytest

from trueprob import CalibrationBets, InvalidInput
from trueprob.drift.counting_order import CountingOrder


def test_rows_are_counted_by_their_keys_with_all_their_bytes():
    assert CountingOrder.of(3, order=[b"b\0", b"a\0", b"a"]).rows.tolist() == [2, 1, 0]
    assert CountingOrder.of(3, order=np.array([5, -1, 3])).rows.tolist() == [1, 2, 0]
    assert CountingOrder.of(2, order=np.array([2**64 - 1, 1], np.uint64)).rows.tolist() == [1, 0]
    assert CountingOrder.of(3).rows.tolist() == [0, 1, 2]


def test_a_group_stands_where_its_first_row_stands():
    counted = CountingOrder.of(5, order=np.array([4, 3, 2, 1, 0]), groups=list("abcba"))
    assert counted.rows.tolist() == [4, 0, 3, 1, 2]
    assert counted.starts.tolist() == [0, 2, 4]


def test_a_group_makes_one_factor_the_mean_of_its_rows():
    bets = CalibrationBets(0.0)
    p, y = np.array([0.9, 0.6, 0.7, 0.8]), np.array([1, 0, 0, 1])
    plain = bets.factors(p, y).values
    grouped = bets.factors(p, y, groups=[7, 8, 7, 8]).values
    np.testing.assert_allclose(grouped[:, 0], plain[:, [0, 2]].mean(axis=1), rtol=1e-15)
    np.testing.assert_allclose(grouped[:, 1], plain[:, [1, 3]].mean(axis=1), rtol=1e-15)
    alone = bets.factors(p, y, groups=[1, 2, 3, 4])
    assert np.array_equal(alone.values, plain)
    assert alone.n_units == 4


def test_rows_of_groups_counted_earlier_are_left_out():
    bets = CalibrationBets(0.0)
    p, y = np.array([0.9, 0.6, 0.7]), np.array([1, 0, 0])
    repeated = np.array([False, True, False])
    left = bets.factors(p, y, repeated=repeated, order=np.array([3, 2, 1]))
    assert np.array_equal(left.values, bets.factors(p[[2, 0]], y[[2, 0]]).values)
    nothing = bets.factors(p, y, repeated=np.ones(3, dtype=bool), groups=[1, 1, 2])
    assert nothing.n_units == 0


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"order": [b"a", b"a"]}, "order"),
        ({"order": [b"a"]}, "order"),
        ({"order": np.array([1, 1])}, "order"),
        ({"order": np.array([0.5, 1.0])}, "order"),
        ({"order": ["a", "b"]}, "order"),
        ({"groups": [1]}, "groups"),
        ({"repeated": [0, 1]}, "repeated"),
        ({"repeated": [True]}, "repeated"),
    ],
)
def test_what_cannot_order_is_refused(arguments, field):
    with pytest.raises(InvalidInput) as caught:
        CountingOrder.of(2, **arguments)
    assert caught.value.field == field
