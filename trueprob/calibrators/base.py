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
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays import logit_functions
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.class_names import as_class_names, say_more_than_order
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import (
    ABOVE_RUNNER_UP,
    Logits,
    Probabilities,
    fill_masks,
    is_masked,
    logit_gap,
)
from trueprob.arrays.logits import as_logits
from trueprob.calibrators.input_stage import InputStage
from trueprob.calibrators.uncertainty import ProbabilityInterval, Uncertainty
from trueprob.errors import InvalidInput

__all__ = ["Calibrated", "Calibrator", "FitOutcome", "FittedCalibrator"]


NO_STAGE: Final = InputStage()
FAR: Final = 1e38  # nats below the top: e to the power of minus this is 0 at any temperature


class FitOutcome(StrEnum):
    """How a fit ended; a numerical outcome is never an exception."""

    CONVERGED = "converged"
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
    log_odds : ndarray of shape (n,), float64, or None
        log P(1) − log P(0), in nats; None for methods without them.
    """

    probabilities: Probabilities
    prediction: Labels
    confidence: NDArray[np.float32]
    temperature: NDArray[np.float64] | None
    logit_gap: NDArray[np.float32]
    log_odds: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Calibrator(ABC):
    """Maps logits to calibrated probabilities.

    Attributes
    ----------
    n_classes : int
        k; logits with another number of columns are refused.
    class_names : tuple of k strings, or None
        In the order of the columns of the logits; None if they are unknown.
    input_stage : InputStage or None
        What it does about probabilities of 0, about scores on a wild scale and about masks that
        are not minus infinity; None for most.
    uncertainty : Uncertainty or None
        What `predict_interval` needs. Probabilities do not depend on it, and neither do equality
        and id.
    kind : str
        Name of the method, a class attribute.
    preserves_prediction : bool
        Whether the prediction is always the argmax of the logits, a class attribute.
    preserves_ranking : bool
        Whether, with two classes, the calibrated log-odds always rise with the logit difference
        z₁ − z₀, so that no pair of rows changes its order, a class attribute. That is before
        probabilities are rounded to float32; `smart-binary` keeps the order after it too.

    Notes
    -----
    Minus infinity masks a class: its probability is exactly 0, and the others are those of a row
    without that class, as far as the method can tell.
    """

    n_classes: int
    class_names: tuple[str, ...] | None = field(default=None, kw_only=True)
    input_stage: InputStage | None = field(default=None, kw_only=True)
    uncertainty: Uncertainty | None = field(default=None, kw_only=True, compare=False, repr=False)

    kind: ClassVar[str]
    preserves_prediction: ClassVar[bool] = True
    preserves_ranking: ClassVar[bool] = False
    # Whether `_calibrated` takes −inf itself; otherwise masked classes reach it as finite logits.
    takes_masks: ClassVar[bool] = False

    def predict_proba(self, logits: ArrayLike) -> Probabilities:
        """Calibrated probabilities of each row.

        Parameters
        ----------
        logits : array_like of shape (n, k)
            With two classes also (n,) or (n, 1), the logit of class 1, in every method. A table
            whose columns are named by the classes is matched by name.

        Returns
        -------
        ndarray of shape (n, k), float32
            Two columns for one logit per row as well; P(class 1) is column 1. C-contiguous;
            p[prediction] is above all others, so their argmax is `prediction`.

        Raises
        ------
        InvalidInput
            Wrong shape or type, a number that is neither finite in float32 nor minus infinity, or
            a row in which every class is masked.
        """
        checked = as_logits(logits, n_classes=self.n_classes, class_names=self.class_names)
        if self._is_plain(checked):
            return self._probabilities(checked)
        return self._staged(checked).probabilities

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
        checked = as_logits(logits, n_classes=self.n_classes, class_names=self.class_names)
        if self._is_plain(checked):
            return self._temperature(checked)
        return self._staged(checked).temperature

    def log_odds(self, logits: ArrayLike) -> NDArray[np.float64] | None:
        """Calibrated log P(1) − log P(0) of each row, None for all methods but `smart-binary`.

        Probabilities are rounded to float32; these are not, so ranks of rows are exact.

        Parameters
        ----------
        logits : array_like of shape (n, 2)

        Returns
        -------
        ndarray of shape (n,), float64, or None
            Finite, in nats.

        Raises
        ------
        InvalidInput
            As in `predict_proba`.
        """
        checked = as_logits(logits, n_classes=self.n_classes, class_names=self.class_names)
        if self._is_plain(checked):
            return self._log_odds(checked)
        return self._staged(checked).log_odds

    def prediction(self, logits: ArrayLike) -> Labels:
        """Predicted class: the argmax of the incoming logits, the first of ties.

        Methods with a linear stage take the argmax of its output, `smart-binary` the sign of the
        log-odds, and a stack the argmax of its mixture. The argmax of the probabilities is the same
        class on every row.

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
        checked = as_logits(logits, n_classes=self.n_classes, class_names=self.class_names)
        if self._is_plain(checked):
            return self._prediction(checked)
        return self._staged(checked).prediction

    def calibrated(self, logits: Logits) -> Calibrated:
        """`predict_proba`, `prediction`, `temperature` and `log_odds` in one call, bit for bit.

        Parameters
        ----------
        logits : ndarray of shape (n, k), float32
            As returned by `trueprob.as_logits`; not checked again.

        Returns
        -------
        Calibrated
        """
        return self._calibrated(logits) if self._is_plain(logits) else self._staged(logits)

    def _is_plain(self, logits: Logits) -> bool:
        """Whether rows need neither an input stage nor a mask, as nearly all do."""
        return self.input_stage is None and not is_masked(logits)

    def _staged(self, logits: Logits) -> Calibrated:
        """Rows with masked classes or an input stage: before, within and after the calibrator."""
        stage = self.input_stage or NO_STAGE
        logits = stage.masked(logits)
        inner, zero = stage.split(logits)
        masked = np.isneginf(inner)
        marked = np.flatnonzero(masked.any(axis=1))
        if not self.takes_masks and marked.size:
            inner = fill_masks(inner, masked, FAR)
        found = self._calibrated(inner)
        p, top = found.probabilities, found.prediction
        if marked.size:
            p = np.where(masked, np.float32(0.0), p)
            p[marked] /= p[marked].sum(axis=1, keepdims=True)
            if zero is not None and stage.zeros is not None:
                stage.zeros.spread(p, top, zero, ~masked)
            # Rounding may have put another class level with the prediction.
            level = marked[p[marked].argmax(axis=1) != top[marked]]
            p[level, top[level]] = p[level].max(axis=1) * ABOVE_RUNNER_UP
        confidence = p[np.arange(len(p)), top]
        gap = logit_gap(logits)
        return Calibrated(p, top, confidence, found.temperature, gap, found.log_odds)

    def _calibrated(self, logits: Logits) -> Calibrated:
        """`calibrated` of rows to which the input stage was applied."""
        probabilities, prediction = self._probabilities(logits), self._prediction(logits)
        confidence = probabilities[np.arange(len(logits)), prediction]
        temperature = self._temperature(logits)
        log_odds = self._log_odds(logits)
        gap = logit_gap(logits)
        return Calibrated(probabilities, prediction, confidence, temperature, gap, log_odds)

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
        checked = as_logits(logits, n_classes=self.n_classes, class_names=self.class_names)
        checked = (self.input_stage or NO_STAGE).masked(checked)
        answer = self.calibrated(checked)
        found = self.uncertainty.interval(answer.probabilities, answer.prediction, level)
        certain = np.count_nonzero(checked != -np.inf, axis=1) == 1  # one class is not masked
        return replace(found, low=np.where(certain, 1.0, found.low))

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
        """Kind and the first 12 hex digits of the sha256 of all that answers depend on.

        That is kind, parameters, the input stage if there is one, and class names unless they are
        0 to k − 1 in order.
        """
        # Canonical JSON: sorted keys, no spaces, shortest round-trip floats.
        content: dict[str, Any] = {"kind": self.kind, "parameters": self.parameters()}
        if say_more_than_order(self.class_names):
            content["class_names"] = self.class_names
        if self.input_stage is not None:
            content["input_stage"] = self.input_stage.parameters()
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

    def with_masks(self, masks: InputStage | None) -> Self:
        """The same calibrator with what else than minus infinity is a mask, and nothing else."""
        if masks is None:
            return self
        stage = replace(
            self.input_stage or NO_STAGE,
            mask_below=masks.mask_below,
            zeros_are_masks=masks.zeros_are_masks,
        )
        return replace(self, input_stage=stage)

    @property
    def masks(self) -> InputStage | None:
        """What else than minus infinity is a mask; None if nothing is."""
        return None if self.input_stage is None else self.input_stage.masks

    def masked_set(self, data: CalibrationSet) -> CalibrationSet:
        """The set with minus infinity where this calibrator sees masks; InvalidInput for labels."""
        return data if self.masks is None else self.masks.masked_set(data)

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Fitted values as JSON values; the round trip is exact to the bit."""

    @classmethod
    @abstractmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""

    def _prediction(self, logits: Logits) -> Labels:
        return logit_functions.prediction(logits)

    def _log_odds(self, logits: Logits) -> NDArray[np.float64] | None:
        del logits
        return None

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
