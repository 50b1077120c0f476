"""`smart` on rows of many classes, against its stages written one after another."""

from dataclasses import replace

import numpy as np
import pytest

from trueprob.arrays.logit_functions import logit_gap, prediction, tempered_softmax
from trueprob.calibrators import SmartCalibrator
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


def logits_of_all_sorts() -> np.ndarray:
    generator = np.random.default_rng(3)
    ordinary = 3.0 * generator.normal(size=(400, 80))
    ties = np.repeat(generator.normal(size=(20, 1)), 80, axis=1)
    two = np.where(np.arange(80) < 2, 9.0, generator.normal(size=(20, 80)))
    sure = np.where(np.arange(80) == 7, 1e4, generator.normal(size=(20, 80)))
    extreme = np.where(np.arange(80) == 5, 3e38, -3e38) * np.ones((2, 1))
    lifted = ordinary[:20] + 1e4
    return np.concatenate([ordinary, ties, two, sure, extreme, lifted]).astype(np.float32)


def one_after_another(calibrator: SmartCalibrator, logits: np.ndarray) -> np.ndarray:
    p = tempered_softmax(
        logits, calibrator.temperature(logits), uniform_weight=calibrator.uniform_weight
    )
    stage = calibrator.second_stage
    return p if stage is None else stage.apply(p, prediction(logits))


@CALIBRATORS
def test_probabilities_are_those_of_the_stages_one_after_another(calibrator):
    logits = logits_of_all_sorts()
    p = calibrator.predict_proba(logits)
    assert p == pytest.approx(one_after_another(calibrator, logits), abs=1e-6)
    assert p.sum(axis=1, dtype=np.float64) == pytest.approx(1.0, abs=2e-6)


@CALIBRATORS
def test_the_prediction_the_gap_and_the_temperature_are_the_same_to_the_bit(calibrator):
    logits = logits_of_all_sorts()
    answer = calibrator.calibrated(logits)
    assert np.array_equal(answer.prediction, prediction(logits))
    assert np.array_equal(answer.logit_gap, logit_gap(logits))
    assert np.array_equal(answer.temperature, calibrator.temperature(logits))
    rows = np.arange(logits.shape[0])
    assert np.array_equal(
        answer.probabilities[rows, answer.prediction], answer.probabilities.max(axis=1)
    )
