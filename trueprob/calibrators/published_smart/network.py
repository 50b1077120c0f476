"""The network of `smart-mlp` from logit gap to temperature, with 49 weights.

    x = (clip(g, g_lo, g_hi) − mean) / sd
    h = softplus(relu(x·w + b)·v + c) + 0.1,   w, b, v of 16 units

(arXiv:2506.23492). All weights are in one vector: w, b, v, c.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HIDDEN",
    "H_FLOOR",
    "GapScaling",
    "before_softplus",
    "initial_weights",
    "kinks",
    "weight_gradient",
]

HIDDEN: Final = 16
H_FLOOR: Final = 0.1

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
        # When all gaps are equal, x is 0 for any positive deviation.
        return cls(float(g.min()), float(g.max()), mean, deviation if deviation > 0 else 1.0)

    def apply(self, gap: NDArray[np.float32]) -> Array:
        """The network's input."""
        clipped = np.clip(gap.astype(np.float64), self.low, self.high)
        return np.asarray((clipped - self.mean) / self.deviation)


def initial_weights(generator: np.random.Generator) -> Array:
    """Weights as torch draws them for linear layers: uniform within 1/√inputs."""
    first = generator.uniform(-1.0, 1.0, 2 * HIDDEN)
    return np.concatenate([first, generator.uniform(-1.0, 1.0, HIDDEN + 1) / np.sqrt(HIDDEN)])


def before_softplus(x: Array, weights: Array) -> tuple[Array, Array]:
    """The network's output of shape (n,), and its hidden units of shape (n, 16)."""
    w, b, v, c = _layers(weights)
    hidden = np.maximum(x[:, None] @ w + b, 0.0)
    return (hidden @ v)[:, 0] + c[0], hidden


def kinks(low: float, high: float, weights: Array) -> Array:
    """Inputs between low and high where the slope of `before_softplus` may change, increasing."""
    edges = np.array([low, high])
    w, b, _, _ = _layers(weights)
    left, right = edges[:, None] @ w + b
    crossed = left * right < 0.0
    left, right = left[crossed], right[crossed]
    found = low + left / (left - right) * (high - low)
    return np.unique(np.concatenate([edges, found]))[1:-1]


def weight_gradient(x: Array, hidden: Array, weights: Array, by_out: Array) -> Array:
    """Gradient by the weights, given that by each row's `before_softplus`."""
    _, _, v, _ = _layers(weights)
    by_out = by_out[:, None]
    by_hidden = (by_out @ v.T) * (hidden > 0.0)
    return np.concatenate(
        [
            (x[:, None].T @ by_hidden).ravel(),
            by_hidden.sum(axis=0),
            (hidden.T @ by_out).ravel(),
            by_out.sum(axis=0),
        ]
    )


def _layers(weights: Array) -> tuple[Array, Array, Array, Array]:
    """Views w (1, 16), b (16,), v (16, 1), c (1,)."""
    w, b, v, c = np.split(weights, (HIDDEN, 2 * HIDDEN, 3 * HIDDEN))
    return w[None, :], b, v[:, None], c
