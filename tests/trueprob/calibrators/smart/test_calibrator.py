import numpy as np
import pytest
import torch

from trueprob import SmartCalibrator, logit_gap
from trueprob.arrays.logit_functions import prediction
from trueprob.calibrators import FitOutcome, fit_identity, fit_smart, fit_temperature
from trueprob.calibrators.smart.calibrator import BLOCK
from trueprob.calibrators.smart.objective import (
    DEFAULT_TERMS,
    SmartObjective,
    Terms,
    interval_edges,
    prior,
)
from trueprob.scores.score import score

pytestmark = pytest.mark.slow

THETA = np.array([-0.5, 0.1, 0.3, -0.2])


def objective_of(logits, labels, weights=None, n_intervals=4, terms=DEFAULT_TERMS):
    edges = interval_edges(logit_gap(logits).astype(np.float64), n_intervals)
    return SmartObjective(logits, labels, weights, edges, terms), edges


def by_torch(theta, logits, labels, weights, edges):
    """The objective written as the formulas read, with automatic gradients."""
    z = torch.tensor(logits, dtype=torch.float64)
    y = torch.tensor(labels)
    w = torch.ones(len(y), dtype=torch.float64) if weights is None else torch.tensor(weights)
    two = z.topk(2, dim=1).values
    gap = two[:, 0] - two[:, 1]
    lower = torch.tensor([0.0, *edges], dtype=torch.float64)
    upper = torch.tensor([*edges, np.inf], dtype=torch.float64)
    inside = torch.minimum(gap[:, None], upper) - lower
    s = (theta.exp() * inside.clamp(min=0)).sum(dim=1)
    logs = torch.log_softmax(z * (s / gap)[:, None], dim=1)
    rows = torch.arange(len(y))
    nll = -logs[rows, y]
    top = logs[rows, z.argmax(dim=1)].exp()
    right = z.argmax(dim=1) == y
    cross = -torch.where(right, top.log(), (1 - top).log())
    penalty = 20 * (theta.diff() ** 2).sum() + 8 * torch.log(1 + theta[0] ** 2)
    return (w * (nll + 3 * cross)).sum() / w.sum() + penalty / len(y)


@pytest.mark.parametrize("k", [2, 6, 80])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_and_gradient_are_those_of_automatic_differentiation(k, weighted, overconfident):
    logits, labels = overconfident(120, k)
    weights = np.random.default_rng(1).exponential(size=120) if weighted else None
    objective, edges = objective_of(logits, labels, weights)
    value, gradient, _ = objective(THETA)
    theta = torch.tensor(THETA, requires_grad=True)
    expected = by_torch(theta, logits, labels, weights, edges)
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-9)
    assert gradient == pytest.approx(theta.grad.numpy(), rel=1e-7, abs=1e-10)


@pytest.mark.parametrize("terms", [Terms(), Terms(top_weight=0.0, soft_ece=0.5)])
def test_gradient_is_that_of_finite_differences(terms, overconfident):
    objective, _ = objective_of(*overconfident(120), terms=terms)
    _, gradient, _ = objective(THETA)
    step = 1e-6
    for j in range(4):
        ahead, behind = THETA.copy(), THETA.copy()
        ahead[j] += step
        behind[j] -= step
        difference = (objective(ahead)[0] - objective(behind)[0]) / (2 * step)
        assert gradient[j] == pytest.approx(difference, rel=1e-5, abs=1e-9)


def test_curvature_is_the_derivative_of_the_gradient_where_the_prior_is_exact(overconfident):
    objective, _ = objective_of(*overconfident(120))
    step = 1e-6

    def data_gradient(theta):
        return objective(theta)[1] - prior(theta)[1] / objective.n

    curvature = objective(THETA)[2] - prior(THETA)[2] / objective.n
    for j in range(4):
        ahead, behind = THETA.copy(), THETA.copy()
        ahead[j] += step
        behind[j] -= step
        difference = (data_gradient(ahead) - data_gradient(behind)) / (2 * step)
        assert curvature[j] == pytest.approx(difference, rel=1e-4, abs=1e-7)


def test_large_sets_in_float32_agree_with_float64(overconfident):
    logits, labels = overconfident(300, 80)
    objective, _ = objective_of(logits, labels)
    value, gradient, _ = objective(THETA)
    objective.below_second = objective.below_second.astype(np.float32)
    rough, rough_gradient, _ = objective(THETA)
    assert rough == pytest.approx(value, rel=1e-5)
    assert rough_gradient == pytest.approx(gradient, abs=1e-5)


