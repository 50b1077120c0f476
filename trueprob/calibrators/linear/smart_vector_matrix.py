"""The calibrators `smart-vector` and `smart-matrix`: a linear stage, then `smart` as gap stage.

    y = W x + b,   p = smart(y),   W diagonal (vector) or full (matrix)

The gap stage is fitted on out-of-fold outputs: each row's y comes from a linear stage fitted on
the other four fifths of the rows, folds balanced in errors. So it also corrects the confidence
that the linear stage gains by overfitting. Predictions use W and b fitted on all rows.

The same folds choose the strength of the linear stage's priors. Where the strongest is best, W is
a scale and b is 0; then there is no linear stage, and the gap stage is that of `smart`. Predictions
may change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays import logit_functions
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, logit_gap
from trueprob.arrays.logits import as_logits
from trueprob.arrays.weights_and_groups import Groups
from trueprob.calibrators.base import Calibrated, Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.linear.fit import STRENGTHS, LinearCrossFit, cross_fit_linear_stage
from trueprob.calibrators.linear.stage import LinearStage
from trueprob.calibrators.linear.vector import N_FOLDS, UNCONVERGED
from trueprob.calibrators.parameters import require_keys
from trueprob.calibrators.smart.calibrator import SmartCalibrator, fit_smart
from trueprob.errors import InvalidDocument
from trueprob.folds import fold_of_rows

__all__ = [
    "SmartMatrixCalibrator",
    "SmartVectorCalibrator",
    "TwoStages",
    "TwoStagesFit",
    "fit_gap_stage",
    "fit_smart_matrix",
    "fit_smart_vector",
    "fit_two_stages",
]


@dataclass(frozen=True)
class TwoStages(Calibrator):
    """The gap stage of `smart` on the output of a linear stage."""

    linear: LinearStage | None  # None if the priors shrank it to a scale
    gap_stage: SmartCalibrator

    full: ClassVar[bool]
    preserves_prediction: ClassVar[bool] = False
    takes_masks: ClassVar[bool] = True

    def parameters(self) -> dict[str, Any]:
        """Fitted values of both stages as JSON values."""
        return {
            "linear": None if self.linear is None else self.linear.parameters(),
            "gap_stage": self.gap_stage.parameters(),
        }

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        require_keys(parameters, ("linear", "gap_stage"), where="parameters")
        gap_stage, linear = parameters["gap_stage"], parameters["linear"]
        if not isinstance(gap_stage, Mapping):
            raise InvalidDocument("parameters.gap_stage must be an object")
        stage = None
        if linear is not None:
            stage = LinearStage.from_parameters(
                n_classes, linear, full=cls.full, where="parameters.linear"
            )
        return cls(n_classes, stage, SmartCalibrator.from_parameters(n_classes, gap_stage))

    def _linear(self, logits: Logits) -> Logits:
        return logits if self.linear is None else self.linear.apply(logits)

    def _calibrated(self, logits: Logits) -> Calibrated:
        """One pass through the linear stage."""
        # The linear stage's output is checked, as any logits are.
        inner = as_logits(self._linear(logits), n_classes=self.n_classes)
        return replace(self.gap_stage.calibrated(inner), logit_gap=logit_gap(logits))

    def _prediction(self, logits: Logits) -> Labels:
        """The argmax of the linear stage's output, the first of ties."""
        return logit_functions.prediction(self._linear(logits))

    def _probabilities(self, logits: Logits) -> Probabilities:
        return self.gap_stage.predict_proba(self._linear(logits))

    def _temperature(self, logits: Logits) -> NDArray[np.float64] | None:
        """The gap stage's temperature, which divides the linear stage's output."""
        return self.gap_stage.temperature(self._linear(logits))


@dataclass(frozen=True)
class SmartVectorCalibrator(TwoStages):
    """`smart` on the output of a weight and a bias for each class (vector scaling).

    Attributes
    ----------
    linear : LinearStage or None
        Diagonal; None if the priors shrank it to a scale.
    gap_stage : SmartCalibrator

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, section 4.2, for the linear map; SMART, arXiv:2506.23492,
    for the temperature from the gap.
    """

    kind: ClassVar[str] = "smart-vector"
    full: ClassVar[bool] = False


