"""The calibrator `vector`: vector scaling with priors towards a single temperature.

    p = (1 − w)·softmax(W x + b) + w/k,   W diagonal, x the centred logits

Guo et al. 2017, arXiv:1706.04599, fit without priors, which overfits with many classes or few
rows; the priors are those of `trueprob.calibrators.linear.objective`, with a strength chosen by
cross-validation. Predictions may change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays import logit_functions
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, tempered_softmax
from trueprob.arrays.weights_and_groups import Groups
from trueprob.calibrators.base import Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.linear.fit import cross_fit_linear_stage
from trueprob.calibrators.linear.stage import LinearStage
from trueprob.calibrators.parameters import number, require_keys
from trueprob.calibrators.smart.calibrator import UNIFORM_SHARE
from trueprob.errors import InvalidDocument
from trueprob.folds import fold_of_rows

__all__ = ["N_FOLDS", "UNCONVERGED", "VectorCalibrator", "fit_vector"]

N_FOLDS: Final = 5
UNCONVERGED: Final = "the linear stage's optimiser ran out of steps; its last point is kept"


@dataclass(frozen=True)
class VectorCalibrator(Calibrator):
    """Softmax of logits with one weight and one bias for each class (vector scaling).

    Attributes
    ----------
    linear : LinearStage
        Diagonal.
    uniform_weight : float
        w of the mixture with the uniform distribution.

    References
    ----------
    Guo et al. 2017, arXiv:1706.04599, section 4.2.
    """

    linear: LinearStage
    uniform_weight: float

    kind: ClassVar[str] = "vector"
    preserves_prediction: ClassVar[bool] = False
    takes_masks: ClassVar[bool] = True

    def parameters(self) -> dict[str, Any]:
        """Fitted values as JSON values."""
        return {**self.linear.parameters(), "uniform_weight": self.uniform_weight}

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        where = "parameters"
        require_keys(parameters, ("weights", "bias", "uniform_weight"), where=where)
        weight = number(parameters, "uniform_weight", where=where, above=-math.inf, below=1.0)
        if weight < 0.0:
            raise InvalidDocument("parameters.uniform_weight must lie in [0, 1)")
        stage = {name: parameters[name] for name in ("weights", "bias")}
        linear = LinearStage.from_parameters(n_classes, stage, full=False, where=where)
        return cls(n_classes, linear, weight)

    def _prediction(self, logits: Logits) -> Labels:
        """The argmax of the linear stage's output, the first of ties."""
        return logit_functions.prediction(self.linear.apply(logits))

    def _probabilities(self, logits: Logits) -> Probabilities:
        return tempered_softmax(self.linear.apply(logits), uniform_weight=self.uniform_weight)

    def _temperature(self, logits: Logits) -> None:
        del logits
        return


def fit_vector(
    logits: Logits,
    labels: Labels,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,  # of the folds
    groups: Groups | None = None,  # (n,), rows of one group stay in one fold
) -> FittedCalibrator:
    """Fit weights and biases by penalised likelihood."""
    correct = logit_functions.prediction(logits) == labels
    fold = fold_of_rows(correct, groups, N_FOLDS, seed=seed)
    fitted = cross_fit_linear_stage(logits, labels, weights, fold, full=False)
    n, k = logits.shape
    calibrator = VectorCalibrator(k, fitted.stage, UNIFORM_SHARE / (n + 1))
    if fitted.converged:
        return FittedCalibrator(calibrator, FitOutcome.CONVERGED)
    return FittedCalibrator(calibrator, FitOutcome.NOT_CONVERGED, (UNCONVERGED,))
