"""The class error of a verdict: by hand, by enumeration, and whatever the blocks are."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from trueprob import CalibrationSet
from trueprob.admission import verdict
from trueprob.admission.verdict import side_of
from trueprob.scores.interval import resampled_sums


def set_of(labels, weights=None):
    labels = np.asarray(labels)
    return CalibrationSet(np.zeros((labels.size, 2), np.float32), labels, weights)


def test_by_hand():
    # Answers 0 at 0.9: one of two right. Answers 1 at 0.6: both right.
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]])
    scores = side_of(p, np.array([0, 0, 1, 1]), set_of([0, 1, 1, 1])).scores
    assert scores.class_error == pytest.approx((abs(1.8 - 1.0) + abs(1.2 - 2.0)) / 4)
    floor = np.sqrt(2 / np.pi * 2 * 0.9 * 0.1) + np.sqrt(2 / np.pi * 2 * 0.6 * 0.4)
    assert scores.class_error_floor == pytest.approx(floor / 4)
    # The errors of the two classes cancel on average.
    assert np.mean(p.max(axis=1)) == pytest.approx(0.75)
    assert scores.accuracy == 0.75
    # A weight of 2 is a row twice, except for chance.
    weighted = side_of(p, np.array([0, 0, 1, 1]), set_of([0, 1, 1, 1], np.array([2.0, 1, 1, 1])))
    assert weighted.scores.class_error == pytest.approx((abs(2.7 - 2.0) + abs(1.2 - 2.0)) / 5)
    assert weighted.scores.class_error_floor == pytest.approx(
        (np.sqrt(2 / np.pi * 5 * 0.09) + np.sqrt(2 / np.pi * 2 * 0.24)) / 5
    )


def test_the_floor_is_the_class_error_of_a_calibrated_model():
    """Over all outcomes of many rows, weighted by their probabilities."""
    p = np.repeat([0.55, 0.7], 5)
    predicted = np.repeat([0, 1], 5)
    probabilities = np.where(predicted[:, None] == [0, 1], p[:, None], 1 - p[:, None])
    errors = []
    for right in itertools.product([0, 1], repeat=10):
        y = np.where(right, predicted, 1 - predicted)
        side = side_of(probabilities, predicted, set_of(y))
        errors.append(np.prod(np.where(right, p, 1 - p)) * side.scores.class_error)
    # The normal approximation, at five rows a class.
    assert sum(errors) == pytest.approx(side.scores.class_error_floor, rel=0.05)


def sides_and_set(n=400, k=7, seed=0):
    rng = np.random.default_rng(seed)
    data = CalibrationSet(
        rng.normal(size=(n, k)).astype(np.float32),
        rng.integers(0, k, n),
        rng.uniform(0.0, 2.0, n),
    )
    probabilities = [rng.dirichlet(np.full(k, a), n).astype(np.float32) for a in (0.3, 1.0, 2.0)]
    return [side_of(p, p.argmax(axis=1), data) for p in probabilities], data


def test_the_resampled_class_error_is_that_of_the_resampled_rows(monkeypatch):
    sides, data = sides_and_set()
    unit = np.arange(data.n)
    observed, drawn = verdict._class_errors(sides, data.weights, unit, seed=3)
    expected = [s.scores.class_error - s.scores.class_error_floor for s in sides]
    np.testing.assert_allclose(observed[0], expected)
    # The counts of the rows in each resample, and the definition on the repeated rows.
    counts = resampled_sums(np.eye(data.n), unit, seed=3)
    for draw in (0, 17, 1_999):
        times = counts[draw]
        for side, value in zip(sides, drawn[draw], strict=True):
            gap = np.abs(np.bincount(side.predicted, times * side.gap)).sum()
            floor = np.sqrt(2 / np.pi * np.bincount(side.predicted, times * side.variance)).sum()
            assert value == pytest.approx((gap - floor) / (times @ data.weights))
    monkeypatch.setattr(verdict, "CLASS_BLOCK", 2)
    blocks = verdict._class_errors(sides, data.weights, unit, seed=3)
    np.testing.assert_allclose(blocks[0], observed)
    np.testing.assert_allclose(blocks[1], drawn)


def test_copies_of_rows_that_are_a_group_count_once():
    sides, data = sides_and_set(60)
    copies = np.repeat(np.arange(60), 25)
    many = [
        replace(s, gap=s.gap[copies], variance=s.variance[copies], predicted=s.predicted[copies])
        for s in sides
    ]
    spread = [
        verdict._class_errors(many, data.weights[copies], unit, seed=3)[1].std(axis=0)
        for unit in (copies, np.arange(copies.size))
    ]
    # Of independent rows it would be a fifth.
    assert (spread[0] > 3.0 * spread[1]).all()


def test_more_rows_than_units_are_merged_to_the_same_spread(monkeypatch):
    sides, data = sides_and_set(3_000)
    draws = []
    for most in (3_000, 500):
        monkeypatch.setattr(verdict, "MAX_UNITS", most)
        draws.append(verdict._class_errors(sides, data.weights, np.arange(data.n), seed=3))
    np.testing.assert_allclose(draws[1][0], draws[0][0])
    np.testing.assert_allclose(draws[1][1].std(axis=0), draws[0][1].std(axis=0), rtol=0.15)
