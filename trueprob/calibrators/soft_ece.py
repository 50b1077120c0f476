"""The soft ECE that SMART is trained on (arXiv:2506.23492), with its gradient.

Charbonnier soft ECE, c_b = (b + ½)/15, ε = 0.001, τ = 0.05:

    w_ib ∝ exp(−(conf_i − c_b)² / (2τ²)), Σ_b w_ib = 1;   W_b = Σ_i w_ib
    conf_b = Σ_i w_ib·conf_i / W_b,   acc_b = Σ_i w_ib·correct_i / W_b
    loss = Σ_b (W_b/n)·sqrt((conf_b − acc_b)² + ε²)

With D_b = Σ_i w_ib·(conf_i − correct_i), W_b·sqrt((D_b/W_b)² + ε²) = sqrt(D_b² + ε²W_b²). This form
has no division, so it is the one that is differentiated here.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["soft_ece"]

CENTRES: Final = (np.arange(15) + 0.5) / 15
BANDWIDTH: Final = 0.05
CHARBONNIER: Final = 0.001

Array = NDArray[np.float64]


def soft_ece(
    confidence: Array, correct: Array | NDArray[np.bool_], share: Array
) -> tuple[float, Array]:
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
