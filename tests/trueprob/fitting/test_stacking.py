"""Weights and power of a mixture, against slower computations of the same optimum."""

import numpy as np
import pytest
from scipy.optimize import minimize

from trueprob.fitting.stacking import (
    LEAST_WEIGHT,
    MOST_MEMBERS,
    Outcomes,
    em_step,
    fit_mixture,
    fit_weights,
)


def forecasts(n, k=4, *, seed=0, temperatures=(0.4, 1.0, 2.5)):
    """Softmaxes of the true logits at several temperatures, and labels drawn at 1."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, k)) * 2.0
    labels = (logits + generator.gumbel(size=(n, k))).argmax(axis=1)
    columns = []
    for temperature in temperatures:
        noisy = logits + 0.7 * generator.normal(size=(n, k))
        p = np.exp(noisy / temperature)
        columns.append((p / p.sum(axis=1, keepdims=True)).astype(np.float32))
    return columns, labels


@pytest.mark.parametrize("pseudo_rows", [(0.0, 0.0, 0.0), (2.0, 0.0, 0.0), (1.0, 1.0, 1.0)])
def test_em_finds_the_optimum_of_the_written_objective(pseudo_rows):
    columns, labels = forecasts(150)
    share = np.random.default_rng(1).uniform(0.2, 1.8, size=150)
    outcomes = Outcomes.of(columns, labels, share)
    top = sum(columns).argmax(axis=1)

    def written(free):  # weights by a softmax of free numbers
        w = np.exp(free - free.max())
        w /= w.sum()
        value = 0.0
        for i in range(150):
            p = sum(w[m] * float(columns[m][i, labels[i]]) for m in range(3))
            c = sum(w[m] * float(columns[m][i, top[i]]) for m in range(3))
            came_true = c if top[i] == labels[i] else 1.0 - c
            value -= share[i] * (np.log(p) + 3.0 * np.log(came_true)) / 4.0
        return value - np.array(pseudo_rows) @ np.log(np.maximum(w, 1e-300))

    direct = minimize(written, np.zeros(3), method="Nelder-Mead", options={"fatol": 1e-9})
    weights = fit_weights(outcomes, np.array(pseudo_rows))
    assert weights.sum() == pytest.approx(1.0, abs=1e-9)
    reached, _ = em_step(weights, outcomes, np.array(pseudo_rows))
    assert reached == pytest.approx(direct.fun, abs=2e-3)


def test_no_step_raises_the_objective():
    columns, labels = forecasts(80, seed=3)
    outcomes = Outcomes.of(columns, labels, np.ones(80))
    pseudo_rows = np.array([0.0, 2.0, 0.0])
    weights, values = np.full(3, 1 / 3), []
    for _ in range(60):
        value, weights = em_step(weights, outcomes, pseudo_rows)
        values.append(value)
    assert (np.diff(values) <= 1e-12).all()
    assert values[-1] < values[0] - 0.1


def test_a_mean_of_calibrated_forecasts_gets_a_power_above_one():
    """Ranjan and Gneiting 2010: it is under-confident."""
    columns, labels = forecasts(4_000, temperatures=(1.3, 1.3))
    mixture = fit_mixture(columns, labels, Outcomes.of(columns, labels, np.ones(4_000)), np.ones(2))
    assert mixture.members == (0, 1)
    assert mixture.power > 1.1
    grid = np.linspace(-0.3, 0.8, 1_101)
    mean = mixture.weights[0] * columns[0] + mixture.weights[1] * columns[1]
    assert np.exp(min(grid, key=lambda u: _of_power(u, mean, labels))) == pytest.approx(
        mixture.power, rel=2e-3
    )


def _of_power(log_power, mean, labels):
    """NLL + 3 × cross entropy of "is the top label right", summed, with the ridge."""
    p = mean.astype(np.float64) ** np.exp(log_power)
    p /= p.sum(axis=1, keepdims=True)
    rows = np.arange(labels.size)
    right = p.argmax(axis=1) == labels
    confidence = p.max(axis=1)
    top = np.where(right, confidence, 1.0 - confidence)
    return -np.log(p[rows, labels]).sum() - 3.0 * np.log(top).sum() + 200.0 * log_power**2


def test_few_members_remain_and_none_is_tiny():
    columns, labels = forecasts(2_000, temperatures=(0.8, 0.9, 1.0, 1.1, 1.2, 3.0))
    mixture = fit_mixture(
        columns, labels, Outcomes.of(columns, labels, np.ones(2_000)), np.zeros(6)
    )
    assert len(mixture.members) <= MOST_MEMBERS
    assert min(mixture.weights) >= LEAST_WEIGHT
    assert sum(mixture.weights) == pytest.approx(1.0, abs=1e-12)
    assert 5 not in mixture.members


def test_rows_that_do_not_count_change_nothing():
    columns, labels = forecasts(300)
    share = np.ones(300)
    share[200:] = 0.0
    all_rows = fit_mixture(columns, labels, Outcomes.of(columns, labels, share), np.ones(3))
    some = [column[:200] for column in columns]
    alone = fit_mixture(
        some, labels[:200], Outcomes.of(some, labels[:200], share[:200]), np.ones(3)
    )
    assert all_rows.members == alone.members
    assert all_rows.weights == pytest.approx(alone.weights, abs=1e-9)
    assert all_rows.power == pytest.approx(alone.power, rel=1e-6)
    masked = fit_mixture(
        columns,
        labels,
        Outcomes.of(columns, labels, np.ones(300)),
        np.ones(3),
        np.arange(300) < 200,
    )
    assert masked.weights == pytest.approx(alone.weights, abs=1e-9)
