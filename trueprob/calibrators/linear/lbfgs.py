"""L-BFGS for the smooth, strictly convex objectives of linear stages.

Nocedal and Wright 2006, *Numerical Optimization*, algorithms 7.4 (two-loop recursion) and 7.5.
The line search backtracks by quadratic interpolation until the decrease is sufficient (Armijo).
Convexity makes the curvature of every step positive, so no further condition is needed.

SciPy's minimiser is not used. Between evaluations it calls threaded linear algebra for matrices of
forty rows, and these threads wait by spinning: on a busy machine fits of ten classes took ten
times as long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["minimise_convex"]

HISTORY: Final = 20
SUFFICIENT: Final = 1e-4  # share of the decrease that the slope predicts
SHORTEST: Final = 1e-10  # relative step; below it rounding errors dominate

Array = NDArray[np.float64]
Objective = Callable[[Array], tuple[float, Array]]


def minimise_convex(
    objective: Objective,  # value and gradient at a point of any shape
    start: Array,
    *,
    max_steps: int,
    tolerance: float,  # of the value: stops when half the slope of a full step is at most this
    precondition: Callable[[Array], Array] | None = None,  # H⁻¹g with an approximate Hessian H
) -> tuple[Array, bool]:
    """The lowest point found, and whether the steps converged.

    Half the slope is the decrease that the quadratic model expects of a step.
    """
    point = np.array(start, dtype=np.float64)
    value, gradient = objective(point)
    pairs: deque[tuple[Array, Array, float]] = deque(maxlen=HISTORY)
    for _ in range(max_steps):
        direction = -_inverse_curvature(gradient, pairs, precondition)
        slope = _dot(gradient, direction)
        if -0.5 * slope <= tolerance:
            return point, True
        step = 1.0
        if precondition is None and not pairs:
            step = min(1.0, 1.0 / np.sqrt(_dot(gradient, gradient)))
        while True:
            proposal = point + step * direction
            new_value, new_gradient = objective(proposal)
            if new_value <= value + SUFFICIENT * step * slope:
                break
            if step < SHORTEST:
                return point, True  # any lower point would be within rounding errors
            # Minimum of the parabola through both values and the slope, within 0.1 to 0.5 steps.
            curve = new_value - value - step * slope
            shorter = -0.5 * slope * step * step / curve if np.isfinite(curve) else 0.0
            step = min(max(shorter, 0.1 * step), 0.5 * step)
        moved, turned = proposal - point, new_gradient - gradient
        curvature = _dot(moved, turned)
        if curvature > 1e-14 * _dot(turned, turned):
            pairs.append((moved, turned, curvature))
        point, value, gradient = proposal, new_value, new_gradient
    return point, False


def _inverse_curvature(
    gradient: Array,
    pairs: deque[tuple[Array, Array, float]],
    precondition: Callable[[Array], Array] | None,
) -> Array:
    """Approximation of H⁻¹g from the last steps (two-loop recursion)."""
    result = gradient.copy()
    factors = []
    for moved, turned, curvature in reversed(pairs):
        factor = _dot(moved, result) / curvature
        result -= factor * turned
        factors.append(factor)
    if precondition is not None:
        result = precondition(result)
    if pairs:
        _, turned, curvature = pairs[-1]
        by_turned = turned if precondition is None else precondition(turned)
        result *= curvature / _dot(turned, by_turned)
    for (moved, turned, curvature), factor in zip(pairs, reversed(factors), strict=True):
        result += (factor - _dot(turned, result) / curvature) * moved
    return result


def _dot(a: Array, b: Array) -> float:
    """Dot product without BLAS, which starts threads at ten thousand entries."""
    return float(np.einsum("i,i->", a.ravel(), b.ravel()))
