"""Streams with errors by class, the interval's coverage, and real networks by class."""

import numpy as np
import pytest

from benchmarks.drift import interval, real_classes
from benchmarks.drift.classes import CALIBRATED, OPPOSITE, RARE, first_alarms, median
from trueprob import CalibrationBets, IdentityCalibrator

BETS = CalibrationBets(0.02, 0.02)


def test_streams_are_as_described():
    p, q, classes = RARE.drawn(np.random.default_rng(0), 20_000)
    assert (classes == 0).mean() == pytest.approx(0.01, abs=0.003)
    assert (p == q)[classes > 0].all()
    p, q, classes = OPPOSITE.drawn(np.random.default_rng(0), 20_000)
    np.testing.assert_allclose(q - p, np.where(classes == 0, -0.1, 0.1), atol=1e-12)
    p = interval.of_spread(0.16).drawn(np.random.default_rng(1), 20_000)[0]
    assert (p * (1.0 - p)).mean() == pytest.approx(0.16, abs=0.002)
    assert median(np.array([50.0, 100.0, np.inf])) == "100 [50, never]"


def test_only_bets_on_classes_see_what_cancels_and_the_order_is_kept():
    assert np.isinf(first_alarms(OPPOSITE, CalibrationBets(0.02), 0, 1_500)).all()
    assert (first_alarms(OPPOSITE, BETS, 0, 1_500) < 1_500).all()
    strict = CalibrationBets(0.0, 0.0)
    found = [first_alarms(CALIBRATED, strict, 1, 3_000, 2e5, 1_000, hashed) for hashed in (1, 0)]
    assert np.isinf(found[0]).all()
    assert np.isfinite(found[1][1])


def test_misses_are_counted_and_verdicts_waited_for(monkeypatch):
    for _, *kind in interval.COVERED:
        assert interval.misses(*kind, 0, 400) == [False, False]
    assert interval.labels_to(interval.OFF, OPPOSITE, 50, 0, 3_000) <= 2_000
    calm = interval.of_spread(0.04)
    assert 3_000 < interval.labels_to(interval.WITHIN, calm, 500, 0, 9_000) <= 8_000
    assert np.isinf(interval.labels_to(interval.OFF, calm, 500, 0, 1_000))
    monkeypatch.setattr(type(interval.INTERVAL), "bounds", lambda *_: (0.0, 0.0))
    assert interval.misses(*interval.COVERED[1][1:], 0, 400) == [True, False]


def test_a_class_that_is_off_is_named_and_only_a_class_wise_refit_repairs_it():
    generator = np.random.default_rng(2)
    true = 2.0 * generator.normal(size=(4_000, 3))
    labels = (true + generator.gumbel(size=true.shape)).argmax(axis=1)
    logits = (true + np.array([1.5, 0.0, 0.0])).astype(np.float32)
    row = real_classes.row_of("made", IdentityCalibrator(3), logits, labels)
    assert row[0] == "made"
    assert row[4] == "0"
    before, smart, vector = map(float, row[5:])
    assert min(before, smart) > 5.0
    assert abs(vector) < 3.0
