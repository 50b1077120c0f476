"""`smart` on rows of few classes: both stages on a class-major copy of a block of logits.

One vector operation then takes a class of all rows at once; along rows of ten classes NumPy would
begin anew ten numbers later. The gap is read off the differences that the softmax needs anyway.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.logit_functions import Logits
from trueprob.calibrators.base import Calibrated
from trueprob.calibrators.row_factors import row_factors, within_float32
from trueprob.calibrators.smart.second_stage import SecondStage

__all__ = ["calibrate_narrow_rows"]

_LARGEST = np.finfo(np.float32).max
_ZERO = np.float32(0.0)


def calibrate_narrow_rows(
    logits: Logits,  # (n, k) float32
    inverse_temperature: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    uniform_weight: float,  # w of the mixture with the uniform distribution
    second_stage: SecondStage | None,
) -> Calibrated:
    """The same as gap, tempered softmax, mixture and second stage one after another.

    Returns: ``p[prediction] == max(p)`` holds exactly.
    """
    n, k = logits.shape
    top = logits.argmax(axis=1)
    work = np.array(logits.T, order="C")
    flat = work.reshape(-1)
    at = top * n  # where the top classes are in `flat`
    at += np.arange(n)
    # float32 extremes may differ by more than float32 holds: −inf is right, exp gives 0.
    with np.errstate(over="ignore", under="ignore"):
        work -= flat[at]
        flat[at] = -np.inf
        # From zero, for a gap of +0 between equal logits.
        gap = np.minimum(_ZERO - np.maximum.reduce(work, axis=0), _LARGEST)
        beta = inverse_temperature(gap)
        work *= within_float32(beta)
        np.exp(work, out=work)  # 0 for the top class
        factor, offset, confidence = row_factors(
            np.add.reduce(work, axis=0),
            np.maximum.reduce(work, axis=0),
            k,
            uniform_weight,
            second_stage,
        )
        work *= factor
        if uniform_weight:
            work += offset
        flat[at] = confidence
    p, top = np.ascontiguousarray(work.T), top.astype(np.int64, copy=False)
    return Calibrated(p, top, confidence, 1.0 / beta, gap)
