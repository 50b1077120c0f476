"""`smart` on rows of many classes: both stages in eight passes over a block of logits.

Written plainly, the gap, the softmax and the map of the confidence each copy the block and look
for its largest values again. Here the gap is read off the differences that the softmax needs
anyway, and a row's confidence is known before any probability is written (`row_factors`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.logit_functions import Logits, Probabilities
from trueprob.calibrators.base import Calibrated
from trueprob.calibrators.row_factors import row_factors, within_float32
from trueprob.calibrators.smart.second_stage import SecondStage

__all__ = ["calibrate_wide_rows"]


def calibrate_wide_rows(
    logits: Logits,  # (n, k) float32
    inverse_temperature: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    uniform_weight: float,  # w of the mixture with the uniform distribution
    second_stage: SecondStage | None,
    *,
    out: Probabilities | None = None,  # (n, k) float32, where the probabilities are written
) -> Calibrated:
    """The same as gap, tempered softmax, mixture and second stage one after another.

    Returns: ``p[prediction] == max(p)`` holds exactly.
    """
    n, k = logits.shape
    rows = np.arange(n)
    top = logits.argmax(axis=1)
    # float32 extremes may differ by more than float32 holds: −inf is right, exp gives 0.
    with np.errstate(over="ignore", under="ignore"):
        work = np.subtract(logits, logits[rows, top][:, None], out=out)
        work[rows, top] = -np.inf
        second = work.argmax(axis=1)
        # From zero, for a gap of +0 between equal logits.
        gap = np.minimum(np.float32(0.0) - work[rows, second], np.finfo(np.float32).max)
        beta = inverse_temperature(gap)
        work *= within_float32(beta)[:, None]
        np.exp(work, out=work)  # 0 for the top class
        factor, offset, confidence = row_factors(
            work.sum(axis=1), work[rows, second], k, uniform_weight, second_stage
        )
        work *= factor[:, None]
        if uniform_weight:
            work += np.asarray(offset)[..., None]
        work[rows, top] = confidence
    return Calibrated(work, top.astype(np.int64, copy=False), confidence, 1.0 / beta, gap)
