"""Training of the published SMART network on its soft ECE, with hand-written gradients."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, logit_gap
from trueprob.calibrators.published_smart.network import (
    H_FLOOR,
    GapScaling,
    before_softplus,
    initial_weights,
    weight_gradient,
)
from trueprob.calibrators.soft_ece import soft_ece

__all__ = ["fit_network", "loss_and_gradient"]

LEARNING_RATE: Final = 5e-3
EPOCHS: Final = 2_000  # full-batch steps
ADAM_DECAY: Final = (0.9, 0.999)
ADAM_EPSILON: Final = 1e-8

FARTHEST: Final = -1e15  # nats, of masked classes too; their terms are 0, and 0 · −inf is NaN

Array = NDArray[np.float64]


def loss_and_gradient(
    weights: Array,  # (49,)
    x: Array,  # (n,), scaled gaps
    shifted: Array,  # (k, n), logits minus their row's maximum
    correct: Array,  # (n,)
    share: Array,  # (n,), weights that sum to one
) -> tuple[float, Array]:
    """Loss of the network and its gradient by its weights."""
    out, hidden = before_softplus(x, weights)
    h = np.logaddexp(0.0, out) + H_FLOOR
    with np.errstate(under="ignore"):
        terms = np.exp(shifted / h)
        total = terms.sum(axis=0)
        confidence = 1.0 / total
        # conf = 1/Σ exp(d/h):  dconf/dh = conf²·Σ exp(d/h)·d/h²
        by_h = np.square(confidence / h) * (terms * shifted).sum(axis=0)
        loss, by_confidence = soft_ece(confidence, correct, share)
        # softplus' = sigmoid, written through tanh so that no exponential overflows
        by_out = by_confidence * by_h * (0.5 + 0.5 * np.tanh(0.5 * out))
        gradient = weight_gradient(x, hidden, weights, by_out)
    return loss, gradient


def fit_network(
    logits: Logits,
    labels: Labels,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> tuple[GapScaling, Array]:
    """Train by full-batch Adam for all epochs; the last state is the result."""
    n = labels.shape[0]
    share = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    gap = logit_gap(logits)
    scaling = GapScaling.of(gap, share)
    x = scaling.apply(gap)
    # Sorted, so that the order of classes does not matter: training magnifies rounding errors.
    shifted = np.sort(logits.T.astype(np.float64), axis=0)
    shifted = np.maximum(shifted - shifted[-1], FARTHEST)
    correct = (logits.argmax(axis=1) == labels).astype(np.float64)

    state = initial_weights(np.random.default_rng(seed))
    first, second = np.zeros_like(state), np.zeros_like(state)
    decay1, decay2 = ADAM_DECAY
    for step in range(1, epochs + 1):
        _, gradient = loss_and_gradient(state, x, shifted, correct, share)
        first += (1 - decay1) * (gradient - first)
        second += (1 - decay2) * (np.square(gradient) - second)
        corrected = np.sqrt(second / (1 - decay2**step)) + ADAM_EPSILON
        state = state - LEARNING_RATE * first / (1 - decay1**step) / corrected
    return scaling, state
