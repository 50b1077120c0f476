"""Our methods as entrants of CalArena (arXiv:2605.30188, github.com/probkit/CalArena).

A calibrator of CalArena has `fit(p_cal, y_cal)` and `predict_proba(p_test)`, and is made anew for
each experiment. In its `custom_calibrators.py`:

    from benchmarks.calibration.calarena import CUSTOM_CALIBRATORS

with this repository and its `trueprob` on the path; then, for one of the names below,

    python run_benchmark.py --benchmark tabrepo-binary --calibrator Trueprob
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.calibration.peers import fitted_as_users_do
from trueprob.arrays.calibration_set import INPUTS


class TrueprobCalibrator:
    """A method of ours behind CalArena's interface; the fit is that of `trueprob.fit`, unreported.

    Parameters
    ----------
    method : str
        One of `trueprob.METHODS`.
    **options
        Of the fit, such as `allow_prediction_change=True`.
    """

    def __init__(self, method: str = "smart", **options: Any) -> None:
        self.method = method
        self.options = options

    def fit(self, p_cal: ArrayLike, y_cal: ArrayLike) -> None:
        """Fit on probabilities, see `rows_of`, and labels of shape (n,), 0 … k − 1."""
        arrays = {"probabilities": rows_of(p_cal), "labels": np.asarray(y_cal).astype(np.int64)}
        self.calibrator = fitted_as_users_do(self.method, arrays, **self.options)

    def predict_proba(self, p_test: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probabilities, of shape (n, k) for two classes, too; rows sum to one."""
        logits = INPUTS["probabilities"](rows_of(p_test))
        p = self.calibrator.predict_proba(logits).astype(np.float64)
        p /= p.sum(axis=1, keepdims=True)
        return p


def rows_of(probabilities: ArrayLike) -> NDArray[np.float64]:
    """P(class 1) of shape (n,) or (n, 1), or rows of shape (n, k), as rows that sum to one."""
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim == 1 or p.shape[1] == 1:
        p = np.stack([1.0 - p.ravel(), p.ravel()], axis=1)
    return p / p.sum(axis=1, keepdims=True)  # float32 sums of 1 000 classes are off by 1e-4


# Display name → a factory, as CalArena wants it.
CUSTOM_CALIBRATORS: dict[str, Callable[[], TrueprobCalibrator]] = {
    "Trueprob": TrueprobCalibrator,
    "Trueprob-auto": lambda: TrueprobCalibrator("auto", allow_prediction_change=True),
}
