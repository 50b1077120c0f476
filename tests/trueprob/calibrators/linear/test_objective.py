import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from trueprob.calibrators.linear.lbfgs import minimise_convex
from trueprob.calibrators.linear.objective import COMMON, LinearObjective
from trueprob.calibrators.linear.stage import centred

both = pytest.mark.parametrize("full", [False, True])


def made(overconfident, full, weights=None, *, n=70, k=4, dtype=np.float64, **options):
    logits, labels = overconfident(n, k)
    x = np.ascontiguousarray((0.4 * centred(logits)).T.astype(dtype))
    return LinearObjective(x, labels, weights, full=full, **options), x, labels


def point(objective, seed=2, size=0.3):
    generator = np.random.default_rng(seed)
    shape = (objective.k, objective.k + 1 if objective.full else 2)
    return size * generator.normal(size=shape)


@both
def test_the_gradient_is_that_of_finite_differences(full, overconfident):
    weights = np.random.default_rng(1).uniform(size=70)
    function, _, _ = made(overconfident, full, weights)
    function.shrink(3.0)
    theta = point(function)
    _, gradient = function(theta)
    step = 1e-6
    for place in np.ndindex(theta.shape):
        e = np.zeros(theta.shape)
        e[place] = step
        slope = (function(theta + e)[0] - function(theta - e)[0]) / (2 * step)
        assert gradient[place] == pytest.approx(slope, abs=1e-8)


@both
@pytest.mark.parametrize("strength", [0.3, 1.0, 30.0])
def test_value_and_gradient_are_those_of_the_written_objective(full, strength, overconfident):
    function, x, labels = made(overconfident, full)
    function.shrink(strength)
    k, n = 4, 70
    theta = point(function)
    weights, bias = (torch.tensor(part, requires_grad=True) for part in function.unpack(theta))
    rows = torch.tensor(x.T)
    matrix = weights if full else torch.diag(weights)
    shift = torch.diag(matrix) - 1
    s2 = float((x**2).mean())

    def penalty(delta):
        return COMMON * delta**2 + strength * ((shift - delta) ** 2).sum()

    delta = minimize_scalar(lambda d: float(penalty(d).detach())).x  # stationary: no derivative
    total = s2 * penalty(delta) + strength * (bias**2).sum()
    off = matrix * (1 - torch.eye(k))
    total = total + s2 * strength * k * (off**2).sum()
    y = rows @ matrix.T + bias
    loss = torch.nn.functional.cross_entropy(y, torch.tensor(labels)) + total / n
    loss.backward()
    value, gradient = function(theta)
    assert value == pytest.approx(loss.item(), rel=1e-10)
    by_weights, by_bias = weights.grad.numpy(), bias.grad.numpy()
    found = gradient[:, :-1] if full else gradient[:, 0]
    assert found == pytest.approx(by_weights, abs=1e-7)
    assert gradient[:, -1] / function.bias_unit == pytest.approx(by_bias, abs=1e-10)


@both
def test_rows_left_out_are_as_if_absent(full, overconfident):
    weights = np.random.default_rng(1).uniform(size=70)
    function, x, labels = made(overconfident, full, weights, left_out=slice(10, 31))
    kept = np.r_[0:10, 31:70]
    alone = LinearObjective(x[:, kept], labels[kept], weights[kept], full=full)
    theta = point(function)
    value, gradient = function(theta)
    expected, by_theta = alone(function.pack(*function.unpack(theta)))
    assert value == pytest.approx(expected, rel=1e-12)
    assert gradient == pytest.approx(by_theta, abs=1e-12)
    assert function.curvature == pytest.approx(alone.curvature, abs=1e-12)


@both
def test_float32_is_close_to_float64(full, overconfident):
    exact, _, _ = made(overconfident, full, n=500, k=20)
    rough, _, _ = made(overconfident, full, n=500, k=20, dtype=np.float32)
    theta = point(exact)
    assert rough(theta)[0] == pytest.approx(exact(theta)[0], rel=1e-6)
    assert rough(theta)[1] == pytest.approx(exact(theta)[1], abs=1e-6)


def test_the_preconditioner_is_the_inverse_hessian_of_equal_rows():
    """With one distinct row the mean of Kronecker products is one product, so it is exact."""
    row = np.array([0.5, -0.2, -0.3])
    x = np.repeat(row[:, None], 6, axis=1)
    function = LinearObjective(x, np.array([0, 1, 2, 0, 0, 1]), None, full=True)
    function.shrink(1e-9)  # without priors
    start = function.pack(np.eye(3), np.zeros(3))
    direction = point(function, size=1.0)
    step = 1e-5
    ahead, behind = (function(start + sign * step * direction)[1] for sign in (1, -1))
    turned = (ahead - behind) / (2 * step)  # the Hessian times the direction
    back = function.precondition(turned)
    # Directions without curvature are lost; what is left must turn the gradient the same way.
    ahead, behind = (function(start + sign * step * back)[1] for sign in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(turned, abs=1e-5)


def test_the_preconditioner_saves_steps(overconfident):
    calls = {}
    for preconditioned in (False, True):
        function, _, _ = made(overconfident, True, n=1_000, k=30)
        function.shrink(0.3)
        count = []

        def counted(theta, function=function, count=count):
            count.append(theta)
            return function(theta)

        start = function.pack(np.eye(30), np.zeros(30))
        _, converged = minimise_convex(
            counted,
            start,
            max_steps=500,
            tolerance=1e-6,
            precondition=function.precondition if preconditioned else None,
        )
        assert converged
        calls[preconditioned] = len(count)
    assert calls[True] < 0.6 * calls[False], calls
