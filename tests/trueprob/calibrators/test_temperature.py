import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from trueprob.arrays.logit_functions import log_softmax
from trueprob.calibrators import FitOutcome, fit_temperature


@pytest.mark.parametrize("k", [2, 10, 100])
def test_the_likelihood_is_at_its_maximum(k, overconfident):
    logits, labels = overconfident(400, k, factor=3.0)
    weights = np.random.default_rng(0).exponential(size=400)

    def loss(u):
        logs = log_softmax(logits.astype(np.float64) * np.exp(u))[np.arange(400), labels]
        return -weights @ logs

    # scipy's bounded search is the independent reference.
    reference = minimize_scalar(loss, bounds=(-7, 7), method="bounded", options={"xatol": 1e-8})
    fitted = fit_temperature(logits, labels, weights)
    assert fitted.outcome is FitOutcome.CONVERGED
    assert fitted.calibrator.value == pytest.approx(np.exp(-reference.x), rel=1e-4)


def test_the_true_temperature_is_found(overconfident):
    logits, labels = overconfident(20_000, factor=2.5)
    assert fit_temperature(logits, labels).calibrator.value == pytest.approx(2.5, rel=0.03)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_scaled_logits_have_a_scaled_temperature(scale, overconfident):
    logits, labels = overconfident(300)
    plain = fit_temperature(logits, labels).calibrator.value
    scaled = fit_temperature((logits * np.float32(scale)), labels).calibrator.value
    assert scaled == pytest.approx(plain * scale, rel=1e-4)


def test_a_set_without_errors_ends_at_the_bound_and_says_so(overconfident):
    logits, _ = overconfident(100)
    fitted = fit_temperature(logits, logits.argmax(axis=1))
    assert fitted.outcome is FitOutcome.AT_BOUND
    assert "stopped at its bound" in fitted.warnings[0]


def test_a_set_worse_than_chance_ends_at_the_other_bound(overconfident):
    logits, _ = overconfident(100)
    fitted = fit_temperature(logits, logits.argmin(axis=1))
    assert fitted.outcome is FitOutcome.AT_BOUND
    assert fitted.calibrator.predict_proba(logits) == pytest.approx(0.2, abs=0.01)


def test_constant_rows_have_no_temperature():
    fitted = fit_temperature(np.zeros((4, 3), np.float32), np.array([0, 1, 2, 0]))
    assert fitted.calibrator.value == 1.0
