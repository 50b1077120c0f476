"""Prediction of `smart`: against its stages one by one, and of a row alone against many."""

from dataclasses import fields, replace

import numpy as np
import pytest

from tests.trueprob.every_kind import assert_prediction_is_above
from trueprob.arrays.logit_functions import logit_gap, prediction, tempered_softmax
from trueprob.calibrators import SmartCalibrator
from trueprob.calibrators.smart.rows import calibrate_single_row
from trueprob.calibrators.smart.second_stage import SecondStage

FIRST = SmartCalibrator(80, (1.0, 4.0), (-0.7, 0.2, -0.4), 1e-5)
SECOND = SecondStage((-3.0, 0.0, 2.0, 6.0), (-3.5, -0.2, 1.0, 4.0))
CALIBRATORS = pytest.mark.parametrize(
    "calibrator",
    [
        FIRST,
        replace(FIRST, uniform_weight=0.0),
        replace(FIRST, second_stage=SECOND),
        replace(FIRST, uniform_weight=0.2, second_stage=SECOND),
    ],
)


def varied_logits() -> np.ndarray:
    generator = np.random.default_rng(3)
    ordinary = 3.0 * generator.normal(size=(400, 80))
    ties = np.repeat(generator.normal(size=(20, 1)), 80, axis=1)
    two = np.where(np.arange(80) < 2, 9.0, generator.normal(size=(20, 80)))
    sure = np.where(np.arange(80) == 7, 1e4, generator.normal(size=(20, 80)))
    extreme = np.where(np.arange(80) == 5, 3e38, -3e38) * np.ones((2, 1))
    lifted = ordinary[:20] + 1e4
    return np.concatenate([ordinary, ties, two, sure, extreme, lifted]).astype(np.float32)


def stage_by_stage(calibrator: SmartCalibrator, logits: np.ndarray) -> np.ndarray:
    p = tempered_softmax(
        logits, calibrator.temperature(logits), uniform_weight=calibrator.uniform_weight
    )
    stage = calibrator.second_stage
    return p if stage is None else stage.apply(p, prediction(logits))


@CALIBRATORS
def test_probabilities_are_those_of_the_stages_one_by_one(calibrator):
    logits = varied_logits()
    p = calibrator.predict_proba(logits)
    assert p == pytest.approx(stage_by_stage(calibrator, logits), abs=1e-6)
    assert p.sum(axis=1, dtype=np.float64) == pytest.approx(1.0, abs=2e-6)


@CALIBRATORS
def test_the_prediction_the_gap_and_the_temperature_are_the_same_to_the_bit(calibrator):
    logits = varied_logits()
    answer = calibrator.calibrated(logits)
    assert np.array_equal(answer.prediction, prediction(logits))
    assert np.array_equal(answer.logit_gap, logit_gap(logits))
    assert np.array_equal(answer.temperature, calibrator.temperature(logits))
    assert_prediction_is_above(answer.probabilities, answer.prediction)


def random_calibrator_and_logits(seed: int, scale: float) -> tuple[SmartCalibrator, np.ndarray]:
    rng = np.random.default_rng(seed)
    k, m = int(rng.integers(2, 64)), int(rng.integers(0, 8))
    edges = np.cumsum(rng.exponential(1.0, m) + 1e-3)
    slopes = rng.normal(0.0, 1.5, m + 1)
    weight = float(rng.choice([0.0, 1e-3, 0.2]))
    calibrator = SmartCalibrator(k, tuple(edges.tolist()), tuple(slopes.tolist()), weight, None)
    logits = (rng.standard_normal((40, k)) * scale).astype(np.float32)
    logits[::7] = np.round(logits[::7])  # ties
    logits[3] = logits[3, 0]
    logits[5] = -0.0
    logits[6] = logits[6].max()
    logits[6, -1] = np.nextafter(logits[6, -1], np.float32(np.inf))
    return calibrator, logits


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 30.0, 1e6, 1e17, 1e37])
@pytest.mark.parametrize("seed", range(8))
def test_a_single_row_has_the_bits_that_it_has_among_others(seed: int, scale: float) -> None:
    calibrator, logits = random_calibrator_and_logits(seed, scale)
    together = calibrator.calibrated(logits)
    for i, row in enumerate(logits):
        alone = calibrator.calibrated(row[None])
        assert alone.log_odds is together.log_odds is None
        for field in fields(alone)[:-1]:
            one = getattr(alone, field.name)
            among = getattr(together, field.name)[i : i + 1]
            assert (one.dtype, one.shape) == (among.dtype, among.shape), field.name
            assert one.tobytes() == among.tobytes(), field.name


@pytest.mark.parametrize("largest", [1e19, 3e38])
def test_rows_that_float32_may_overflow_on_are_left_to_arrays(largest: float) -> None:
    logits = np.array([[largest, -largest, 0.0]], np.float32)
    assert calibrate_single_row(logits, [], [1.0], [0.0], 0.0) is None
    calibrator = SmartCalibrator(3, (), (0.0,), 0.0, None)
    np.testing.assert_array_equal(calibrator.predict_proba(logits), [[1.0, 0.0, 0.0]])
