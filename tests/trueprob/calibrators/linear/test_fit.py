import numpy as np
import pytest
import torch

from trueprob.calibrators.linear.fit import (
    BIAS,
    COMMON,
    DIAGONAL,
    OFF_DIAGONAL,
    LinearObjective,
    fit_linear_stage,
)
from trueprob.calibrators.linear.stage import LinearStage, centred

both = pytest.mark.parametrize("full", [False, True])


def objective(overconfident, full, weights=None):
    logits, labels = overconfident(70, 4)
    return LinearObjective(logits, labels, weights, 0.4, full=full), logits, labels


@both
def test_the_gradient_is_that_of_finite_differences(full, overconfident):
    weights = np.random.default_rng(1).uniform(size=70)
    function, _, _ = objective(overconfident, full, weights)
    t = np.random.default_rng(2).normal(size=function.size)
    _, gradient = function(t)
    step = 1e-6
    for index in range(function.size):
        e = np.zeros(function.size)
        e[index] = step
        slope = (function(t + e)[0] - function(t - e)[0]) / (2 * step)
        assert gradient[index] == pytest.approx(slope, abs=1e-8)


@both
def test_value_and_gradient_are_those_of_autograd(full, overconfident):
    function, logits, labels = objective(overconfident, full)
    k, n = 4, 70
    x = torch.tensor(0.4 * centred(logits))
    start = np.random.default_rng(3).normal(size=function.size) * 0.3
    raw = torch.tensor(start * function.whitening, requires_grad=True)
    common, a, b = raw[0], raw[1 : k + 1], raw[k + 1 : 2 * k + 1]
    y = (1 + common) * x + a * x + b
    s2 = (x**2).mean()
    penalty = s2 * (COMMON * common**2 + DIAGONAL * (a**2).sum())
    penalty = penalty + BIAS * (b**2).sum()
    if full:
        m = raw[2 * k + 1 :].reshape(k, k)
        y = y + x @ (m * (1 - torch.eye(k))).T
        penalty = penalty + OFF_DIAGONAL * k * s2 * (m**2).sum()
    loss = torch.nn.functional.cross_entropy(y, torch.tensor(labels)) + penalty / n
    loss.backward()
    value, gradient = function(start)
    assert value == pytest.approx(loss.item(), rel=1e-12)
    assert gradient / function.whitening == pytest.approx(raw.grad.numpy(), abs=1e-10)


@both
def test_the_fit_is_the_optimum(full, overconfident):
    function, logits, labels = objective(overconfident, full)
    fitted = fit_linear_stage(logits, labels, full=full)
    assert fitted.converged
    # The same optimum by plain descent from another start: the objective is strictly convex.
    from scipy.optimize import minimize

    other = minimize(function, np.ones(function.size), jac=True, tol=1e-12)
    linear, bias = function.unpack(other.x)
    stage = LinearStage(tuple((0.4 * linear).ravel()), tuple(bias))
    scale_differs = 2e-2  # the fit shrinks to the set's own temperature, this one to 0.4
    assert fitted.stage.apply(logits) == pytest.approx(stage.apply(logits), rel=0.05, abs=0.15)
    assert np.allclose(fitted.stage.bias, bias, atol=0.1 + scale_differs)


@both
def test_the_scale_of_the_logits_does_not_matter(full, overconfident):
    logits, labels = overconfident(200)
    stage = fit_linear_stage(logits, labels, full=full).stage
    larger = fit_linear_stage(logits * np.float32(1024), labels, full=full).stage
    expected = stage.apply(logits)
    assert larger.apply(logits * np.float32(1024)) == pytest.approx(expected, abs=0.3)


@both
def test_the_bias_of_an_absent_class_stays_small(full, overconfident):
    logits, labels = overconfident(3_000)
    present = labels != 2
    stage = fit_linear_stage(logits[present], labels[present], full=full).stage
    assert -8.0 < stage.bias[2] < -0.5
    assert np.argmin(stage.bias) == 2


@pytest.mark.slow
def test_computing_in_blocks_gives_the_same_result(overconfident):
    from trueprob.calibrators.linear import stage as linear_stage

    logits, _ = overconfident(3, 7)
    many = np.tile(logits, (linear_stage.CHUNK // 7, 1))
    stage = LinearStage(tuple(np.linspace(-1, 1, 49)), tuple(np.linspace(0, 1, 7)))
    whole = stage.apply(many)
    assert whole == pytest.approx(np.tile(stage.apply(logits), (linear_stage.CHUNK // 7, 1)))
    expected = centred(logits) @ np.linspace(-1, 1, 49).reshape(7, 7).T + np.linspace(0, 1, 7)
    assert stage.apply(logits) == pytest.approx(expected, rel=1e-6)
