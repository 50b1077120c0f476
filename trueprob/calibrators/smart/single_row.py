"""`smart` on one row of few classes, without its second stage: the online case.

NumPy's price is by the call, half a microsecond whatever there is to do; what concerns the row as
a whole is therefore done in Python's floats here. They are rounded to float32 where the arrays of
`narrow_rows` are, and a float64 is wide enough for that to be the same rounding (Figueroa 1995,
2·24 + 2 ≤ 53 bits), so a row alone gets the bits that it gets among others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

import numpy as np

from trueprob.arrays.logit_functions import Logits
from trueprob.calibrators.base import Calibrated

__all__ = ["calibrate_single_row"]

_SMALLEST: Final = float(np.finfo(np.float32).tiny)
_ONE: Final = np.float32(1.0)
# Differences up to here times β up to here stay finite in float32; beyond, arrays do it.
_MODERATE: Final = 1e18


def calibrate_single_row(
    logits: Logits,  # (1, k) float32
    edges: Sequence[float],  # β(g) = slope_j + intercept_j / g on segment j
    slopes: Sequence[float],  # β(g) = slope_j + intercept_j / g on segment j
    intercepts: Sequence[float],  # β(g) = slope_j + intercept_j / g on segment j
    uniform_weight: float,  # w of the mixture with the uniform distribution
) -> Calibrated | None:
    """What `narrow_rows` says of one row, bit for bit.

    Returns: none for numbers so large that float32 may overflow.
    """
    row = logits[0]
    top = int(row.argmax())
    values: list[float] = row.tolist()
    largest = values[top]
    if largest - min(values) > _MODERATE:
        return None
    values[top] = -np.inf
    gap = np.float32(0.0 - (max(values) - largest))  # from zero: +0 between equal logits
    g = float(gap)
    segment = bisect_left(edges, g)
    beta = slopes[segment] + intercepts[segment] / max(g, _SMALLEST)
    if not 1e-30 <= beta <= _MODERATE:
        return None
    work = row - row[top]
    work *= np.float32(beta)
    work[top] = -np.inf
    np.exp(work, out=work)
    # One after another, as the class-major sum of many rows goes.
    factor = np.float32(1.0 - uniform_weight) / (_ONE + np.add.accumulate(work)[-1])
    offset = np.float32(uniform_weight / len(values))
    work *= factor
    if uniform_weight:
        work += offset
    work[top] = 0.0
    confidence = max(factor + offset, work.max())
    work[top] = confidence
    return Calibrated(
        work.reshape(1, -1),
        np.array([top]),
        np.array([confidence]),
        np.array([1.0 / beta]),
        np.array([gap]),
    )
