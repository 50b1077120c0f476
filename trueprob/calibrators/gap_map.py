"""The first stage of `smart` in use: inverse temperatures of logit gaps."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["inverse_temperature_of_gap"]

_TINY: Final = float(np.finfo(np.float32).tiny)


def inverse_temperature_of_gap(
    gap: NDArray[np.float32],
    edges: NDArray[np.float64],
    slopes: NDArray[np.float64],
    intercepts: NDArray[np.float64],
) -> NDArray[np.float64]:
    """β(g) = s(g)/g = slope_j + intercept_j / g on segment j, and slope_1 at g = 0."""
    g = gap.astype(np.float64)
    segment = edges.searchsorted(g)
    # The first segment's intercept is 0, so a gap of 0 needs no division by it.
    positive = np.maximum(g, _TINY)
    beta: NDArray[np.float64] = slopes.take(segment) + intercepts.take(segment) / positive
    return beta
