"""`smart` after a weight and a bias for each class: see `two_stages`. Predictions may change."""

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

__all__ = ["SmartVectorCalibrator", "fit_smart_vector"]


@dataclass(frozen=True)
class SmartVectorCalibrator(TwoStages):
    """The gap stage on the output of a weight and a bias for each class."""

    kind: ClassVar[str] = "smart-vector"
    full: ClassVar[bool] = False


def fit_smart_vector(
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
    fitted = fit_two_stages(logits, labels, weights, full=False, seed=seed, groups=groups)
    calibrator = SmartVectorCalibrator(logits.shape[1], fitted.linear, fitted.gap_stage)
    return FittedCalibrator(calibrator, fitted.outcome, fitted.warnings)