def test_the_fit_is_a_stationary_point(overconfident):
    logits, labels = overconfident(500)
    fitted = fit_smart(logits, labels)
    assert fitted.outcome is FitOutcome.CONVERGED
    objective = SmartObjective(logits, labels, None, np.array(fitted.calibrator.edges))
    _, gradient, _ = objective(np.array(fitted.calibrator.log_slopes))
    assert np.abs(gradient).max() < 1e-4


@pytest.mark.parametrize("weighted", [False, True])
def test_large_sets_end_where_small_steps_would(weighted, overconfident):
    logits, labels = overconfident(3_000, 700, scale=1.0)
    weights = np.where(np.arange(3_000) % 3, 0.0, 1.0) if weighted else None
    kept = slice(None) if weights is None else weights > 0
    fitted = fit_smart(logits, labels, weights)
    assert fitted.outcome is FitOutcome.CONVERGED
    edges = np.array(fitted.calibrator.edges)
    part = None if weights is None else weights[kept]
    objective = SmartObjective(logits[kept], labels[kept], part, edges)
    _, gradient, _ = objective(np.array(fitted.calibrator.log_slopes))
    gradient -= prior(np.array(fitted.calibrator.log_slopes))[1] * (1 / objective.n - 1 / 3_000)
    assert np.abs(gradient).max() < 1e-3
    single = fit_temperature(logits, labels, weights).calibrator.value
    alone = fit_temperature(logits[kept], labels[kept]).calibrator.value
    assert single == pytest.approx(alone, rel=5e-3)  # the prior is shared by all rows


def test_duplicate_rows_merge_intervals():
    logits = np.tile(np.array([[2.0, 0.0, 1.0]], dtype=np.float32), (40, 1))
    calibrator = fit_smart(logits, np.arange(40) % 3).calibrator
    assert calibrator.edges == ()
    assert len(calibrator.log_slopes) == 1


def test_a_set_without_errors_keeps_its_scale(overconfident):
    logits, _ = overconfident(100)
    calibrator = fit_smart(logits, logits.argmax(axis=1)).calibrator
    assert np.abs(calibrator.log_slopes).max() < 4.0


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_badly_scaled_logits_are_calibrated_all_the_same(scale, overconfident):
    logits, labels = overconfident(1_000)
    plain = fit_smart(logits, labels).calibrator.predict_proba(logits)
    scaled = logits * np.float32(scale)
    p = fit_smart(scaled, labels).calibrator.predict_proba(scaled)
    assert p == pytest.approx(plain, abs=0.03)


def test_the_formula_of_the_temperature():
    calibrator = SmartCalibrator(3, (1.0, 2.0), (0.0, np.log(2.0), np.log(0.5)), 0.0)
    gap = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 4.0], dtype=np.float32)
    logits = np.stack([gap, np.zeros(6), np.full(6, -9.0)], axis=1)
    # s = 0.5, 1, 1 + 2·0.5, 1 + 2, 3 + 0.5·2
    expected = [1.0, 0.5 / 0.5, 1.0 / 1.0, 1.5 / 2.0, 2.0 / 3.0, 4.0 / 4.0]
    assert calibrator.temperature(logits) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["cifar10_resnet50_ce", "mnist_mondrianforest"])
def test_on_real_logits_it_beats_one_temperature_and_keeps_the_ranking(name, real_set):
    (logits, labels), (new_logits, new_labels) = real_set(name)
    result = {}
    for fitter in (fit_identity, fit_temperature, fit_smart):
        p = fitter(logits, labels).calibrator.predict_proba(new_logits)
        result[fitter] = score(p, new_labels, prediction=prediction(new_logits))
    smart, single, plain = result[fit_smart], result[fit_temperature], result[fit_identity]
    assert smart.accuracy == plain.accuracy
    assert smart.ece < 0.85 * single.ece
    assert smart.nll < single.nll
    assert smart.auroc > single.auroc - 0.005


@pytest.mark.parametrize("k", [3, 700])
def test_blocks_of_rows_change_no_bit(k, overconfident):
    logits, _ = overconfident(2 * BLOCK // k + 5, k)
    calibrator = SmartCalibrator(k, (1.0, 2.0), (-0.3, 0.1, -0.6), 1e-5)
    p = calibrator.predict_proba(logits)
    rows = np.array([0, BLOCK // k - 1, BLOCK // k, BLOCK // k + 1, logits.shape[0] - 1])
    assert np.array_equal(p[rows], calibrator.predict_proba(logits[rows]))
    assert p.sum(axis=1, dtype=np.float64) == pytest.approx(1.0, abs=1e-5)
