"""A fitted classifier and a calibrator after it, as one scikit-learn classifier."""

from __future__ import annotations

from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from trueprob.arrays.array_types import plain_array
from trueprob.arrays.class_names import shown
from trueprob.arrays.logit_functions import Logits, Probabilities
from trueprob.arrays.logits import as_logits, logits_from_probabilities
from trueprob.errors import InvalidInput
from trueprob.estimators.logit_calibrator import labels_of_columns
from trueprob.fitting.fit import fit

__all__ = ["CalibratedModel"]

RESPONSES: Final = ("decision_function", "predict_proba")


class CalibratedModel(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Calibrates a fitted classifier.

    Parameters
    ----------
    estimator : classifier
        A fitted classifier. It is never fitted or copied: a clone of this object shares it, so
        that cross-validation and grid search fit only the calibrator.
    method : str
        One of `trueprob.METHODS`. With two classes `smart` may change predictions, never the order
        of rows.
    response : {"decision_function", "predict_proba"}, optional
        The method of the classifier whose result is calibrated. By default `decision_function`
        if the classifier has it, else `predict_proba`, as in `CalibratedClassifierCV`. Decision
        values are used as logits; a single value per row is the logit of the second class, and
        that of the first is 0. Values of pairs of classes (`decision_function_shape="ovo"`) become
        one for each class, as with "ovr". The logarithms of probabilities are used as logits.
    seed : int
        Seed of the folds, and of methods that draw random numbers.
    keep_prediction : bool
        Whether the prediction must stay the argmax of the logits.

    Attributes
    ----------
    classes_ : ndarray of shape (k,)
        The classes of the classifier, in its order.
    calibrator_ : Calibrator
        The fitted calibrator; its `class_names` are the classes as texts.
    report_ : FitReport
        Scores before and after the fit.
    n_features_in_ : int
        That of the classifier, if it has one.
    """

    def __init__(
        self,
        estimator: Any,
        method: str = "smart",
        *,
        response: str | None = None,
        seed: int = 0,
        keep_prediction: bool = False,
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.response = response
        self.seed = seed
        self.keep_prediction = keep_prediction

    def __sklearn_clone__(self) -> CalibratedModel:
        parameters = self.get_params(deep=False)
        estimator = parameters.pop("estimator")
        copied = {name: clone(value, safe=False) for name, value in parameters.items()}
        return type(self)(estimator, **copied)

    def fit(
        self,
        X: Any,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit the calibrator on rows that the classifier was not fitted on.

        Parameters
        ----------
        X : input of the classifier, n rows
        y : array_like of shape (n,)
            Labels, as in `classes_`; not every class must occur.
        sample_weight : array_like of shape (n,), optional
            Non-negative; default: all 1.
        groups : array_like of shape (n,), optional
            Rows of one group stay in one fold.

        Returns
        -------
        CalibratedModel

        Raises
        ------
        NotFittedError
            The classifier is not fitted.
        InvalidInput
            The classifier lacks the response or `classes_`, its result has not one column for each
            of them, or y cannot be used. A ValueError.
        """
        names = self._present_classes()
        _, labels = labels_of_columns(y, names, names.shape[0])
        fitted = fit(
            self._logits(X, names),
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
        if hasattr(self.estimator, "n_features_in_"):
            self.n_features_in_ = self.estimator.n_features_in_
        return self

    def predict_proba(self, X: Any) -> Probabilities:
        """Calibrated probabilities of shape (n, k), float32; columns in the order of `classes_`."""
        logits = self._checked_logits(X)
        probabilities: Probabilities = self.calibrator_.predict_proba(logits)
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Predicted class of each row, one of `classes_`."""
        logits = self._checked_logits(X)
        predicted: NDArray[Any] = self.classes_[self.calibrator_.prediction(logits)]
        return predicted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if hasattr(self.estimator, "__sklearn_tags__"):
            tags.input_tags = get_tags(self.estimator).input_tags
        return tags

    def _present_classes(self) -> NDArray[Any]:
        """The classes of the classifier as it is now."""
        classes = getattr(self.estimator, "classes_", None)
        if classes is None:
            if hasattr(self.estimator, "fit"):
                check_is_fitted(self.estimator)
            raise InvalidInput(
                f"estimator must be a fitted classifier with classes_, got "
                f"{type(self.estimator).__name__}: if it has none, give its scores to "
                "LogitCalibrator",
                field="estimator",
            )
        if isinstance(classes, list) and any(np.ndim(each) for each in classes):
            raise InvalidInput(
                f"estimator must have one output, got {len(classes)}: calibrate a classifier for "
                "each output",
                field="estimator",
            )
        return np.asarray(classes)

    def _checked_logits(self, X: Any) -> Logits:
        """The logits, of the classes that the calibrator was fitted for."""
        check_is_fitted(self, "calibrator_")
        present = self._present_classes()
        if not np.array_equal(present, self.classes_):
            raise InvalidInput(
                f"estimator.classes_ must be those of the fit, {shown(self.classes_.tolist())}, "
                f"got {shown(present.tolist())}: fit the calibrator again",
                field="estimator",
            )
        return self._logits(X, present)

    def _logits(self, X: Any, classes: NDArray[Any]) -> Logits:
        response = self.response
        if response is None:
            response = next((name for name in RESPONSES if hasattr(self.estimator, name)), "")
        if response not in RESPONSES or not hasattr(self.estimator, response):
            raise InvalidInput(
                f"estimator must have {' or '.join(RESPONSES)}, got {type(self.estimator).__name__}"
                f" with response {self.response!r}",
                field="response",
            )
        answers = plain_array(getattr(self.estimator, response)(X), response)
        k = len(classes)
        if response == "decision_function" and k > 2 and _is_of_pairs(self.estimator):
            answers = scores_of_pairs(answers, k)
        if answers.ndim == 1 or (k == 2 and answers.shape[1:] == (1,)):
            if k != 2:
                raise InvalidInput(
                    f"{response} must have a column for each of the {k} classes_ of the estimator "
                    f"({shown(classes.tolist())}), got one number per row",
                    field="estimator",
                )
        elif answers.shape[1:] != (k,):
            raise InvalidInput(
                f"{response} must have a column for each of the {k} classes_ of the "
                f"estimator ({shown(classes.tolist())}), got {answers.shape[1]}",
                field="estimator",
            )
        if response == "predict_proba":
            return logits_from_probabilities(answers, name=response)
        return as_logits(answers, name=response)


def scores_of_pairs(values: NDArray[Any], k: int) -> NDArray[np.float64]:
    """A score for each class from one-vs-one decision values.

    Parameters
    ----------
    values : ndarray of shape (n, k(k − 1)/2)
        Positive where the first class of a pair wins; pairs (0, 1), (0, 2), …, (1, 2), ….
    k : int

    Returns
    -------
    ndarray of shape (n, k), float64
        Votes, and less than half a vote for the sum of the values: scikit-learn's "ovr".
    """
    first, second = np.triu_indices(k, 1)
    if values.shape[1:] != first.shape:
        raise InvalidInput(
            f"decision_function must have a column for each of the {first.size} pairs of the {k} "
            f"classes_ of the estimator, got {values.shape[1]}",
            field="estimator",
        )
    votes, sums = np.zeros((len(values), k)), np.zeros((len(values), k))
    for column, (i, j) in enumerate(zip(first, second, strict=True)):
        value = values[:, column].astype(np.float64)
        votes[:, i] += value >= 0
        votes[:, j] += value < 0
        sums[:, i] += value
        sums[:, j] -= value
    return votes + sums / (3.0 * (np.abs(sums) + 1.0))


def _is_of_pairs(estimator: Any) -> bool:
    """Whether decision values are of pairs of classes: of a support vector machine at the end."""
    for _ in range(20):  # nested as deep as that
        if hasattr(estimator, "decision_function_shape"):
            return bool(estimator.decision_function_shape == "ovo")
        inner = getattr(estimator, "best_estimator_", None)
        if inner is None and getattr(estimator, "steps", None):
            inner = estimator.steps[-1][1]
        if inner is None and type(estimator).__name__ == "BaggingClassifier":
            inner = estimator.estimators_[0]
        if inner is None:
            inner = getattr(estimator, "estimator_", None)
        if inner is None and type(estimator).__name__ == "FrozenEstimator":
            inner = estimator.estimator
        if inner is None or isinstance(inner, str):
            return False
        estimator = inner
    return False
