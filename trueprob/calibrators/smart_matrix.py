"""`smart` after a matrix and a bias: see `two_stages`. Predictions may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits
from trueprob.calibrators.base import FittedCalibrator
from trueprob.calibrators.linear.smart_vector_matrix import TwoStages, fit_two_stages
from trueprob.folds import Groups

__all__ = ["SmartMatrixCalibrator", "fit_smart_matrix"]


@dataclass(frozen=True)
class SmartMatrixCalibrator(TwoStages):
    """The gap stage on the output of a matrix and a bias."""

    kind: ClassVar[str] = "smart-matrix"
    full: ClassVar[bool] = True


def fit_smart_matrix(
    logits: Logits,
    labels: Labels,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,
    groups: Groups | None = None,
) -> FittedCalibrator:
    """Fit both stages.

    Parameters
    ----------
    logits : ndarray of shape (n, k), float32
    labels : ndarray of shape (n,), int64
    weights : ndarray of shape (n,), optional
        Only their ratios matter.
    seed : int
        Of the folds.
    groups : ndarray of shape (n,), optional
        Rows of one group stay in one fold.

    Returns
    -------
    FittedCalibrator
        With a warning when there are too few errors for a linear stage.
    """
    fitted = fit_two_stages(logits, labels, weights, full=True, seed=seed, groups=groups)
    calibrator = SmartMatrixCalibrator(logits.shape[1], fitted.linear, fitted.gap_stage)
    return FittedCalibrator(calibrator, fitted.outcome, fitted.warnings)
