"""The base class of all calibrators: a frozen value that maps logits to probabilities.

Calibrators are frozen dataclasses of plain numbers, so equal ones give equal answers, and a round
trip through a document is exact to the bit.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays import logit_functions
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.class_names import as_class_names, say_more_than_order
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, logit_gap
from trueprob.arrays.logits import as_logits
from trueprob.calibrators.uncertainty import ProbabilityInterval, Uncertainty
from trueprob.errors import InvalidInput

__all__ = ["Calibrated", "Calibrator", "FitOutcome", "FittedCalibrator"]


class FitOutcome(StrEnum):
    """How a fit ended; a numerical outcome is never an exception."""

    CONVERGED = "converged"
    AT_BOUND = "at_bound"  # the optimum lies at the edge of the allowed interval
    NOT_CONVERGED = "not_converged"  # the budget of steps ran out; the best point is kept
    NOTHING_TO_FIT = "nothing_to_fit"  # the method has no parameters


@dataclass(frozen=True)
class Calibrated:
    """All results of a calibrator for a batch of rows.

    Attributes
    ----------
    probabilities : ndarray of shape (n, k), float32
    prediction : ndarray of shape (n,), int64
    confidence : ndarray of shape (n,), float32
        The probability of the prediction.
    temperature : ndarray of shape (n,), float64, or None
        None for methods without one.
    logit_gap : ndarray of shape (n,), float32
        Of the incoming logits, in nats.
    """

    probabilities: Probabilities
    prediction: Labels
    confidence: NDArray[np.float32]
    temperature: NDArray[np.float64] | None
    logit_gap: NDArray[np.float32]


@dataclass(frozen=True)
class Calibrator(ABC):
    """Maps logits to calibrated probabilities.

    Attributes
    ----------
    n_classes : int
        k; logits with another number of columns are refused.
    class_names : tuple of k strings, or None
        In the order of the columns of the logits; None if they are unknown.
    uncertainty : Uncertainty or None
        What `predict_interval` needs. Probabilities do not depend on it, and neither do equality
        and id.
    kind : str
        Name of the method, a class attribute.
    preserves_prediction : bool
        Whether the prediction is always the argmax of the logits, a class attribute.
    """

    n_classes: int
    class_names: tuple[str, ...] | None = field(default=None, kw_only=True)
    uncertainty: Uncertainty | None = field(default=None, kw_only=True, compare=False, repr=False)

    kind: ClassVar[str]
    preserves_prediction: ClassVar[bool] = True

    def predict_proba(self, logits: ArrayLike) -> Probabilities:
        """Calibrated probabilities of each row.

        Parameters
        ----------
        logits : array_like of shape (n, k)

        Returns
        -------
        ndarray of shape (n, k), float32
            C-contiguous; p[prediction] == max(p) holds exactly.

        Raises
        ------
        InvalidInput
            Wrong shape or type, or a number that is not finite in float32.
        """
        return self._probabilities(as_logits(logits, n_classes=self.n_classes))

    def temperature(self, logits: ArrayLike) -> NDArray[np.float64] | None:
        """Temperature of each row, None for methods without one.

        Parameters
        ----------
        logits : array_like of shape (n, k)

        Returns
        -------
        ndarray of shape (n,), float64, or None
            Positive.

        Raises
        ------
        InvalidInput
            As in `predict_proba`.
        """
        return self._temperature(as_logits(logits, n_classes=self.n_classes))

    def prediction(self, logits: ArrayLike) -> Labels:
        """Predicted class: the argmax of the incoming logits, the first of ties.

        Methods that may change the prediction take the argmax of their first stage's output. The
        argmax of the probabilities could differ, because they are rounded.

        Parameters
        ----------
        logits : array_like of shape (n, k)

        Returns
        -------
        ndarray of shape (n,), int64

        Raises
        ------
        InvalidInput
            As in `predict_proba`.
        """
        return self._prediction(as_logits(logits, n_classes=self.n_classes))

    def calibrated(self, logits: Logits) -> Calibrated:
        """`predict_proba`, `prediction` and `temperature` in one call, the same bit for bit.

        Parameters
        ----------
        logits : ndarray of shape (n, k), float32
            As returned by `trueprob.as_logits`; not checked again.

        Returns
        -------
        Calibrated
        """
        probabilities, prediction = self._probabilities(logits), self._prediction(logits)
        confidence = probabilities[np.arange(len(logits)), prediction]
        temperature = self._temperature(logits)
        return Calibrated(probabilities, prediction, confidence, temperature, logit_gap(logits))

    def predict_interval(self, logits: ArrayLike, level: float = 0.9) -> ProbabilityInterval:
        """Intervals of the probability that each prediction is right.

        An interval is for the share of right predictions among rows of such a confidence (with two
        classes, the frequency of class 1 among rows of such a P(class 1)), as far as the rows that
        the calibrator was fitted on determine it. It takes future rows to be like those.

        Parameters
        ----------
        logits : array_like of shape (n, k)
        level : float
            Between 0 and 1, both excluded.

        Returns
        -------
        ProbabilityInterval

        Raises
        ------
        InvalidInput
            As in `predict_proba`; a level that is not between 0 and 1; or the calibrator has no
            `uncertainty`.

        References
        ----------
        See `trueprob.calibrators.uncertainty` for the formulas.
        """
        if self.uncertainty is None:
            raise InvalidInput(
                "calibrator must have an uncertainty for intervals, and this one was made by an "
                "earlier version or without its rows: fit it again, or give with_uncertainty a "
                "set of labelled rows",
                field="calibrator",
            )
        answer = self.calibrated(as_logits(logits, n_classes=self.n_classes))
        return self.uncertainty.interval(answer.probabilities, answer.prediction, level)

    def with_uncertainty(self, rows: CalibrationSet) -> Self:
        """The same calibrator with the uncertainty that labelled rows leave.

        Parameters
        ----------
        rows : CalibrationSet
            The rows that it was fitted on, or others like those it will see.

        Returns
        -------
        Calibrator

        Raises
        ------
        InvalidInput
            The rows have another number of classes.
        """
        if rows.n_classes != self.n_classes:
            raise InvalidInput(
                f"rows must have {self.n_classes} classes, got {rows.n_classes}", field="rows"
            )

        def answers(logits: Logits) -> tuple[Probabilities, Labels]:
            found = self.calibrated(logits)
            return found.probabilities, found.prediction

        uncertainty = Uncertainty.of(
            answers, as_logits(rows.logits), rows.labels, rows.weights, rows.groups
        )
        return replace(self, uncertainty=uncertainty)

    @property
    def id(self) -> str:
        """Kind and the first 12 hex digits of the sha256 of kind, parameters and class names.

        Without names, or with the names 0 to k − 1 in order, kind and parameters alone.
        """
        # Canonical JSON: sorted keys, no spaces, shortest round-trip floats.
        content: dict[str, Any] = {"kind": self.kind, "parameters": self.parameters()}
        if say_more_than_order(self.class_names):
            content["class_names"] = self.class_names
        canonical = json.dumps(
            content,
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        )
        return f"{self.kind}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"

    def with_class_names(self, class_names: Sequence[str] | None) -> Self:
        """The same calibrator with these names of its classes, in the order of its columns.

        Parameters
        ----------
        class_names : sequence of k strings, or None

        Returns
        -------
        Calibrator

        Raises
        ------
        InvalidInput
            They are not k distinct, non-empty texts.
        """
        if class_names is not None:
            class_names = as_class_names(class_names, n_classes=self.n_classes)
        return replace(self, class_names=class_names)

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Fitted values as JSON values; the round trip is exact to the bit."""

    @classmethod
    @abstractmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""

    def _prediction(self, logits: Logits) -> Labels:
        return logit_functions.prediction(logits)

    @abstractmethod
    def _probabilities(self, logits: Logits) -> Probabilities: ...

    @abstractmethod
    def _temperature(self, logits: Logits) -> NDArray[np.float64] | None: ...


@dataclass(frozen=True)
class FittedCalibrator:
    """A calibrator, how its fit ended, and warnings for whoever started it."""

    calibrator: Calibrator
    outcome: FitOutcome
    warnings: tuple[str, ...] = ()
