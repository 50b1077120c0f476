"""`smart` on rows of few classes: both stages on a class-major copy of a block of logits.

One vector operation then takes a class of all rows at once; along rows of ten classes NumPy would
begin anew ten numbers later. The gap is read off the differences that the softmax needs anyway.

The first stage of `smart` in use: inverse temperatures of logit gaps.

What `narrow_rows` and `wide_rows` share: what a row's classes are scaled by.

With e_j = exp(β·(z_j − z(1))) every class but the top one has the probability A·e_j + B with a
row's own A and B, which hold the normalisation, the uniform mixture and the second stage's scale;
so the confidence, the rest and the runner-up are known before any probability is written.

`smart` on rows of many classes: both stages in eight passes over a block of logits.

Written plainly, the gap, the softmax and the map of the confidence each copy the block and look
for its largest values again. Here the gap is read off the differences that the softmax needs
anyway, and a row's confidence is known before any probability is written (`row_factors`).

`smart` on one row of few classes, without its second stage: the online case.

NumPy's price is by the call, half a microsecond whatever there is to do; what concerns the row as
a whole is therefore done in Python's floats here. They are rounded to float32 where the arrays of
`narrow_rows` are, and a float64 is wide enough for that to be the same rounding (Figueroa 1995,
2·24 + 2 ≤ 53 bits), so a row alone gets the bits that it gets among others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.logit_functions import Logits, Probabilities
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
