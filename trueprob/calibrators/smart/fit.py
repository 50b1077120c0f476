"""Fit of the log slopes of `smart`: damped Newton steps from the single temperature.

A fit takes 5 to 10 steps, each one pass over the logits. Large sets take most steps on a sample
of their rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, logit_gap
from trueprob.calibrators.smart.objective import (
    DEFAULT_TERMS,
    SmartObjective,
    Terms,
    interval_edges,
)
from trueprob.calibrators.temperature import LOG_RANGE, inverse_temperature, sample_rows

__all__ = ["LogSlopes", "fit_log_slopes", "minimise"]

MAX_STEPS: Final = 60
TOLERANCE: Final = 1e-10  # nats of expected improvement of the mean at which steps stop

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LogSlopes:
    """Fitted log slopes of `smart`."""

    edges: Array  # (m − 1,), inner edges of the intervals, nats
    log_slopes: Array  # (m,)
    converged: bool
    objective: SmartObjective


def fit_log_slopes(
    logits: Logits,
    labels: Labels,
    weights: Array | None = None,
    *,
    n_intervals: int = 8,
    terms: Terms = DEFAULT_TERMS,
) -> LogSlopes:
    """Minimise the objective from the single temperature of maximum likelihood."""
    edges = interval_edges(logit_gap(logits).astype(np.float64), n_intervals)
    size = edges.shape[0] + 1
    few = sample_rows(logits, weights)
    if few is not None:
        # After the fit on a sample, two or three passes over all rows remain.
        part = None if weights is None else weights[few]
        sampled = SmartObjective(logits[few], labels[few], part, edges, terms)
        start, _ = minimise(sampled, _start(sampled, logits[few], labels[few], part, size))
        objective = SmartObjective(logits, labels, weights, edges, terms)
    else:
        objective = SmartObjective(logits, labels, weights, edges, terms)
        start = _start(objective, logits, labels, weights, size)
    log_slopes, converged = minimise(objective, start)
    return LogSlopes(edges, log_slopes, converged, objective)


def _start(
    objective: SmartObjective, logits: Logits, labels: Labels, weights: Array | None, size: int
) -> Array:
    """Equal log slopes at the single temperature of maximum likelihood."""
    start, inside = inverse_temperature(logits, labels, weights, tolerance=1e-3)
    theta = np.full(size, math.log(start))
    if not inside:
        # The likelihood alone has no maximum, so the prior decides, and it is not convex: search
        # among single temperatures, log slope 0 (the prior's optimum) included.
        candidates = [0.0, *(math.log(start) + np.arange(-2 * LOG_RANGE, 2 * LOG_RANGE + 1))]
        return min(
            (np.full(size, float(value)) for value in candidates if abs(value) < 60.0),
            key=lambda point: objective(point)[0],
        )
    return theta


def minimise(
    objective: Callable[[Array], tuple[float, Array, Array]],  # value, gradient and Hessian
    theta: Array,
) -> tuple[Array, bool]:
    """The best point of damped Newton steps, and whether they converged."""
    value, gradient, curvature = objective(theta)
    damping = 0.0
    for _ in range(MAX_STEPS):
        step, expected = _newton_step(gradient, curvature, damping)
        if expected < TOLERANCE:
            return theta, True
        longest = float(np.abs(step).max())
        if longest > 2.0:  # the quadratic model is local: slopes change by at most e² per step
            step *= 2.0 / longest
        proposal = theta + step
        new_value, new_gradient, new_curvature = objective(proposal)
        if new_value < value - 1e-4 * expected:
            theta, value, gradient, curvature = proposal, new_value, new_gradient, new_curvature
            damping = 0.0 if damping < 1e-6 else damping / 10.0
        elif expected < 1e-7:  # below the resolution of float32 passes
            return theta, True
        else:
            damping = max(10.0 * damping, 1e-3)
    return theta, False


def _newton_step(gradient: Array, curvature: Array, damping: float) -> tuple[Array, float]:
    """Damped step −|H|⁻¹g, |H| with absolute eigenvalues, and the expected improvement."""
    values, vectors = np.linalg.eigh(0.5 * (curvature + curvature.T))
    size = max(float(np.abs(values).max()), 1e-300)
    along = vectors.T @ gradient
    safe = np.maximum(np.abs(values), 1e-12 * size) + damping * size
    step = -vectors @ (along / safe)
    return step, float(0.5 * along @ (along / safe))
