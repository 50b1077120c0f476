"""Prediction of `smart`: gap, softmax, mixture and second stage in few passes over the logits.

With e_j = exp(β·(z_j − z(1))), every class but the top one has the probability A·e_j + B. A and B
belong to the row and hold the normalisation, the uniform mixture and the scale of the second
stage. So the confidence and the runner-up are known before any probability is written, and the
gap is one of the differences that the softmax needs anyway.

There are three variants: rows of few classes on a class-major copy, where one vector operation
handles one class of all rows; rows of many classes; and a single row of few classes. The last works
in Python's floats where it can, because a NumPy call costs half a microsecond. They are rounded to
float32 at the same places as the arrays, and float64 is wide enough to give the same bits
(Figueroa 1995, 2·24 + 2 ≤ 53 bits).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.logit_functions import ABOVE_RUNNER_UP, Logits, Probabilities
from trueprob.calibrators.base import Calibrated
from trueprob.calibrators.smart.second_stage import SecondStage

__all__ = [
    "calibrate_narrow_rows",
    "calibrate_single_row",
    "calibrate_wide_rows",
    "inverse_temperature_of_gap",
    "row_factors",
    "within_float32",
]

TINY: Final = float(np.finfo(np.float32).tiny)
LARGEST: Final = np.finfo(np.float32).max
ZERO: Final = np.float32(0.0)
ONE: Final = np.float32(1.0)
MODERATE: Final = 1e18  # the product of a difference and a β up to this is finite in float32

Row = NDArray[np.float32]


def calibrate_narrow_rows(
    logits: Logits,  # (n, k) float32
    inverse_temperature: Callable[[NDArray[np.float32]], NDArray[np.float64]],  # β of gaps
    uniform_weight: float,  # w of the mixture with the uniform distribution
    second_stage: SecondStage | None,
) -> Calibrated:
    """Calibrate rows of few classes; p[prediction] is above all others."""
    n, k = logits.shape
    top = logits.argmax(axis=1)
    work = np.array(logits.T, order="C")
    flat = work.reshape(-1)
    at = top * n  # where the top classes are in `flat`
    at += np.arange(n)
    # The difference of two float32 may be below all float32: −inf is right, since exp gives 0.
    with np.errstate(over="ignore", under="ignore"):
        work -= flat[at]
        flat[at] = -np.inf
        # Subtracted from zero, so that the gap of equal logits is +0.
        gap = np.minimum(ZERO - np.maximum.reduce(work, axis=0), LARGEST)
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


def calibrate_wide_rows(
    logits: Logits,  # (n, k) float32
    inverse_temperature: Callable[[NDArray[np.float32]], NDArray[np.float64]],  # β of gaps
    uniform_weight: float,  # w of the mixture with the uniform distribution
    second_stage: SecondStage | None,
    *,
    out: Probabilities | None = None,  # (n, k) float32, where the probabilities are written
) -> Calibrated:
    """Calibrate rows of many classes; p[prediction] is above all others."""
    n, k = logits.shape
    rows = np.arange(n)
    top = logits.argmax(axis=1)
    # The difference of two float32 may be below all float32: −inf is right, since exp gives 0.
    with np.errstate(over="ignore", under="ignore"):
        work = np.subtract(logits, logits[rows, top][:, None], out=out)
        work[rows, top] = -np.inf
        second = work.argmax(axis=1)
        # Subtracted from zero, so that the gap of equal logits is +0.
        gap = np.minimum(ZERO - work[rows, second], LARGEST)
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


def calibrate_single_row(
    logits: Logits,  # (1, k) float32
    edges: Sequence[float],
    slopes: Sequence[float],  # β(g) = slope_j + intercept_j / g on segment j
    intercepts: Sequence[float],
    uniform_weight: float,  # w of the mixture with the uniform distribution
) -> Calibrated | None:
    """Calibrate one row of few classes without a second stage; None if float32 may overflow."""
    row = logits[0]
    top = int(row.argmax())
    values: list[float] = row.tolist()
    largest = values[top]
    if largest - min(values) > MODERATE:
        return None
    values[top] = -np.inf
    gap = np.float32(0.0 - (max(values) - largest))  # +0 for equal logits
    g = float(gap)
    segment = bisect_left(edges, g)
    beta = slopes[segment] + intercepts[segment] / max(g, TINY)
    if not 1e-30 <= beta <= MODERATE:
        return None
    work = row - row[top]
    work *= np.float32(beta)
    work[top] = -np.inf
    np.exp(work, out=work)
    # Summed one after another, in the order of a class-major copy of many rows.
    factor = np.float32(1.0 - uniform_weight) / (ONE + np.add.accumulate(work)[-1])
    offset = np.float32(uniform_weight / len(values))
    work *= factor
    if uniform_weight:
        work += offset
    work[top] = 0.0
    confidence = max(factor + offset, work.max() * ABOVE_RUNNER_UP)
    work[top] = confidence
    return Calibrated(
        work.reshape(1, -1),
        np.array([top]),
        np.array([confidence]),
        np.array([1.0 / beta]),
        np.array([gap]),
    )


def inverse_temperature_of_gap(
    gap: NDArray[np.float32],
    edges: NDArray[np.float64],
    slopes: NDArray[np.float64],
    intercepts: NDArray[np.float64],
) -> NDArray[np.float64]:
    """β(g) = s(g)/g = slope_j + intercept_j / g on segment j, and slope_1 at g = 0."""
    g = gap.astype(np.float64)
    segment = edges.searchsorted(g)
    # The first segment's intercept is 0, so any positive number serves for a gap of 0.
    positive = np.maximum(g, TINY)
    beta: NDArray[np.float64] = slopes.take(segment) + intercepts.take(segment) / positive
    return beta


def row_factors(
    others: Row,  # Σ e_j over all classes but the top one, whose e is 1
    runner_up: Row,  # the largest e_j of them
    k: int,
    uniform_weight: float,
    second_stage: SecondStage | None,
) -> tuple[Row, Row | np.float32, Row]:
    """A, B (one number where all rows share it) and the confidence of each row."""
    factor = np.float32(1.0 - uniform_weight) / (ONE + others)
    offset: Row | np.float32 = np.float32(uniform_weight / k)
    confidence = factor + offset
    if second_stage is not None:
        uniform = float(offset)
        rest = others.astype(np.float64) * factor + (k - 1.0) * uniform
        rest = np.maximum(rest, TINY)
        logit = np.log(confidence.astype(np.float64)) - np.log(rest)
        share = (runner_up.astype(np.float64) * factor + uniform) / rest
        wanted = np.minimum(second_stage.others(logit), 1.0 / (1.0 + share))
        scale = (wanted / rest).astype(np.float32)
        factor, offset = factor * scale, offset * scale
        confidence = (1.0 - wanted).astype(np.float32)
    above = (runner_up * factor + offset) * ABOVE_RUNNER_UP
    return factor, offset, np.maximum(confidence, above)


def within_float32(beta: NDArray[np.float64]) -> Row:
    """β clipped well inside float32, because 0 · −inf is NaN."""
    # For one row, np.clip takes as long as four ufuncs.
    return np.minimum(np.maximum(beta, 1e-30), 1e30).astype(np.float32)
