import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from trueprob.arrays.logit_functions import log_softmax
from trueprob.calibrators import FitOutcome, fit_temperature
from trueprob.calibrators.temperature import inverse_temperature


def objective(logits, labels, weights):
    """The documented objective of θ = log β, in float64."""
    share = np.full(len(labels), 1 / len(labels)) if weights is None else weights / weights.sum()

    def value(theta):
        scaled = logits.astype(np.float64) * np.exp(theta)
        nll = -share @ log_softmax(scaled)[np.arange(len(labels)), labels]
        return nll + 4.0 * np.log1p(theta**2) / len(labels)

    return value


def applied(theta, logits, labels, weights):
    """The documented share of a fit that is applied."""
    w = np.ones(len(labels)) if weights is None else weights
    rows = w.sum() ** 2 / np.square(w).sum()

    def nll(u):
        logs = log_softmax(logits.astype(np.float64) * np.exp(u))
        return -(w / w.sum()) @ logs[np.arange(len(labels)), labels]

    return np.clip(rows * (nll(0.0) - nll(theta)) / 0.75 - 1.0, 0.0, 1.0)


@pytest.mark.parametrize("k", [2, 10, 100])
@pytest.mark.parametrize("n", [20, 400])
def test_the_objective_is_at_its_minimum(k, n, overconfident):
    logits, labels = overconfident(n, k, factor=3.5)
    weights = np.random.default_rng(0).exponential(size=n)
    # scipy's bounded search is the independent reference.
    reference = minimize_scalar(
        objective(logits, labels, weights),
        bounds=(-7, 7),
        method="bounded",
        options={"xatol": 1e-8},
    )
    fitted = fit_temperature(logits, labels, weights)
    assert fitted.outcome is FitOutcome.CONVERGED
    share = applied(reference.x, logits, labels, weights)
    assert (0.0 < share < 1.0) == (k == 10 and n == 20)  # all rows else tell enough
    assert fitted.calibrator.value == pytest.approx(np.exp(-share * reference.x), rel=1e-4)


def test_maximum_likelihood_is_where_fits_start(overconfident):
    logits, labels = overconfident(400, factor=3.0)

    def nll(u):
        return -log_softmax(logits * np.exp(u))[np.arange(400), labels].mean()

    reference = minimize_scalar(nll, bounds=(-7, 7), method="bounded", options={"xatol": 1e-8})
    beta, inside = inverse_temperature(logits, labels)
    assert inside
    assert beta == pytest.approx(np.exp(reference.x), rel=1e-4)
    assert not inverse_temperature(logits, logits.argmax(axis=1))[1]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("answer", ["argmax", "argmin"])
def test_sets_without_errors_or_hits_are_fitted_to_the_optimum(scale, answer, overconfident):
    logits, _ = overconfident(40)
    logits = logits * np.float32(scale)
    labels = getattr(logits, answer)(axis=1)
    fitted = fit_temperature(logits, labels)
    value = objective(logits, labels, None)
    best = min(np.linspace(-60, 60, 12_001), key=value)
    # Certain rows that are right, and even ones that are wrong, need no other temperature.
    told = (scale, answer) not in [(1e6, "argmax"), (1e-6, "argmin")]
    assert -np.log(fitted.calibrator.value) == pytest.approx(best if told else 0.0, abs=0.02)
    assert fitted.outcome is FitOutcome.CONVERGED
    assert (fitted.warnings == ()) == told


def test_few_rows_that_are_all_right_make_no_row_certain(fault):
    logits, labels = fault("right30")
    assert (logits.argmax(axis=1) == labels).all()
    p = fit_temperature(logits, labels).calibrator.predict_proba(logits)
    assert p.max() < 1.0


def test_a_rare_class_without_rows_does_no_harm(fault):
    calibrator = fit_temperature(*fault("sh_cal")).calibrator
    logits, labels = fault("sh_test")
    logs = log_softmax(logits / calibrator.value), log_softmax(logits)
    after, before = (-log[np.arange(len(labels)), labels].mean() for log in logs)
    assert after < before


def test_the_true_temperature_is_found(overconfident):
    logits, labels = overconfident(20_000, factor=2.5)
    assert fit_temperature(logits, labels).calibrator.value == pytest.approx(2.5, rel=0.03)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_scaled_logits_have_a_scaled_temperature(scale, overconfident):
    logits, labels = overconfident(300)
    plain = fit_temperature(logits, labels).calibrator.value
    scaled = fit_temperature((logits * np.float32(scale)), labels).calibrator.value
    # The prior of 300 rows moves the temperature a little, by how far its logarithm is from 0.
    assert scaled == pytest.approx(plain * scale, rel=0.05)


def test_constant_rows_have_no_temperature():
    fitted = fit_temperature(np.zeros((4, 3), np.float32), np.array([0, 1, 2, 0]))
    assert fitted.calibrator.value == 1.0
