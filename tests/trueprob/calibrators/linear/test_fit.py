import math

import numpy as np
import pytest
from scipy.optimize import minimize

from trueprob.arrays.logit_functions import log_softmax
from trueprob.calibrators.linear.fit import (
    STRENGTHS,
    cross_fit_linear_stage,
    fit_linear_stage,
)
from trueprob.calibrators.linear.stage import LinearStage, centred
from trueprob.calibrators.smart.fit import fit_log_slopes
from trueprob.folds import fold_of_rows

both = pytest.mark.parametrize("full", [False, True])


def folds(logits, labels, n_folds=5):
    return fold_of_rows(logits.argmax(axis=1) == labels, None, n_folds, seed=0)


def favouring(overconfident, n, k=5, *, by=2.0, seed=0):
    logits, labels = overconfident(n, k, factor=1.0, seed=seed)
    logits[:, 2] += np.float32(by)
    return logits, labels


@both
@pytest.mark.parametrize("strength", [0.3, 30.0])
def test_the_fit_is_the_optimum_of_the_written_objective(full, strength, overconfident):
    logits, labels = overconfident(70, 4)
    k, n = 4, 70
    fitted = fit_linear_stage(logits, labels, full=full, strength=strength)
    assert fitted.converged
    beta = math.exp(float(fit_log_slopes(logits, labels, n_intervals=1).log_slopes[0]))
    x = beta * centred(logits)
    s2 = (x**2).mean()

    def objective(point):
        delta, bias, weights = point[0], point[1 : k + 1], point[k + 1 :]
        matrix = weights.reshape(k, k) if full else np.diag(weights)
        shift = np.diag(matrix) - 1.0
        off = matrix - np.diag(np.diag(matrix))
        penalty = 0.1 * delta**2 + strength * ((shift - delta) ** 2).sum()
        penalty += strength * k * (off**2).sum()
        nll = -log_softmax(x @ matrix.T + bias)[np.arange(n), labels].mean()
        return nll + (s2 * penalty + strength * (bias**2).sum()) / n

    identity = np.eye(k).ravel() if full else np.ones(k)
    best = minimize(objective, np.concatenate([np.zeros(k + 1), identity]), tol=1e-10)
    weights, bias = np.array(fitted.stage.weights) / beta, np.array(fitted.stage.bias)
    shift = (np.diag(weights.reshape(k, k)) if full else weights) - 1.0
    delta = strength * shift.sum() / (0.1 + k * strength)
    found = objective(np.concatenate([[delta], bias, weights]))
    assert found == pytest.approx(best.fun, abs=1e-5)
    assert bias == pytest.approx(best.x[1 : k + 1], abs=0.05)


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


@both
def test_the_strength_follows_the_data(full, overconfident):
    fitted = []
    for seed in range(6):
        logits, labels = overconfident(100, seed=seed)
        plain = cross_fit_linear_stage(logits, labels, None, folds(logits, labels), full=full)
        logits, labels = favouring(overconfident, 400, by=3.0, seed=seed)
        offset = cross_fit_linear_stage(logits, labels, None, folds(logits, labels), full=full)
        fitted.append((plain.strength, offset.strength))
    plain, offset = np.array(fitted).T
    assert np.isin(plain, STRENGTHS).all()
    assert np.median(plain) == math.inf
    assert offset.max() <= 3.0


@both
def test_the_outputs_are_of_fits_without_the_rows(full, overconfident):
    logits, labels = favouring(overconfident, 300)
    fold = folds(logits, labels)
    crossed = cross_fit_linear_stage(logits, labels, None, fold, full=full)
    assert crossed.strength < math.inf
    for index in range(5):
        held = fold == index
        alone = fit_linear_stage(logits[~held], labels[~held], full=full, strength=crossed.strength)
        assert crossed.outputs[held] == pytest.approx(alone.stage.apply(logits[held]), abs=0.05)
    on_all = fit_linear_stage(logits, labels, full=full, strength=crossed.strength)
    assert crossed.stage.apply(logits) == pytest.approx(on_all.stage.apply(logits), abs=0.05)


@both
def test_a_row_of_its_own_has_the_single_temperature(full, overconfident):
    logits, labels = overconfident(1)
    crossed = cross_fit_linear_stage(logits, labels, None, np.zeros(1, np.int64), full=full)
    assert crossed.strength == math.inf
    assert not any(crossed.stage.bias)
    scaled = np.array(crossed.stage.weights)
    identity = np.eye(5).ravel() if full else np.ones(5)
    assert scaled == pytest.approx(scaled[0] * identity)


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_a_fold_may_hold_all_the_weight(weight, overconfident):
    logits, labels = favouring(overconfident, 100)
    fold = folds(logits, labels)
    weights = np.where(fold == 1, 3.0, 0.0)
    weights[0] = weight
    crossed = cross_fit_linear_stage(logits, labels, weights, fold, full=False)
    assert np.isfinite(crossed.stage.weights).all()
    assert np.isfinite(crossed.outputs).all()


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
