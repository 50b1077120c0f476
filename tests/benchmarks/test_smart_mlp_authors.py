"""The authors' recipe of SMART: its gradient, its early stopping, and one small fit."""

import numpy as np
import pytest

from benchmarks.calibration.smart_mlp_authors import (
    fit_smart_mlp_authors,
    initial_weights,
    loss_and_gradient,
    train,
)
from trueprob import score, softmax


@pytest.fixture
def overconfident() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    logits = 2.0 * generator.normal(size=(400, 4))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    return (3.0 * logits).astype(np.float32), labels


def test_the_gradient_is_that_of_the_loss() -> None:
    generator = np.random.default_rng(1)
    x = generator.normal(size=60)
    shifted = -np.sort(generator.exponential(4.0, size=(3, 60)), axis=0)[::-1]
    shifted -= shifted[-1]
    correct = (generator.random(60) < 0.6).astype(np.float64)
    weights = initial_weights(generator)
    _, gradient = loss_and_gradient(weights, x, shifted, correct)
    for direction in generator.normal(size=(5, weights.size)):
        ahead, _ = loss_and_gradient(weights + 1e-6 * direction, x, shifted, correct)
        behind, _ = loss_and_gradient(weights - 1e-6 * direction, x, shifted, correct)
        assert gradient @ direction == pytest.approx((ahead - behind) / 2e-6, rel=1e-4, abs=1e-7)


def test_patience_keeps_the_best_state() -> None:
    seen: list[tuple[float, float]] = []

    def rises_after_its_valley(state: np.ndarray) -> tuple[float, np.ndarray]:
        seen.append((abs(float(state[0]) - 0.02), float(state[0])))
        return seen[-1][0], np.array([-1.0])  # walks on, past 0.02

    kept = train(np.zeros(1), rises_after_its_valley, patience=10, min_delta=0.0)
    assert kept[0] == min(seen)[1]
    assert kept[0] == pytest.approx(0.02, abs=0.005)
    assert len(seen) - 1 - seen.index(min(seen)) == 10
    # No step lowers the loss by a whole nat: the start is the best, and three steps are enough.
    seen.clear()
    assert train(np.zeros(1), rises_after_its_valley, patience=3, min_delta=1.0)[0] == 0.0
    assert len(seen) == 4


@pytest.mark.slow
def test_training_improves_the_calibration(
    overconfident: tuple[np.ndarray, np.ndarray],
) -> None:
    logits, labels = overconfident
    after = score(fit_smart_mlp_authors(logits, labels)(logits), labels)
    assert after.ece < 0.3 * score(softmax(logits), labels).ece
