"""A calibrator that takes logits as X: as the last step of a pipeline, or alone.

Labels may have any type, as in scikit-learn; `labels_of_columns` maps them to columns of X.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from trueprob.arrays.calibration_set import INPUTS
from trueprob.arrays.logit_functions import Logits, Probabilities
from trueprob.errors import InvalidInput
from trueprob.fitting.fit import fit

__all__ = ["LogitCalibrator", "labels_of_columns"]


def labels_of_columns(
    y: ArrayLike, classes: Sequence[Any] | NDArray[Any] | None, k: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The class of each column, and the column index of each label.

    Raises InvalidInput if there are not k different classes, or if a label is none of them.
    """
    y = column_or_1d(y, warn=True)
    names = np.unique(y) if classes is None else np.asarray(classes)
    if names.shape != (k,):
        raise InvalidInput(
            f"classes must name the {k} columns of X, got {names.shape[0]} of them"
            + (" in y: give them as classes=" if classes is None else ""),
            field="classes",
        )
    if np.unique(names).shape != (k,):
        raise InvalidInput("classes must differ from one another", field="classes")
    order = np.argsort(names)
    place = np.minimum(np.searchsorted(names, y, sorter=order), k - 1)
    labels = order[place]
    unknown = names[labels] != y
    if np.any(unknown):
        raise InvalidInput(
            f"y must be among the {k} classes, row {int(np.argmax(unknown))} is not", field="y"
        )
    return names, labels.astype(np.int64)


class LogitCalibrator(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Calibrates the logits or probabilities in X.

    Parameters
    ----------
    method : str
        One of `trueprob.METHODS`. With two classes `smart` may change predictions, never the order
        of rows.
    input : {"logits", "probabilities", "log_probabilities"}
        What X holds.
    classes : sequence of k labels, optional
        Class of each column of X; default: the sorted distinct labels in y, which must be k.
    seed : int
        Seed of the folds, and of methods that draw random numbers.
    keep_prediction : bool
        Whether the prediction must stay the argmax of the logits.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        Class of each column.
    calibrator_ : Calibrator
        The fitted calibrator; its `class_names` are the classes as texts.
    report_ : FitReport
        Scores before and after the fit.
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
        keep_prediction: bool = False,
    ) -> None:
        self.method = method
        self.input = input
        self.classes = classes
        self.seed = seed
        self.keep_prediction = keep_prediction

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
            Rows that the network was not trained on.
        y : array_like of shape (n,)
            Labels, as in `classes`.
        sample_weight : array_like of shape (n,), optional
            Non-negative; default: all 1.
        groups : array_like of shape (n,), optional
            Rows of one group stay in one fold.

        Returns
        -------
        LogitCalibrator

        Raises
        ------
        InvalidInput
            X or y cannot be used, or the classes of the columns are unknown. A ValueError.
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
            class_names=list(map(str, names.tolist())),
            seed=self.seed,
            keep_prediction=self.keep_prediction,
        )
        self.classes_ = names
        self.calibrator_ = fitted.calibrator
        self.report_ = fitted.report
        return self

    def predict_proba(self, X: ArrayLike) -> Probabilities:
        """Calibrated probabilities of shape (n, k), float32; columns in the order of `classes_`."""
        probabilities: Probabilities = self.calibrator_.predict_proba(self._logits(X))
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predicted class of each row, one of `classes_`."""
        predicted: NDArray[Any] = self.classes_[self.calibrator_.prediction(self._logits(X))]
        return predicted

    def _logits(self, X: ArrayLike) -> Logits:
        check_is_fitted(self)
        values = validate_data(self, X, reset=False, **_checks(self.input))
        return INPUTS[self.input](values, name="X")


def _checks(numbers: str) -> dict[str, Any]:
    # A log-probability of −inf is a probability of 0; the conversion to logits checks the rest.
    return {"dtype": "numeric", "ensure_all_finite": numbers != "log_probabilities"}
