"""The calibrator `smart-mlp`: SMART as published, a network from gap to temperature.

    x = (clip(g, g_lo, g_hi) − mean) / sd          on the calibration set's gaps
    h = softplus(b₂ + Σ_j v_j·relu(w_j·x + b_j)) + 0.1,   j = 1 … 16
    p = softmax(z / h)

It is trained on a soft ECE by 2 000 full-batch steps of Adam, learning rate 5e-3
(arXiv:2506.23492), and serves as the reference. `smart` keeps the order by gap, needs fewer rows,
and fits in milliseconds instead of seconds. The floor h ≥ 0.1 harms networks with small logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, logit_gap, tempered_softmax
from trueprob.calibrators.base import Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.parameters import number, numbers, require_keys
from trueprob.calibrators.published_smart.network import (
    H_FLOOR,
    HIDDEN,
    GapScaling,
    before_softplus,
)
from trueprob.calibrators.published_smart.objective import fit_network
from trueprob.errors import InvalidDocument

__all__ = ["SmartMlpCalibrator", "fit_smart_mlp"]

MAX_WEIGHT: Final = 1e6  # keeps h finite and positive whatever a document says


@dataclass(frozen=True)
class SmartMlpCalibrator(Calibrator):
    """Softmax of logits divided by the published network's temperature.

    Attributes
    ----------
    gap_low, gap_high, gap_mean, gap_sd : float
        Range, mean and standard deviation of the calibration gaps, in nats.
    hidden_weights, hidden_biases, output_weights : tuple of 16 floats
    output_bias : float

    References
    ----------
    SMART, arXiv:2506.23492.
    """

    gap_low: float
    gap_high: float
    gap_mean: float
    gap_sd: float
    hidden_weights: tuple[float, ...]
    hidden_biases: tuple[float, ...]
    output_weights: tuple[float, ...]
    output_bias: float

    kind: ClassVar[str] = "smart-mlp"

    def parameters(self) -> dict[str, Any]:
        """Fitted values as JSON values."""
        return {
            "gap_low": self.gap_low,
            "gap_high": self.gap_high,
            "gap_mean": self.gap_mean,
            "gap_sd": self.gap_sd,
            "hidden_weights": list(self.hidden_weights),
            "hidden_biases": list(self.hidden_biases),
            "output_weights": list(self.output_weights),
            "output_bias": self.output_bias,
        }

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        where = "parameters"
        scaling = ("gap_low", "gap_high", "gap_mean", "gap_sd")
        vectors = ("hidden_weights", "hidden_biases", "output_weights")
        require_keys(parameters, (*scaling, *vectors, "output_bias"), where=where)
        low, high, mean = (number(parameters, key, where=where) for key in scaling[:3])
        deviation = number(parameters, "gap_sd", where=where, above=0.0)
        if high < low:
            raise InvalidDocument("parameters.gap_high must not be below gap_low")
        hidden, biases, output = (numbers(parameters, key, where=where) for key in vectors)
        bias = number(parameters, "output_bias", where=where)
        for key, values in zip(vectors, (hidden, biases, output), strict=True):
            if len(values) != HIDDEN:
                raise InvalidDocument(
                    f"parameters.{key} must have {HIDDEN} numbers, got {len(values)}"
                )
        if any(abs(value) > MAX_WEIGHT for value in (*hidden, *biases, *output, bias)):
            raise InvalidDocument(f"parameters must lie within ±{MAX_WEIGHT:g}, a weight does not")
        return cls(n_classes, low, high, mean, deviation, hidden, biases, output, bias)

    def _temperature(self, logits: Logits) -> NDArray[np.float64]:
        scaling = GapScaling(self.gap_low, self.gap_high, self.gap_mean, self.gap_sd)
        weights = np.array(
            [*self.hidden_weights, *self.hidden_biases, *self.output_weights, self.output_bias]
        )
        out, _ = before_softplus(scaling.apply(logit_gap(logits)), weights)
        return np.asarray(np.logaddexp(0.0, out) + H_FLOOR)

    def _probabilities(self, logits: Logits) -> Probabilities:
        return tempered_softmax(logits, self._temperature(logits))


def fit_smart_mlp(
    logits: Logits, labels: Labels, weights: NDArray[np.float64] | None = None, *, seed: int = 0
) -> FittedCalibrator:
    """Train the published network; `seed` draws its initial weights.

    The result is chaotic in the seed: ECE moves by tenths of a point. The outcome is always
    `converged`, since the published recipe just stops after 2 000 steps.
    """
    scaling, trained = fit_network(logits, labels, weights, seed=seed)
    values = [float(value) for value in trained]
    calibrator = SmartMlpCalibrator(
        logits.shape[1],
        scaling.low,
        scaling.high,
        scaling.mean,
        scaling.deviation,
        tuple(values[:HIDDEN]),
        tuple(values[HIDDEN : 2 * HIDDEN]),
        tuple(values[2 * HIDDEN : 3 * HIDDEN]),
        values[-1],
    )
    return FittedCalibrator(calibrator, FitOutcome.CONVERGED)
