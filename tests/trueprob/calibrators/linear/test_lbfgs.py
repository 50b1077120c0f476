import numpy as np
import pytest
from scipy.optimize import minimize

from trueprob.calibrators.linear.lbfgs import minimise_convex


def made(size: int, seed: int):
    """A convex function that is no parabola, badly scaled: log of a sum of exponentials."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(4 * size, size)) * np.geomspace(0.1, 10.0, size)
    shift = generator.normal(size=4 * size)

    def objective(x):
        terms = rows @ x + shift
        weights = np.exp(terms - terms.max())
        value = terms.max() + np.log(weights.sum()) + 0.005 * x @ x
        return float(value), rows.T @ (weights / weights.sum()) + 0.01 * x

    return objective


@pytest.mark.parametrize("size", [1, 3, 30])
def test_it_ends_where_scipy_does(size):
    objective = made(size, size)
    expected = minimize(objective, np.zeros(size), jac=True, options={"gtol": 1e-10})
    point, converged = minimise_convex(objective, np.zeros(size), max_steps=500, tolerance=1e-17)
    assert converged
    assert objective(point)[0] == pytest.approx(expected.fun, abs=1e-12)
    assert point == pytest.approx(expected.x, abs=1e-5)


def test_a_minimum_that_is_where_it_starts_takes_no_step():
    calls = []

    def objective(x):
        calls.append(x)
        return float(x @ x), 2.0 * x

    point, converged = minimise_convex(objective, np.zeros(3), max_steps=9, tolerance=1e-8)
    assert converged
    assert len(calls) == 1
    assert not point.any()


def test_the_inverse_hessian_as_preconditioner_makes_newton_steps():
    scales = np.geomspace(1e-3, 1e3, 9)
    calls = []

    def objective(x):
        calls.append(x)
        return float(0.5 * scales @ (x - 1.0) ** 2), scales * (x - 1.0)

    point, converged = minimise_convex(
        objective, np.zeros(9), max_steps=9, tolerance=1e-12, precondition=lambda g: g / scales
    )
    assert converged
    assert point == pytest.approx(np.ones(9))
    assert len(calls) == 2


def test_running_out_of_steps_is_said():
    start = np.full(30, 2.0)
    objective = made(30, 30)
    point, converged = minimise_convex(objective, start, max_steps=2, tolerance=0.0)
    assert not converged
    assert objective(point)[0] < objective(start)[0]


def test_steps_into_infinity_are_taken_back():
    def objective(x):
        with np.errstate(over="ignore"):
            return float(np.exp(x[0]) - 700.0 * x[0]), np.exp(x) - 700.0

    point, converged = minimise_convex(objective, np.array([-20.0]), max_steps=200, tolerance=1e-16)
    assert converged
    assert point[0] == pytest.approx(np.log(700.0))
