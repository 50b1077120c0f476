"""Conversion to logits: float32, with at least one row and two classes.

Numbers are cast to float32 first and checked after the cast: a row that is finite in float64 and
infinite in float32 is refused. Whether numbers are logits or probabilities is never guessed: each
kind has its own function.

One number per row, shape (n,) or (n, 1), is a score of class 1 of two: the logit z becomes the
columns (0, z), the probability p the columns (1 − p, p). Everything behind has two columns.

Two values have a meaning of their own. Minus infinity masks a class: its probability is 0 after
every calibrator. `ZERO_CELL`, log 1e-12, is a probability of 0 that the classifier gave, as
k-nearest neighbours and rounding do; a calibrator may learn how often the label is such a class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.array_types import class_columns, number_array, relative_error
from trueprob.arrays.logit_functions import Logits
from trueprob.errors import InvalidInput

__all__ = [
    "PROBABILITY_FLOOR",
    "ZERO_CELL",
    "as_logits",
    "logits_from_log_probabilities",
    "logits_from_probabilities",
    "n_sums_off",
]

PROBABILITY_FLOOR: Final = 1e-12  # a probability p becomes log(max(p, this))
ZERO_CELL: Final = np.float32(math.log(PROBABILITY_FLOOR))  # the logit of a probability of 0
SUM_TOLERANCE: Final = 1e-3  # largest difference from 1 of the sum of a row of probabilities
HALF_SUM_TOLERANCE: Final = 1e-2  # for float16 log-probabilities, whose errors are 0.4 % each
DECIMALS: Final = range(2, 7)  # of probabilities that may have been rounded
RANGE_TOLERANCE: Final = 1e-6  # float32 softmax can exceed one by a few ulps
PIECE_NUMBERS: Final = 1 << 20  # of a large array that is converted at a time
_FLOAT32: Final = np.dtype(np.float32)
_NUMBERS: Final = "bBhHiIlLqQefdg"  # characters of NumPy's integers and floats


def as_logits(
    values: ArrayLike,
    *,
    name: str = "logits",
    n_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Logits:
    """Check logits and return them as a C-contiguous float32 array.

    Parameters
    ----------
    values : array_like of shape (n, k), or with two classes (n, 1) or (n,)
        Integers or floats of any width; n >= 1, k >= 2. Minus infinity masks a class. One number
        per row is the logit of class 1, log P(1) − log P(0). Also tables of pandas, polars and
        PyArrow, tensors, and what has ``__array__`` or ``__dlpack__``.
    name : str
        The caller's name of the array, for error messages.
    n_classes : int, optional
        The k that is required.
    class_names : sequence of k strings, optional
        A table whose columns have these names is put in this order, without its other columns.

    Returns
    -------
    ndarray of shape (n, k), float32
        The array itself when it is already in this form; (0, z) for a logit z of class 1.

    Raises
    ------
    InvalidInput
        Wrong shape or type, a number that is neither finite in float32 nor minus infinity, or a
        row in which every class is masked.
    """
    array = _matrix(values, name, n_classes, class_names)
    if array.shape[1] == 1:
        array = np.concatenate([np.zeros_like(array), array], axis=1)
    given = array
    with np.errstate(over="ignore", invalid="ignore"):  # once: entering takes as long as a sum
        if array.dtype != _FLOAT32 or not array.flags.c_contiguous:
            array = np.ascontiguousarray(array, dtype=np.float32)
        total = np.add.reduce(array, axis=None)
    # A finite sum proves that every term is finite; otherwise a slower check finds the row.
    if not math.isfinite(total):
        _require_finite_or_masked(array, given, name)
    return array


def logits_from_probabilities(
    values: ArrayLike,
    *,
    name: str = "probabilities",
    n_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Logits:
    """Turn probabilities into logits, their natural logarithms.

    Parameters
    ----------
    values : array_like of shape (n, k), or with two classes (n, 1) or (n,)
        In [0, 1]; each row sums to one within 1e-3, or as far as rounding to the decimals that it
        shows, two to six, or to bfloat16 can explain. One number per row is P(class 1). Values
        below 1e-12 count as 0, whose logit is log 1e-12: a fit learns how often labels fall there.
    name, n_classes, class_names
        As in `as_logits`.

    Returns
    -------
    ndarray of shape (n, k), float32
        Logarithms as they are: dividing a row by its sum adds a constant, which changes no
        softmax and no calibrator.

    Raises
    ------
    InvalidInput
        Wrong shape or type, a value outside [0, 1] or a row that does not sum to one.
    """
    given = _matrix(values, name, n_classes, class_names)
    tolerance = SUM_TOLERANCE
    if not _is_plain(values):
        tolerance = max(tolerance, relative_error(values))
    return _in_pieces(given, partial(_logs_of_probabilities, name=name, tolerance=tolerance))


def n_sums_off(probabilities: NDArray[Any]) -> int:
    """The number of rows of shape (n, k) whose sum differs from 1 by more than 1e-3."""
    sums = np.add.reduce(probabilities, axis=1, dtype=np.float64)
    return int(np.count_nonzero(np.abs(sums - 1.0) > SUM_TOLERANCE))


def logits_from_log_probabilities(
    values: ArrayLike,
    *,
    name: str = "log_probabilities",
    n_classes: int | None = None,
    class_names: Sequence[str] | None = None,
) -> Logits:
    """Turn log-probabilities into logits: the same numbers, at least log 1e-12.

    Parameters
    ----------
    values : array_like of shape (n, k), or with two classes (n, 1) or (n,)
        Natural logarithms; minus infinity is a probability of 0, and masks nothing. One number per
        row is log P(class 1).
    name, n_classes, class_names
        As in `as_logits`.

    Returns
    -------
    ndarray of shape (n, k), float32

    Raises
    ------
    InvalidInput
        Wrong shape or type, NaN, or exponentials that do not sum to one within 1e-3 (1e-2 for
        float16 and more for bfloat16, whose rounding alone can move a sum by that much).
    """
    raw = _matrix(values, name, n_classes, class_names)
    tolerance = HALF_SUM_TOLERANCE if raw.dtype == np.float16 else SUM_TOLERANCE
    if not _is_plain(values):  # logarithms of at most log k in the mean, rounded by a share of it
        tolerance = max(tolerance, relative_error(values) * (1.0 + math.log(raw.shape[1])))
    return _in_pieces(raw, partial(_checked_logarithms, name=name, tolerance=tolerance))


def _in_pieces(array: NDArray[Any], convert: Callable[[NDArray[Any], int], Logits]) -> Logits:
    """Convert rows, a piece at a time: float64 copies of a large array would need a multiple of it.

    `convert` gets rows and the index of the first.
    """
    n, k = array.shape
    step = max(1, PIECE_NUMBERS // k)
    if n <= step:
        return convert(array, 0)
    result = np.empty((n, max(k, 2)), dtype=np.float32)
    for start in range(0, n, step):
        result[start : start + step] = convert(array[start : start + step], start)
    return result


def _logs_of_probabilities(
    given: NDArray[Any], first: int, *, name: str, tolerance: float
) -> Logits:
    array = given.astype(np.float64)
    _require_finite(np.where(np.isneginf(array), 0.0, array), name, first)  # log 0 is named below
    outside = (array < -RANGE_TOLERANCE) | (array > 1 + RANGE_TOLERANCE)
    if outside.any():
        row = first + int(np.argmax(outside.any(axis=1)))
        with np.errstate(over="ignore"):
            logarithms = np.abs(np.exp(array).sum(axis=1) - 1.0).max() <= HALF_SUM_TOLERANCE
        kind = "log_probabilities" if logarithms else "logits"
        raise InvalidInput(
            f"{name} must lie in [0, 1], row {row} does not; are these {kind}?", field=name
        )
    if array.shape[1] == 1:
        positive = np.clip(array, 0.0, 1.0)
        array = np.concatenate([1.0 - positive, positive], axis=1)  # exact from p = 1/2 on
        logarithms = np.log(np.maximum(array, PROBABILITY_FLOOR))
        # Below, 1 − p has lost digits of p, and above 1 − 1e-12 it counts as 0.
        small = positive[:, 0] < 0.5
        logarithms[small, 0] = np.log1p(-positive[small, 0])
        return logarithms.astype(np.float32)
    sums = array.sum(axis=1)
    off = np.abs(sums - 1.0) > tolerance
    if off.any():
        unit = float(np.finfo(given.dtype).eps) / 4 if given.dtype.kind == "f" else 0.0
        explained = _sums_by_rounding(array[off], unit)
        if not explained.all() and (array.astype(np.float32) == array).all():
            # Numbers of float32 that were written with all their digits, as `tolist` does.
            explained = _sums_by_rounding(array[off], float(np.finfo(np.float32).eps) / 4)
        if not explained.all():
            row = int(np.flatnonzero(off)[np.argmin(explained)])
            raise InvalidInput(
                f"{name} must sum to 1 within {SUM_TOLERANCE:g} in each row, row {first + row} "
                f"does not: its sum is {sums[row]:.6g}, which rounding of probabilities does not "
                "explain",
                field=name,
            )
    return np.log(np.clip(array, PROBABILITY_FLOOR, 1.0)).astype(np.float32)


def _checked_logarithms(raw: NDArray[Any], first: int, *, name: str, tolerance: float) -> Logits:
    array = raw.astype(np.float64)
    bad = np.isnan(array) | (array > tolerance)
    if bad.any():
        row = first + int(np.argmax(bad.any(axis=1)))
        distribution = array.min() >= 0.0 and np.abs(array.sum(axis=1) - 1.0).max() <= 0.05
        given = "probabilities" if distribution else "logits"
        raise InvalidInput(
            f"{name} must be at most 0 and not NaN, row {row} is not; are these {given}?",
            field=name,
        )
    if array.shape[1] == 1:
        array = np.minimum(array, 0.0)
        array = np.concatenate([_log_complement(array), array], axis=1)
    sums = np.exp(array).sum(axis=1)
    _require_unit_sums(sums, f"exponentials of {name}", tolerance, field=name, first=first)
    return np.clip(array, math.log(PROBABILITY_FLOOR), 0.0).astype(np.float32)


def _matrix(
    values: ArrayLike, name: str, n_classes: int | None, class_names: Sequence[str] | None
) -> NDArray[Any]:
    if isinstance(values, np.ndarray) and _is_plain(values):
        array: NDArray[Any] = values
    else:
        array = number_array(class_columns(values, class_names, name), name)
    if array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1):
        array = _one_score(array, name, n_classes)
    elif array.ndim != 2 or (n_classes is not None and array.shape[1] != n_classes):
        expected = f"(n, {n_classes})" if n_classes is not None else "(n, k)"
        raise InvalidInput(f"{name} must have shape {expected}, got {array.shape}", field=name)
    if array.shape[0] < 1:
        raise InvalidInput(f"{name} must have at least one row, got {array.shape}", field=name)
    if array.shape[1] < 1:
        raise InvalidInput(f"{name} must have at least two classes, got {array.shape}", field=name)
    return array


def _is_plain(values: Any) -> bool:
    """Whether values are an array that needs no conversion: no subclass, integers or floats."""
    return type(values) is np.ndarray and values.dtype.char in _NUMBERS


def _one_score(array: NDArray[Any], name: str, n_classes: int | None) -> NDArray[Any]:
    """One score of class 1 per row as shape (n, 1); refused unless there are two classes."""
    if n_classes not in (None, 2):
        raise InvalidInput(
            f"{name} must have shape (n, {n_classes}), got {array.shape}: "
            "one number per row is for two classes",
            field=name,
        )
    return array.reshape(-1, 1)


def _log_complement(logarithms: NDArray[np.float64]) -> NDArray[np.float64]:
    """log(1 − p) of log p, exact to rounding at both ends (Mächler 2012, log1mexp)."""
    small = logarithms < -math.log(2.0)
    with np.errstate(divide="ignore", under="ignore"):  # p = 1, and p below all float64
        return np.where(
            small,
            np.log1p(-np.where(small, np.exp(logarithms), 0.0)),
            np.log(-np.expm1(logarithms)),
        )


def _sums_by_rounding(rows: NDArray[np.float64], unit: float) -> NDArray[np.bool_]:
    """Whether each row may be probabilities that were rounded to the decimals that it shows.

    A number of d decimals stands for those within ½·10^−d of it, but none below 0; the row is
    explained if such numbers can sum to 1. One decimal counts as two: otherwise independent
    probabilities such as 1, 1, 0 would pass. `unit` is the rounding error of the numbers' type.
    """
    explained = np.zeros(rows.shape[0], dtype=bool)
    unknown = rows.sum(axis=1) > 0.0
    for decimals in DECIMALS:
        scale, half = 10.0**decimals, 0.5 * 10.0**-decimals
        error = scale * unit + 1e-6  # the second part is for decimals in float64
        if error > 0.1:  # the type does not tell multiples from others
            break
        scaled = scale * rows
        shown = unknown & (np.abs(scaled - np.round(scaled)) <= error).all(axis=1)
        sums = rows.sum(axis=1)
        slack = 1e-9 + rows.shape[1] * unit
        least = sums - half * np.count_nonzero(rows > half, axis=1) - slack
        most = sums + half * rows.shape[1] + slack
        explained[shown] = ((least <= 1.0) & (most >= 1.0))[shown]
        unknown &= ~shown
    return explained


def _require_finite(array: NDArray[Any], name: str, first: int) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(array.sum()):
            return
    finite = np.isfinite(array).all(axis=1)
    if not finite.all():
        row = first + int(np.argmin(finite))
        raise InvalidInput(f"{name} must be finite as float32, row {row} is not", field=name)


def _require_finite_or_masked(array: Logits, given: NDArray[Any], name: str) -> None:
    step = max(1, PIECE_NUMBERS // array.shape[1])
    for first in range(0, len(array), step):
        rows, as_given = array[first : first + step], given[first : first + step]
        # −inf must be given as such: a large float64 that float32 cannot hold masks nothing.
        is_float = given.dtype.kind == "f"
        masked = np.isneginf(as_given) if is_float else np.zeros(rows.shape, dtype=bool)
        usable = (np.isfinite(rows) | masked).all(axis=1)
        if not usable.all():
            row = first + int(np.argmin(usable))
            raise InvalidInput(f"{name} must be finite as float32, row {row} is not", field=name)
        if masked.all(axis=1).any():
            row = first + int(np.argmax(masked.all(axis=1)))
            raise InvalidInput(
                f"{name} must leave a class in each row, in row {row} all are masked by minus "
                "infinity",
                field=name,
            )


def _require_unit_sums(
    sums: NDArray[np.float64], name: str, tolerance: float, *, field: str, first: int
) -> None:
    wrong = np.abs(sums - 1.0) > tolerance
    if wrong.any():
        row = first + int(np.argmax(wrong))
        raise InvalidInput(
            f"{name} must sum to 1 within {tolerance:g} in each row, row {row} does not",
            field=field,
        )
