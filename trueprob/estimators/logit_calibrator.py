"""A calibrator of logits that are given as X: the last step of a pipeline, or on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from trueprob.arrays.calibration_set import INPUTS
from trueprob.arrays.logit_functions import Logits, Probabilities
from trueprob.errors import InvalidInput
from trueprob.estimators.named_labels import labels_of_columns
from trueprob.fitting.fit import fit

__all__ = ["LogitCalibrator"]


class LogitCalibrator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Calibrates logits (or probabilities) that are given as X.

    Parameters
    ----------
    method : str
        One of `trueprob.METHODS`.
    input : {"logits", "probabilities", "log_probabilities"}
        What X holds.
    classes : sequence of k labels, optional
        Class of each column; default the sorted labels in y, which must then be k.
    seed : int
        Of the folds, and of methods that draw.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
    calibrator_ : Calibrator
    report_ : FitReport
    n_features_in_ : int
        k.
    """

    def __init__(
        self,
        method: str = "smart",
        *,
        input: str = "logits",  # noqa: A002
        classes: Sequence[Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.method = method
        self.input = input
        self.classes = classes
        self.seed = seed

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit the calibrator.

        Parameters
        ----------
        X : array_like of shape (n, k)
            Of rows that the network was not trained on.
        y : array_like of shape (n,)
            Labels, by name.
        sample_weight : array_like of shape (n,), optional
        groups : array_like of shape (n,), optional
            Rows of one group stay in one fold.

        Returns
        -------
        LogitCalibrator

        Raises
        ------
        InvalidInput
            X or y cannot be used, or the columns' classes are not known. A ValueError.
        """
        if self.input not in INPUTS:
            raise InvalidInput(
                f"input must be one of {', '.join(INPUTS)}, got {self.input!r}", field="input"
            )
        values = validate_data(self, X, **_checks(self.input))
        names, labels = labels_of_columns(y, self.classes, values.shape[1])
        fitted = fit(
            INPUTS[self.input](values, name="X"),
            labels,
            self.method,
            weights=sample_weight,
            groups=groups,
            seed=self.seed,
        )
        self.classes_ = names
        self.calibrator_ = fitted.calibrator
        self.report_ = fitted.report
        return self

    def predict_proba(self, X: ArrayLike) -> Probabilities:
        """Calibrated probabilities, of shape (n, k), float32, columns as `classes_`."""
        probabilities: Probabilities = self.calibrator_.predict_proba(self._logits(X))
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predicted class of each row, by name."""
        predicted: NDArray[Any] = self.classes_[self.calibrator_.prediction(self._logits(X))]
        return predicted

    def _logits(self, X: ArrayLike) -> Logits:
        check_is_fitted(self)
        values = validate_data(self, X, reset=False, **_checks(self.input))
        return INPUTS[self.input](values, name="X")


def _checks(numbers: str) -> dict[str, Any]:
    # A log-probability of minus infinity is a probability of 0; as_logits refuses the rest.
    return {"dtype": "numeric", "ensure_all_finite": numbers != "log_probabilities"}
