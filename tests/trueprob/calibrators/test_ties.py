"""The argmax of the probabilities is the prediction on every row, also in near ties."""

import json
from dataclasses import replace

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.trueprob.every_kind import assert_prediction_is_above, cases, fit_kind, width
from trueprob import softmax
from trueprob.calibrators import (
    KINDS,
    IdentityCalibrator,
    IsotonicCalibrator,
    SmartCalibrator,
    SmartVectorCalibrator,
    TemperatureCalibrator,
    VectorCalibrator,
)
from trueprob.calibrators.linear.stage import LinearStage
from trueprob.calibrators.smart.second_stage import SecondStage

every_kind = pytest.mark.parametrize("kind", cases(sorted(KINDS)))
DOWN = SecondStage((-1.0, 1.0), (-21.0, -19.0))  # meets the runner-up on every row


def near_ties(k, *, scale=1.0, n=120):
    """Two or three largest logits one to three units in the last place apart, or equal."""
    generator = np.random.default_rng(k)
    rows = (generator.normal(size=(n, k)) * scale).astype(np.float32)
    for row in rows:
        places = generator.permutation(k)[:3]
        value = row.max()
        for place in places[: int(generator.integers(1, 4))]:
            for _ in range(int(generator.integers(0, 4))):
                value = np.nextafter(value, np.float32(np.inf))
            row[place] = value
    rows[0] = 0.0
    rows[1] = 1.0
    rows[1, -1] = np.nextafter(np.float32(1.0), np.float32(2.0))
    return rows


def made(k):
    """Calibrators that press the prediction against the runner-up."""
    smart = SmartCalibrator(k, (1.0,), (-9.0, 0.1), 1e-4)
    stage = LinearStage(tuple(np.linspace(0.5, 1.5, k).tolist()), (0.0,) * k)
    return [
        IdentityCalibrator(k),
        TemperatureCalibrator(k, 1e9),
        IsotonicCalibrator(k, (0.0,), (1e-3,)),
        smart,
        replace(smart, uniform_weight=0.9),
        replace(smart, second_stage=DOWN),
        SmartVectorCalibrator(k, stage, replace(smart, second_stage=DOWN)),
        VectorCalibrator(k, stage, 0.9),
    ]


@every_kind
@pytest.mark.parametrize("k", [2, 5, 70])
def test_near_ties_of_fitted_calibrators_keep_the_prediction_first(kind, k, overconfident):
    k = width(kind, k)
    calibrator = fit_kind(kind, *overconfident(400, k))
    for scale in (1e-6, 1.0, 1e3):
        logits = near_ties(k, scale=scale)
        found = calibrator.calibrated(logits)
        assert_prediction_is_above(found.probabilities, found.prediction)
        if calibrator.preserves_prediction:
            assert np.array_equal(found.prediction, logits.argmax(axis=1))


@pytest.mark.parametrize("k", [2, 10, 1000])
def test_a_map_that_meets_the_runner_up_stays_above_it(k):
    for calibrator in made(k):
        for logits in (near_ties(k), near_ties(k, scale=4.0)):
            found = calibrator.calibrated(logits)
            p = found.probabilities
            assert_prediction_is_above(p, found.prediction)
            assert p.sum(axis=1, dtype=np.float64) == pytest.approx(1.0, abs=2e-6)
            for row in range(20):  # a row alone takes other paths
                alone = calibrator.calibrated(logits[row : row + 1])
                assert_prediction_is_above(alone.probabilities, alone.prediction)


def test_json_keeps_the_prediction_first():
    logits = near_ties(10)
    for calibrator in made(10):
        found = calibrator.calibrated(logits)
        text = orjson.dumps(found.probabilities, option=orjson.OPT_SERIALIZE_NUMPY)
        again = np.array(json.loads(text))
        assert_prediction_is_above(again, found.prediction)


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=6),
    st.integers(0, 3),
    st.lists(st.floats(-30, 30), min_size=3, max_size=3, unique=True).map(sorted),
    st.floats(-12, 3),
    st.floats(0, 0.95),
)
def test_no_row_and_no_map_puts_another_class_first(values, ulps, mapped, theta, weight):
    row = np.array(values, np.float32)
    rival = row.max()
    for _ in range(ulps):
        rival = np.nextafter(rival, np.float32(np.inf))
    row[0] = rival
    logits = np.stack([row, row[::-1]])
    k = len(values)
    smart = SmartCalibrator(k, (), (theta,), weight)
    steps = tuple(value + 1e-3 * place for place, value in enumerate(mapped))
    for calibrator in (
        IdentityCalibrator(k),
        TemperatureCalibrator(k, float(np.exp(-theta))),
        IsotonicCalibrator(k, (-1.0, 3.0), (0.01, 0.99)),
        smart,
        replace(smart, second_stage=SecondStage((-2.0, 0.0, 2.0), steps)),
    ):
        p = calibrator.predict_proba(logits)
        assert np.array_equal(p.argmax(axis=1), logits.argmax(axis=1))
        assert_prediction_is_above(p, logits.argmax(axis=1))


def test_the_distance_from_the_runner_up_is_rounding():
    assert softmax(np.zeros((1, 4), np.float32)) == pytest.approx(0.25, rel=4e-7)
    apart = np.array([[2.0, 2.0 - 1e-4, 0.0]], np.float32)
    expected = np.exp(apart.astype(np.float64))
    expected /= expected.sum()
    assert softmax(apart) == pytest.approx(expected, rel=2e-7)
