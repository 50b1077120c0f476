"""The published SMART network, its loss and its training, with hand-written gradients.

Loss (Charbonnier soft ECE), c_b = (b + ½)/15, ε = 0.001, τ = 0.05:

    w_ib ∝ exp(−(conf_i − c_b)² / (2τ²)), Σ_b w_ib = 1;   W_b = Σ_i w_ib
    conf_b = Σ_i w_ib·conf_i / W_b,   acc_b = Σ_i w_ib·correct_i / W_b
    loss = Σ_b (W_b/n)·sqrt((conf_b − acc_b)² + ε²)

With D_b = Σ_i w_ib·(conf_i − correct_i), W_b·sqrt((D_b/W_b)² + ε²) = sqrt(D_b² + ε²W_b²), which
has no division and is what is differentiated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays import Labels, Logits, logit_gap

__all__ = ["HIDDEN", "GapScaling", "fit_network", "loss_and_gradient", "network", "soft_ece"]

HIDDEN: Final = 16  # units of the one hidden layer: 16 + 16 + 16 + 1 = 49 parameters
H_FLOOR: Final = 0.1
CENTRES: Final = (np.arange(15) + 0.5) / 15
BANDWIDTH: Final = 0.05
CHARBONNIER: Final = 0.001
LEARNING_RATE: Final = 5e-3
EPOCHS: Final = 2_000
ADAM_DECAY: Final = (0.9, 0.999)
ADAM_EPSILON: Final = 1e-8

Array = NDArray[np.float64]


@dataclass(frozen=True)
class GapScaling:
    """x = (clip(g, low, high) − mean) / deviation."""

    low: float
    high: float
    mean: float
    deviation: float

    @classmethod
    def of(cls, gap: NDArray[np.float32], share: Array) -> GapScaling:
        """Range, mean and standard deviation of the calibration gaps."""
        g = gap.astype(np.float64)
        mean = float(share @ g)
        deviation = float(np.sqrt(share @ np.square(g - mean)))
        # All gaps equal: any positive number does, x is 0.
        return cls(float(g.min()), float(g.max()), mean, deviation if deviation > 0 else 1.0)

    def apply(self, gap: NDArray[np.float32]) -> Array:
        """The network's input."""
        clipped = np.clip(gap.astype(np.float64), self.low, self.high)
        return np.asarray((clipped - self.mean) / self.deviation)


def network(x: Array, weights: Array) -> Array:
    """Temperature h of each input; `weights` are w (16), b (16), v (16), b₂ in this order."""
    hidden = np.maximum(np.multiply.outer(x, weights[:HIDDEN]) + weights[HIDDEN : 2 * HIDDEN], 0.0)
    h: Array = np.logaddexp(0.0, hidden @ weights[2 * HIDDEN : -1] + weights[-1]) + H_FLOOR
    return h


def soft_ece(confidence: Array, correct: Array, share: Array) -> tuple[float, Array]:
    """Soft ECE and its derivative by each confidence; `share` sums to one."""
    distance = confidence[:, None] - CENTRES
    kernel = np.exp(-np.square(distance) / (2.0 * BANDWIDTH**2))
    membership = kernel / kernel.sum(axis=1, keepdims=True)
    error = confidence - correct
    weight = share @ membership
    signed = (share * error) @ membership
    root = np.sqrt(np.square(signed) + (CHARBONNIER * weight) ** 2)
    by_signed = signed / root
    by_weight = CHARBONNIER**2 * weight / root
    # dw_ib/dconf_i = w_ib·(l_ib − Σ_b w_ib·l_ib), l_ib = −(conf_i − c_b)/τ²
    slope = -distance / BANDWIDTH**2
    slope = membership * (slope - (membership * slope).sum(axis=1, keepdims=True))
    by_membership = error[:, None] * by_signed + by_weight
    gradient = share * ((slope * by_membership).sum(axis=1) + membership @ by_signed)
    return float(root.sum()), gradient


def loss_and_gradient(
    weights: Array, x: Array, shifted: Array, correct: Array, share: Array
) -> tuple[float, Array]:
    """Loss of the network and its gradient by the 49 weights.

    Parameters
    ----------
    weights : ndarray of shape (49,)
    x : ndarray of shape (n,)
        Scaled gaps.
    shifted : ndarray of shape (k, n)
        Logits minus their row's maximum, class-major.
    correct, share : ndarray of shape (n,)

    Returns
    -------
    float, ndarray of shape (49,)
    """
    w, b, v = weights[:HIDDEN], weights[HIDDEN : 2 * HIDDEN], weights[2 * HIDDEN : -1]
    before = np.multiply.outer(x, w) + b
    hidden = np.maximum(before, 0.0)
    out = hidden @ v + weights[-1]
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
        by_before = np.multiply.outer(by_out, v) * (before > 0)
        gradient = np.concatenate(
            [x @ by_before, by_before.sum(axis=0), by_out @ hidden, [by_out.sum()]]
        )
    return loss, gradient


def fit_network(
    logits: Logits,
    labels: Labels,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,
    epochs: int = EPOCHS,
) -> tuple[GapScaling, Array]:
    """Train by full-batch Adam from torch's default initialisation of linear layers."""
    n = labels.shape[0]
    share = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    gap = logit_gap(logits)
    scaling = GapScaling.of(gap, share)
    x = scaling.apply(gap)
    shifted = np.ascontiguousarray(logits.T, dtype=np.float64)
    shifted -= shifted.max(axis=0)
    correct = (logits.argmax(axis=1) == labels).astype(np.float64)

    generator = np.random.default_rng(seed)
    bound = 1.0 / np.sqrt(HIDDEN)  # fan-in is 1 for the hidden layer, 16 for the output
    state = np.concatenate(
        [generator.uniform(-1, 1, 2 * HIDDEN), generator.uniform(-bound, bound, HIDDEN + 1)]
    )
    first, second = np.zeros_like(state), np.zeros_like(state)
    decay1, decay2 = ADAM_DECAY
    for step in range(1, epochs + 1):
        _, gradient = loss_and_gradient(state, x, shifted, correct, share)
        first += (1 - decay1) * (gradient - first)
        second += (1 - decay2) * (np.square(gradient) - second)
        corrected = np.sqrt(second / (1 - decay2**step)) + ADAM_EPSILON
        state = state - LEARNING_RATE * first / (1 - decay1**step) / corrected
    return scaling, state
