"""SMART as its authors' code trains it, in NumPy and float64: `smart-mlp` with a second layer.

    x = (clip(g, g_lo, g_hi) − mean) / sd,   h = softplus(MLP 1 → 16 → 16 → 1, ReLU) + 0.1
    p = softmax(z / h)

Soft ECE, Adam at 5e-3 and at most 2 000 full-batch steps as in the paper (arXiv:2506.23492), but
stopped after 200 steps without an improvement by 1e-4, with the best state kept. All weights are
one vector, layer after layer, each its matrix row by row (inputs × outputs) and then its biases.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, logit_gap, tempered_softmax
from trueprob.calibrators.published_smart.network import H_FLOOR, GapScaling
from trueprob.calibrators.soft_ece import soft_ece

SHAPES = tuple(pairwise((1, 16, 16, 1)))  # (inputs, outputs) of each layer: 321 weights
LEARNING_RATE = 5e-3
EPOCHS = 2_000
PATIENCE = 200
MIN_DELTA = 1e-4
ADAM_DECAY = (0.9, 0.999)
ADAM_EPSILON = 1e-8

Array = NDArray[np.float64]


def initial_weights(generator: np.random.Generator) -> Array:
    """Weights as torch draws them for linear layers: uniform within 1/√inputs."""
    return np.concatenate(
        [
            generator.uniform(-1.0, 1.0, (inputs + 1) * outputs) / np.sqrt(inputs)
            for inputs, outputs in SHAPES
        ]
    )


def layers(weights: Array) -> list[tuple[Array, Array]]:
    """Matrix (inputs, outputs) and biases of each layer, as views."""
    result, start = [], 0
    for inputs, outputs in SHAPES:
        middle, end = start + inputs * outputs, start + (inputs + 1) * outputs
        result.append((weights[start:middle].reshape(inputs, outputs), weights[middle:end]))
        start = end
    return result


def before_softplus(x: Array, weights: Array) -> tuple[Array, list[Array]]:
    """The last layer's output of shape (n,), and the input (n, inputs) of each layer."""
    inputs = [x[:, None]]
    *hidden, (last, bias) = layers(weights)
    for matrix, biases in hidden:
        inputs.append(np.maximum(inputs[-1] @ matrix + biases, 0.0))
    return (inputs[-1] @ last)[:, 0] + bias[0], inputs


def loss_and_gradient(
    weights: Array, x: Array, shifted: Array, correct: Array
) -> tuple[float, Array]:
    """Soft ECE of the network and its gradient by the weights.

    `x` has shape (n,), `shifted` (k, n): logits minus their row's maximum.
    """
    out, inputs = before_softplus(x, weights)
    h = np.logaddexp(0.0, out) + H_FLOOR
    with np.errstate(under="ignore"):
        terms = np.exp(shifted / h)
        confidence = 1.0 / terms.sum(axis=0)
        by_h = np.square(confidence / h) * (terms * shifted).sum(axis=0)
        share = np.full(x.shape[0], 1.0 / x.shape[0])
        loss, by_confidence = soft_ece(confidence, correct, share)
        by_layer = (by_confidence * by_h * (0.5 + 0.5 * np.tanh(0.5 * out)))[:, None]
    parts: list[Array] = []
    for (matrix, _), given in zip(reversed(layers(weights)), reversed(inputs), strict=True):
        parts[:0] = [(given.T @ by_layer).ravel(), by_layer.sum(axis=0)]
        by_layer = (by_layer @ matrix.T) * (given > 0.0)
    return loss, np.concatenate(parts)


def train(
    weights: Array,
    loss_of: Callable[[Array], tuple[float, Array]],
    *,
    epochs: int = EPOCHS,
    patience: int = PATIENCE,
    min_delta: float = MIN_DELTA,
) -> Array:
    """Full-batch Adam until `patience` steps in a row lowered the loss by less; the best state."""
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    decay1, decay2 = ADAM_DECAY
    best, best_weights, waited = np.inf, weights, 0
    for step in range(1, epochs + 1):
        loss, gradient = loss_of(weights)
        if loss < best - min_delta:
            best, best_weights, waited = loss, weights, 0
        else:
            waited += 1
            if waited >= patience:
                break
        first += (1 - decay1) * (gradient - first)
        second += (1 - decay2) * (np.square(gradient) - second)
        corrected = np.sqrt(second / (1 - decay2**step)) + ADAM_EPSILON
        weights = weights - LEARNING_RATE * first / (1 - decay1**step) / corrected
    return best_weights


def fit_smart_mlp_authors(logits: Logits, labels: Labels) -> Callable[[Logits], Probabilities]:
    """Train on the logits; a function from logits to probabilities."""
    gap = logit_gap(logits)
    n = labels.shape[0]
    scaling = GapScaling.of(gap, np.full(n, 1.0 / n))
    x = scaling.apply(gap)
    # Sorted, so that the order of classes has no say: the training magnifies every last bit.
    shifted = np.sort(logits.T.astype(np.float64), axis=0)
    shifted -= shifted[-1]
    correct = (logits.argmax(axis=1) == labels).astype(np.float64)
    weights = train(
        initial_weights(np.random.default_rng(0)),
        lambda state: loss_and_gradient(state, x, shifted, correct),
    )

    def predict(z: Logits) -> Probabilities:
        out, _ = before_softplus(scaling.apply(logit_gap(z)), weights)
        return tempered_softmax(z, np.logaddexp(0.0, out) + H_FLOOR)

    return predict
