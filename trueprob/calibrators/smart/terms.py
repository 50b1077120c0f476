"""Weights of the objective of `smart`, and its priors on the log slopes θ.

5·Σ(θ_{j+1} − θ_j)²   shrinks to one temperature,
2·log(1 + θ_1²)       shrinks that to 1, with a tail so heavy that badly scaled logits
                      survive it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT_TERMS", "Terms", "prior"]

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Terms:
    """Weights of the objective's terms; other values are for the ablations."""

    top_weight: float = 3.0  # of the cross entropy of "is the top label right"
    smoothness: float = 5.0  # nats of the summed log likelihood for a change of slope by e
    scale_prior: float = 2.0  # nats, times log(1 + θ_1²)
    soft_ece: float = 0.0  # of the loss of the published recipe


DEFAULT_TERMS: Final = Terms()


def prior(theta: Vector, terms: Terms = DEFAULT_TERMS) -> tuple[float, Vector, Vector]:
    """Penalty in nats of the summed log likelihood, its gradient, and a positive curvature.

    The curvature of the heavy tail is its majoriser's, 4/(1 + θ_1²): the true one is negative
    beyond 1.
    """
    difference = np.diff(theta)
    heavy = 1.0 + theta[0] ** 2
    smoothness, scale_prior = terms.smoothness, terms.scale_prior
    value = smoothness * float(difference @ difference) + scale_prior * math.log(heavy)
    gradient = np.zeros_like(theta)
    gradient[1:] += 2.0 * smoothness * difference
    gradient[:-1] -= 2.0 * smoothness * difference
    gradient[0] += 2.0 * scale_prior * theta[0] / heavy
    operator = np.diff(np.eye(theta.shape[0]), axis=0)
    curvature = 2.0 * smoothness * operator.T @ operator
    curvature[0, 0] += 2.0 * scale_prior / heavy
    return value, gradient, curvature
