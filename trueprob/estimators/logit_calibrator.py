"""A calibrator that takes logits as X: as the last step of a pipeline, or alone.

Labels may have any type, as in scikit-learn; `labels_of_columns` maps them to columns of X. A
column of X is a class, so X has as many columns as there are classes; with two, one will do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    assert_all_finite,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from trueprob.arrays.array_types import column_names, plain_array
from trueprob.arrays.calibration_set import INPUTS
from trueprob.arrays.class_names import shown
from trueprob.arrays.logit_functions import Logits, Probabilities
from trueprob.arrays.weights_and_groups import as_weights
from trueprob.errors import InvalidInput
from trueprob.fitting.fit import fit

__all__ = ["LogitCalibrator", "labels_of_columns"]


def labels_of_columns(
    y: ArrayLike, classes: Sequence[Any] | NDArray[Any] | None, k: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The class of each column, and the column index of each label.

    Raises InvalidInput if there are not k different classes, or if a label is none of them.
    """
    given = _labels(y)
    names = np.unique(given) if classes is None else np.asarray(classes)
    if names.shape != (k,):
        number = "1 class" if names.shape == (1,) else f"{names.size} classes"
        raise InvalidInput(
            f"classes must name the {k} columns of X, got {number}"
            + (" in y: give them as classes=" if classes is None else ""),
            field="classes",
        )
    if _are_texts(names) != _are_texts(given):
        raise InvalidInput(
            f"y must be among the classes {shown(names.tolist())}, which are {names.dtype}: "
            f"got {given.dtype}",
            field="y",
        )
    if np.unique(names).shape != (k,):
        raise InvalidInput("classes must differ from one another", field="classes")
    order = np.argsort(names)
    place = np.minimum(np.searchsorted(names, given, sorter=order), k - 1)
    labels = order[place]
    unknown = names[labels] != given
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
        Class of each column of X. Default: the distinct labels in y, which must be k; sorted, or in
        the order of the columns of a table that has them as names.
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
        k, or 1 for one score of the second of two classes.
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
        X : array_like of shape (n, k), or with two classes (n, 1) or (n,)
            Rows that the network was not trained on. One number per row is the score of the second
            of the `classes`. Minus infinity in logits masks a class.
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
        columns = column_names(X)
        values = self._values(X, y)
        if sample_weight is not None:
            sample_weight = as_weights(sample_weight, n_rows=len(values), name="sample_weight")
        k = max(values.shape[1], 2)
        names, labels = labels_of_columns(y, _in_order_of(columns, y, self.classes), k)
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
        logits = self._logits(X)
        probabilities: Probabilities = self.calibrator_.predict_proba(logits)
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Predicted class of each row, one of `classes_`."""
        logits = self._logits(X)
        predicted: NDArray[Any] = self.classes_[self.calibrator_.prediction(logits)]
        return predicted

    def _logits(self, X: ArrayLike) -> Logits:
        check_is_fitted(self)
        return INPUTS[self.input](self._values(X), name="X")

    def _values(self, X: Any, *fit_labels: Any) -> NDArray[Any]:
        """X as numbers, checked as scikit-learn does; with the labels in a fit."""
        if hasattr(X, "detach"):
            X = plain_array(X, "X")
        if isinstance(X, list | tuple):
            X = plain_array(X, "X")
        if len(getattr(X, "shape", ())) == 1 and self._is_one_score(*fit_labels):
            X = np.asarray(X).reshape(-1, 1)
        values: NDArray[Any] = validate_data(
            self, X, reset=bool(fit_labels), dtype="numeric", ensure_all_finite=False
        )
        # Minus infinity is a mask, or a probability of 0.
        assert_all_finite(np.where(np.isneginf(values), 0.0, values), input_name="X")
        return values

    def _is_one_score(self, *fit_labels: Any) -> bool:
        """Whether X of shape (n,) is a score of the second of two classes."""
        if not fit_labels:
            return bool(self.n_features_in_ == 1)
        known = fit_labels[0] if self.classes is None else self.classes
        return np.unique(plain_array(known, "y")).size == 2


def _labels(y: Any) -> NDArray[Any]:
    """The classes of the rows, shape (n,), none of them missing."""
    if hasattr(y, "detach"):
        y = plain_array(y, "y")
    elif getattr(getattr(y, "dtype", None), "kind", "") == "T":  # which scikit-learn does not know
        y = y.astype(object)
    given: NDArray[Any] = column_or_1d(y, warn=True)
    if given.dtype.kind == "O":
        given = plain_array(given, "y")
        missing = [value is None or value != value for value in given.tolist()]
        if any(missing):
            raise InvalidInput(
                f"y must have no missing values, row {missing.index(True)} is missing", field="y"
            )
        if not _are_texts(given):  # nullable columns of numbers
            given = np.array(given.tolist())
    elif given.dtype.kind == "f":
        assert_all_finite(given, input_name="y")
    check_classification_targets(given)
    return given


def _are_texts(values: NDArray[Any]) -> bool:
    if values.dtype.kind == "O":
        return all(isinstance(value, str) for value in values.tolist())
    return values.dtype.kind in "UT"


def _in_order_of(
    columns: Sequence[str] | None, y: ArrayLike, classes: Sequence[Any] | None
) -> Sequence[Any] | NDArray[Any] | None:
    """The classes in the order of the columns of a table that has them as names.

    Raises InvalidInput if `classes` names the same columns in another order.
    """
    if columns is None:
        return classes
    known = np.unique(plain_array(y, "y")) if classes is None else np.asarray(classes)
    texts = [str(name) for name in known.tolist()]
    if sorted(texts) != sorted(columns) or texts == list(columns):
        return classes
    if classes is not None:
        raise InvalidInput(
            f"classes must be in the order of the columns of X, {shown(columns)}, "
            f"got {shown(texts)}",
            field="classes",
        )
    return known[[texts.index(column) for column in columns]]
