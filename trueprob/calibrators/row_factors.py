"""What `narrow_rows` and `wide_rows` share: what a row's classes are scaled by.

With e_j = exp(β·(z_j − z(1))) every class but the top one has the probability A·e_j + B with a
row's own A and B, which hold the normalisation, the uniform mixture and the second stage's scale;
so the confidence, the rest and the runner-up are known before any probability is written.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators.smart.second_stage import SecondStage

__all__ = ["row_factors", "within_float32"]

_SMALLEST_REST = float(np.finfo(np.float32).tiny)
Row = NDArray[np.float32]


def within_float32(beta: NDArray[np.float64]) -> Row:
    """Inverse temperatures kept well inside float32: 0 · −inf would be NaN."""
    # np.clip costs as much as four ufuncs on one row.
    return np.minimum(np.maximum(beta, 1e-30), 1e30).astype(np.float32)


def row_factors(
    others: Row, runner_up: Row, k: int, uniform_weight: float, second_stage: SecondStage | None
) -> tuple[Row, Row | np.float32, Row]:
    """A, B and the confidence of each row.

    Returns: the offset is one number where it is the same for all rows. The confidence is never
    below the runner-up's probability.
    """
    factor = np.float32(1.0 - uniform_weight) / (np.float32(1.0) + others)
    offset: Row | np.float32 = np.float32(uniform_weight / k)
    confidence = factor + offset
    if second_stage is not None:
        uniform = float(offset)
        rest = others.astype(np.float64) * factor + (k - 1.0) * uniform
        rest = np.maximum(rest, _SMALLEST_REST)
        logit = np.log(confidence.astype(np.float64)) - np.log(rest)
        share = (runner_up.astype(np.float64) * factor + uniform) / rest
        wanted = np.minimum(second_stage.others(logit), 1.0 / (1.0 + share))
        scale = (wanted / rest).astype(np.float32)
        factor, offset = factor * scale, offset * scale
        confidence = (1.0 - wanted).astype(np.float32)
    # Rounding may leave the runner-up a bit above; the prediction is never below it.
    return factor, offset, np.maximum(confidence, runner_up * factor + offset)
