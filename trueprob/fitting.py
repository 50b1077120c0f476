"""Fitting by name: `fit` for a calibrator with its report, `cross_fit` for honest probabilities."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays import Probabilities, as_logits, prediction
from trueprob.calibration_set import CalibrationSet
from trueprob.calibrators import (
    Calibrator,
    FitOutcome,
    FittedCalibrator,
    IdentityCalibrator,
    fit_identity,
    fit_smart,
    fit_smart_mlp,
    fit_temperature,
)
from trueprob.errors import InvalidInput
from trueprob.fit_report import MIN_CROSS_FIT_ROWS, Fit, FitReport, set_warnings
from trueprob.folds import fold_of_rows
from trueprob.scores import Scores, score

__all__ = [
    "METHODS",
    "Fit",
    "FitOutcome",
    "FitReport",
    "cross_fit",
    "fit",
    "fit_calibration_set",
    "fit_rows",
    "set_warnings",
]

FITTERS: Final[Mapping[str, Callable[..., FittedCalibrator]]] = MappingProxyType(
    {
        "identity": fit_identity,
        "smart": fit_smart,
        "smart-mlp": fit_smart_mlp,
        "temperature": fit_temperature,
    }
)
METHODS: Final = tuple(FITTERS)
N_FOLDS: Final = 5


def fit(
    logits: ArrayLike,
    labels: ArrayLike,
    method: str = "smart",
    *,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> Fit:
    """Fit a calibrator.

    Parameters
    ----------
    logits : array_like of shape (n, k)
        Of rows that the network was not trained on. Not probabilities: see
        `logits_from_probabilities`.
    labels : array_like of shape (n,)
        Class indices.
    method : str
        One of `METHODS`.
    weights : array_like of shape (n,), optional
        Only their ratios matter.
    groups : array_like of shape (n,), optional
        Rows of one group stay in one fold.
    seed : int
        Of the folds, and of methods that draw.

    Returns
    -------
    Fit

    Raises
    ------
    InvalidInput
        An array that cannot be used, or an unknown method.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.array([[4.0, 0.0], [3.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    >>> fitted = fit(logits, [0, 0, 1, 1], "temperature")
    >>> fitted.calibrator.predict_proba(logits).shape
    (4, 2)
    """
    arrays = {"logits": logits, "labels": labels, "weights": weights, "groups": groups}
    calibration_set = CalibrationSet.from_arrays(
        {name: array for name, array in arrays.items() if array is not None}
    )
    return fit_calibration_set(calibration_set, method, seed=seed)


def fit_calibration_set(
    calibration_set: CalibrationSet, method: str = "smart", *, seed: int = 0
) -> Fit:
    """`fit` for rows that are validated already."""
    start = time.perf_counter()
    fitted = fit_rows(method, calibration_set, seed)
    seconds = time.perf_counter() - start
    data = calibration_set
    before = _score(IdentityCalibrator(data.n_classes).predict_proba(data.logits), data)
    if data.n < MIN_CROSS_FIT_ROWS:
        after = _score(fitted.calibrator.predict_proba(data.logits), data, fitted.calibrator)
    else:
        after = _score(cross_fit(method, data, seed=seed), data, fitted.calibrator)
    report = FitReport(
        method=method,
        outcome=fitted.outcome,
        n=data.n,
        k=data.n_classes,
        seconds=seconds,
        warnings=(*set_warnings(data), *fitted.warnings),
        before=before,
        after=after,
    )
    return Fit(fitted.calibrator, report)


def cross_fit(
    method: str,
    calibration_set: CalibrationSet,
    *,
    n_folds: int = N_FOLDS,
    n_repeats: int = 1,
    seed: int = 0,
) -> Probabilities:
    """Probabilities of each row by a calibrator that was fitted without it.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    calibration_set : CalibrationSet
    n_folds : int
        At least 2; lowered to the number of rows or groups. Folds are balanced in errors and
        keep groups whole.
    n_repeats : int
        Over how many divisions the probabilities are averaged.
    seed : int
        Division r uses ``seed + r``.

    Returns
    -------
    ndarray of shape (n, k), float32

    Raises
    ------
    InvalidInput
        Unknown method, fewer than 2 folds asked for, or a single row or group.
    """
    if n_folds < 2 or n_repeats < 1:
        raise InvalidInput("n_folds must be at least 2, n_repeats at least 1", field="n_folds")
    data = calibration_set
    correct = prediction(data.logits) == data.labels
    total: NDArray[np.float32] = np.zeros_like(data.logits)
    for repeat in range(n_repeats):
        fold = fold_of_rows(correct, data.groups, n_folds, seed=seed + repeat)
        if fold.max() == 0:
            raise InvalidInput(
                "cross-fitting needs at least two rows or groups, got one", field="groups"
            )
        for index in range(int(fold.max()) + 1):
            held_out = fold == index
            fitted = fit_rows(method, data.subset(~held_out), seed + repeat)
            total[held_out] += fitted.calibrator.predict_proba(data.logits[held_out])
    return total / np.float32(n_repeats) if n_repeats > 1 else total


def fit_rows(method: str, data: CalibrationSet, seed: int = 0) -> FittedCalibrator:
    """The calibrator alone, for callers that judge it themselves: no scores, no cross-fitting.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    data : CalibrationSet
    seed : int
        Of methods that draw.

    Returns
    -------
    FittedCalibrator

    Raises
    ------
    InvalidInput
        Unknown method.
    """
    fitter = FITTERS.get(method)
    if fitter is None:
        raise InvalidInput(
            f"method must be one of {', '.join(METHODS)}, got {method[:40]!r}", field="method"
        )
    return fitter(as_logits(data.logits), data.labels, data.weights, seed=seed)


def _score(
    probabilities: Probabilities, data: CalibrationSet, calibrator: Calibrator | None = None
) -> Scores:
    preserving = calibrator is None or calibrator.preserves_prediction
    predicted = prediction(data.logits) if preserving else None
    return score(probabilities, data.labels, prediction=predicted, weights=data.weights)
