"""What every calibrator is: a frozen value that turns logits into probabilities.

Concrete calibrators are frozen dataclasses with parameters of plain numbers, so two of them are
equal exactly when they answer equally, and a document round trip is bit-exact. How they are
fitted is in the same file as each; how they are written down is in `document`.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays import logit_functions
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, logit_gap
from trueprob.arrays.logits import as_logits

__all__ = ["Calibrated", "Calibrator", "FitOutcome", "FittedCalibrator"]


class FitOutcome(StrEnum):
    """How a fit ended; a numerical outcome is a value, never an exception."""

    CONVERGED = "converged"
    AT_BOUND = "at_bound"  # the optimum lies at the edge of the allowed interval
    NOT_CONVERGED = "not_converged"  # the budget of steps ran out; the best point is kept
    NOTHING_TO_FIT = "nothing_to_fit"  # the method has no parameters


@dataclass(frozen=True)
class Calibrated:
    """What a calibrator says of some rows, and the gap that it says it by.

    Attributes
    ----------
    probabilities : ndarray of shape (n, k), float32
    prediction : ndarray of shape (n,), int64
    confidence : ndarray of shape (n,), float32
        The probability of the prediction.
    temperature : ndarray of shape (n,), float64, or None
    logit_gap : ndarray of shape (n,), float32
        Of the incoming logits.
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
    """

    n_classes: int

    kind: ClassVar[str]
    preserves_prediction: ClassVar[bool] = True

    def predict_proba(self, logits: ArrayLike) -> Probabilities:
        """Calibrated probabilities.

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
        """
        return self._temperature(as_logits(logits, n_classes=self.n_classes))

    def prediction(self, logits: ArrayLike) -> Labels:
        """Predicted class: the argmax of the incoming logits, the first of ties.

        Never the argmax of the rounded probabilities. Of methods that may change the prediction,
        the argmax of what their first stage gives.

        Parameters
        ----------
        logits : array_like of shape (n, k)

        Returns
        -------
        ndarray of shape (n,), int64
        """
        return self._prediction(as_logits(logits, n_classes=self.n_classes))

    def calibrated(self, logits: Logits) -> Calibrated:
        """`predict_proba`, `prediction`, `temperature` and more at once, the same bit for bit.

        Parameters
        ----------
        logits : ndarray of shape (n, k), float32
            As `trueprob.arrays.logits.as_logits` gives them: nothing is checked again.

        Returns
        -------
        Calibrated
        """
        probabilities, prediction = self._probabilities(logits), self._prediction(logits)
        confidence = probabilities[np.arange(len(logits)), prediction]
        temperature = self._temperature(logits)
        return Calibrated(probabilities, prediction, confidence, temperature, logit_gap(logits))

    @property
    def id(self) -> str:
        """Kind and the first 12 hex digits of the sha256 of kind and parameters.

        Taken of canonical JSON: sorted keys, no spaces, shortest round-trip floats.
        """
        canonical = json.dumps(
            {"kind": self.kind, "parameters": self.parameters()},
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        )
        return f"{self.kind}-{hashlib.sha256(canonical.encode()).hexdigest()[:12]}"

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """What was fitted, as JSON-able values whose round trip is bit-exact."""

    @classmethod
    @abstractmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """The calibrator that `parameters` describes; InvalidDocument otherwise."""

    def _prediction(self, logits: Logits) -> Labels:
        return logit_functions.prediction(logits)

    @abstractmethod
    def _probabilities(self, logits: Logits) -> Probabilities: ...

    @abstractmethod
    def _temperature(self, logits: Logits) -> NDArray[np.float64] | None: ...


@dataclass(frozen=True)
class FittedCalibrator:
    """What a method's fit returns.

    Attributes
    ----------
    calibrator : Calibrator
    outcome : FitOutcome
    warnings : tuple of str
        Sentences for the person who started the fit.
    """

    calibrator: Calibrator
    outcome: FitOutcome
    warnings: tuple[str, ...] = ()
