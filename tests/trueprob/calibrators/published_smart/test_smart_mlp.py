import numpy as np
import pytest
import torch

from trueprob.arrays.logit_functions import logit_gap
from trueprob.calibrators import fit_smart_mlp
from trueprob.calibrators.published_smart.network import (
    GapScaling,
    before_softplus,
    initial_weights,
    kinks,
)
from trueprob.calibrators.published_smart.objective import fit_network, loss_and_gradient
from trueprob.calibrators.soft_ece import CENTRES, soft_ece
from trueprob.scores.score import score


def loss_by_torch(weights, x, logits, labels, share):
    """The published loss as the formulas read."""
    w, b, v = weights[:16], weights[16:32], weights[32:48]
    h = torch.nn.functional.softplus(torch.relu(x[:, None] * w + b) @ v + weights[48]) + 0.1
    p = torch.softmax(logits / h[:, None], dim=1)
    confidence, top = p.max(dim=1)
    correct = (top == labels).double()
    kernel = torch.exp(-((confidence[:, None] - torch.tensor(CENTRES)) ** 2) / (2 * 0.05**2))
    member = kernel / kernel.sum(dim=1, keepdim=True) * share[:, None]
    total = member.sum(dim=0)
    mean_confidence = (member * confidence[:, None]).sum(dim=0) / total
    accuracy = (member * correct[:, None]).sum(dim=0) / total
    return (total * torch.sqrt((mean_confidence - accuracy) ** 2 + 0.001**2)).sum()


def test_loss_and_gradient_are_those_of_automatic_differentiation(overconfident):
    logits, labels = overconfident(90, 4)
    share = np.random.default_rng(2).dirichlet(np.ones(90))
    gap = logit_gap(logits)
    x = GapScaling.of(gap, share).apply(gap)
    weights = np.random.default_rng(3).normal(size=49) * 0.5
    shifted = np.ascontiguousarray(logits.T, dtype=np.float64)
    shifted -= shifted.max(axis=0)
    correct = (logits.argmax(axis=1) == labels).astype(np.float64)
    value, gradient = loss_and_gradient(weights, x, shifted, correct, share)
    parameters = torch.tensor(weights, requires_grad=True)
    expected = loss_by_torch(
        parameters,
        torch.tensor(x),
        torch.tensor(logits, dtype=torch.float64),
        torch.tensor(labels),
        torch.tensor(share),
    )
    expected.backward()
    assert value == pytest.approx(expected.item(), rel=1e-10)
    assert gradient == pytest.approx(parameters.grad.numpy(), rel=1e-7, abs=1e-11)


def test_between_its_kinks_the_network_is_linear():
    weights = initial_weights(np.random.default_rng(4))
    found = kinks(-3.0, 3.0, weights)
    assert found.shape[0] >= 10
    edges = np.concatenate([[-3.0], found, [3.0]])
    ends, _ = before_softplus(edges, weights)
    for share in (0.25, 0.5, 0.75):
        between = edges[:-1] + share * np.diff(edges)
        values, _ = before_softplus(between, weights)
        assert values == pytest.approx(ends[:-1] + share * np.diff(ends), abs=1e-12)


def test_soft_ece_of_perfect_confidences_is_nearly_nothing():
    confidence = np.linspace(0.3, 0.9, 50)
    value, _ = soft_ece(confidence, confidence, np.full(50, 0.02))
    assert value == pytest.approx(0.001)  # the Charbonnier constant remains


@pytest.mark.slow
def test_training_improves_the_calibration(overconfident):
    logits, labels = overconfident(400, factor=3.0)
    calibrator = fit_smart_mlp(logits, labels).calibrator
    before = score(torch.softmax(torch.tensor(logits), dim=1).numpy(), labels)
    assert score(calibrator.predict_proba(logits), labels).ece < 0.3 * before.ece


def test_the_seed_draws_the_start(overconfident):
    logits, labels = overconfident(40)
    first = fit_network(logits, labels, seed=0, epochs=3)[1]
    assert np.array_equal(first, fit_network(logits, labels, seed=0, epochs=3)[1])
    assert not np.array_equal(first, fit_network(logits, labels, seed=1, epochs=3)[1])
