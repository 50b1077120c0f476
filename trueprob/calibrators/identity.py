"""The calibrator `identity`: the plain softmax, the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, softmax
from trueprob.calibrators.base import Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.parameters import require_keys

__all__ = ["IdentityCalibrator", "fit_identity"]


@dataclass(frozen=True)
class IdentityCalibrator(Calibrator):
    """Softmax of the unchanged logits; the temperature is 1."""

    kind: ClassVar[str] = "identity"
    preserves_ranking: ClassVar[bool] = True

    def parameters(self) -> dict[str, Any]:
        """An empty dictionary: there is nothing to fit."""
        return {}

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when there are any."""
        require_keys(parameters, (), where="parameters")
        return cls(n_classes)

    def _probabilities(self, logits: Logits) -> Probabilities:
        return softmax(logits)

    def _temperature(self, logits: Logits) -> NDArray[np.float64]:
        return np.ones(logits.shape[0])


def fit_identity(
    logits: Logits, labels: Labels, weights: NDArray[np.float64] | None = None, *, seed: int = 0
) -> FittedCalibrator:
    """The identity for any data."""
    del labels, weights, seed
    return FittedCalibrator(IdentityCalibrator(logits.shape[1]), FitOutcome.NOTHING_TO_FIT)