@dataclass(frozen=True)
class SmartMatrixCalibrator(TwoStages):
    """`smart` on the output of a matrix and a bias (matrix scaling).

    Attributes
    ----------
    linear : LinearStage or None
        Full matrix; None if the priors shrank it to a scale.
    gap_stage : SmartCalibrator

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, section 4.2, for the linear map; SMART, arXiv:2506.23492,
    for the temperature from the gap.
    """

    kind: ClassVar[str] = "smart-matrix"
    full: ClassVar[bool] = True


def fit_smart_vector(
    logits: Logits,
    labels: Labels,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,
    groups: Groups | None = None,
    strengths: Sequence[float] = STRENGTHS,  # for the ablations in `benchmarks`
) -> FittedCalibrator:
    """Fit `smart-vector`."""
    fitted = fit_two_stages(
        logits, labels, weights, full=False, seed=seed, groups=groups, strengths=strengths
    )
    calibrator = SmartVectorCalibrator(logits.shape[1], fitted.linear, fitted.gap_stage)
    return FittedCalibrator(calibrator, fitted.outcome, fitted.warnings)


def fit_smart_matrix(
    logits: Logits,
    labels: Labels,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,
    groups: Groups | None = None,
    strengths: Sequence[float] = STRENGTHS,  # for the ablations in `benchmarks`
) -> FittedCalibrator:
    """Fit `smart-matrix`."""
    fitted = fit_two_stages(
        logits, labels, weights, full=True, seed=seed, groups=groups, strengths=strengths
    )
    calibrator = SmartMatrixCalibrator(logits.shape[1], fitted.linear, fitted.gap_stage)
    return FittedCalibrator(calibrator, fitted.outcome, fitted.warnings)


@dataclass(frozen=True)
class TwoStagesFit:
    """Both fitted stages, how the fit ended, and its warnings."""

    linear: LinearStage | None
    gap_stage: SmartCalibrator
    outcome: FitOutcome
    warnings: tuple[str, ...]


def fit_two_stages(
    logits: Logits,  # (n, k) float32
    labels: Labels,  # (n,) int64
    weights: NDArray[np.float64] | None,  # (n,), only their ratios matter
    *,
    full: bool,  # a matrix rather than its diagonal
    seed: int,  # of the folds
    groups: Groups | None = None,  # (n,), rows of one group stay in one fold
    strengths: Sequence[float] = STRENGTHS,  # of the linear stage's priors, strongest first
) -> TwoStagesFit:
    """Fit a linear stage on all rows and the gap stage on its out-of-fold outputs."""
    correct = logit_functions.prediction(logits) == labels
    fold = fold_of_rows(correct, groups, N_FOLDS, seed=seed)
    crossed = cross_fit_linear_stage(logits, labels, weights, fold, full=full, strengths=strengths)
    return fit_gap_stage(crossed, logits, labels, weights, seed=seed, groups=groups)


def fit_gap_stage(
    crossed: LinearCrossFit,
    logits: Logits,  # (n, k) float32, from which the linear stage was fitted
    labels: Labels,
    weights: NDArray[np.float64] | None,
    *,
    seed: int,
    groups: Groups | None = None,
) -> TwoStagesFit:
    """Fit the gap stage on the out-of-fold outputs of a linear stage."""
    whole = math.isinf(crossed.strength)  # the linear stage is a scale, which the gap stage has too
    linear, outputs = (None, logits) if whole else (crossed.stage, crossed.outputs)
    fitted = fit_smart(outputs, labels, weights, seed=seed, groups=groups)
    gap_stage = fitted.calibrator
    if not isinstance(gap_stage, SmartCalibrator):
        raise TypeError("fit_smart must return a SmartCalibrator")
    outcome = fitted.outcome if crossed.converged else FitOutcome.NOT_CONVERGED
    warnings: tuple[str, ...] = () if crossed.converged else (UNCONVERGED,)
    if whole or fitted.outcome is FitOutcome.NOT_CONVERGED:  # else the linear stage is applied
        warnings += fitted.warnings
    return TwoStagesFit(linear, gap_stage, outcome, warnings)
