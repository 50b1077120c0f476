"""The default: a temperature for each row, from the gap of its two largest logits.

    p = (1 − w)·softmax(z / h(g)) + w/k,   g = z(1) − z(2),   s(g) = g / h(g)

s is continuous, increasing and piecewise linear with slopes exp(θ_j) between quantiles of the
calibration gaps, so 1/h(g) = Σ_j exp(θ_j)·|[0, g] ∩ I_j| / g and 1/h(0) = exp(θ_1). The last
slope continues: nothing is clamped, and the order by gap is never reversed. The idea of a
temperature from the gap is SMART's (arXiv:2506.23492); the published network is `smart-mlp`.

The fit is in `smart_objective`. The uniform weight ¼/(n + 1) guards the NLL against the one row
that is surely right and is not; 1/(n + 1) costs ECE on small sets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays import Labels, Logits, Probabilities, logit_gap, tempered_softmax
from trueprob.calibrators.base import Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.parameters import number, numbers, require_keys
from trueprob.calibrators.smart_objective import fit_log_slopes
from trueprob.calibrators.smart_terms import DEFAULT_TERMS, Terms
from trueprob.errors import InvalidDocument

__all__ = ["SmartCalibrator", "fit_smart", "inverse_temperature_of_gap"]

N_INTERVALS: Final = 8  # between quantiles of the calibration gaps
UNIFORM_SHARE: Final = 0.25  # w = this / (n + 1)
MAX_LOG_SLOPE: Final = 60.0  # float32 probabilities are 0 or 1 far before


@dataclass(frozen=True)
class SmartCalibrator(Calibrator):
    """Softmax of logits divided by a temperature that depends on their gap.

    Attributes
    ----------
    edges : tuple of m − 1 floats
        Inner edges of the m intervals of the gap, increasing and positive, in nats.
    log_slopes : tuple of m floats
        θ_j.
    uniform_weight : float
        w of the mixture with the uniform distribution.
    """

    edges: tuple[float, ...]
    log_slopes: tuple[float, ...]
    uniform_weight: float

    kind: ClassVar[str] = "smart"

    def parameters(self) -> dict[str, Any]:
        """Edges, log slopes, the uniform weight, and no second stage."""
        return {
            "edges": list(self.edges),
            "log_slopes": list(self.log_slopes),
            "uniform_weight": self.uniform_weight,
            "second_stage": None,
        }

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """The calibrator with these parameters."""
        where = "parameters"
        require_keys(
            parameters, ("edges", "log_slopes", "uniform_weight", "second_stage"), where=where
        )
        if parameters["second_stage"] is not None:
            raise InvalidDocument(
                "parameters.second_stage must be null: this version has no second stage"
            )
        edges = numbers(parameters, "edges", where=where)
        log_slopes = numbers(parameters, "log_slopes", where=where)
        if len(log_slopes) != len(edges) + 1:
            raise InvalidDocument(
                f"parameters.log_slopes must have {len(edges) + 1} numbers for {len(edges)} "
                f"edges, got {len(log_slopes)}"
            )
        if any(b <= a for a, b in zip((0.0, *edges), edges, strict=False)):
            raise InvalidDocument("parameters.edges must be positive and increasing")
        if any(abs(theta) > MAX_LOG_SLOPE for theta in log_slopes):
            raise InvalidDocument(
                f"parameters.log_slopes must lie within ±{MAX_LOG_SLOPE:g}, one does not"
            )
        weight = number(parameters, "uniform_weight", where=where, above=-math.inf, below=1.0)
        if weight < 0.0:
            raise InvalidDocument("parameters.uniform_weight must lie in [0, 1)")
        return cls(n_classes, edges, log_slopes, weight)

    @cached_property
    def _segments(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Inner edges, slopes, and the intercept of each segment's line."""
        edges = np.array(self.edges, dtype=np.float64)
        slopes = np.exp(np.array(self.log_slopes, dtype=np.float64))
        # s(e_j) from below equals from above: c_{j+1} = c_j + (slope_j − slope_{j+1})·e_j
        intercepts = np.concatenate([[0.0], np.cumsum((slopes[:-1] - slopes[1:]) * edges)])
        return edges, slopes, intercepts

    def _inverse_temperature(self, logits: Logits) -> NDArray[np.float64]:
        return inverse_temperature_of_gap(logit_gap(logits), *self._segments)

    def _probabilities(self, logits: Logits) -> Probabilities:
        return tempered_softmax(
            logits, 1.0 / self._inverse_temperature(logits), uniform_weight=self.uniform_weight
        )

    def _temperature(self, logits: Logits) -> NDArray[np.float64]:
        return 1.0 / self._inverse_temperature(logits)


def inverse_temperature_of_gap(
    gap: NDArray[np.float32],
    edges: NDArray[np.float64],
    slopes: NDArray[np.float64],
    intercepts: NDArray[np.float64],
) -> NDArray[np.float64]:
    """β(g) = s(g)/g = slope_j + intercept_j / g on segment j, and slope_1 at g = 0."""
    g = gap.astype(np.float64)
    segment = np.searchsorted(edges, g)
    # The first segment's intercept is 0, so a gap of 0 needs no division by it.
    positive = np.maximum(g, np.finfo(np.float32).tiny)
    beta: NDArray[np.float64] = slopes[segment] + intercepts[segment] / positive
    return beta


def fit_smart(
    logits: Logits,
    labels: Labels,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,
    n_intervals: int = N_INTERVALS,
    uniform_share: float = UNIFORM_SHARE,
    terms: Terms = DEFAULT_TERMS,
) -> FittedCalibrator:
    """Fit the slopes by penalised likelihood, started at the single temperature.

    Parameters
    ----------
    logits : ndarray of shape (n, k), float32
    labels : ndarray of shape (n,), int64
    weights : ndarray of shape (n,), optional
        Only their ratios matter.
    seed : int
        Unused: the fit is deterministic.
    n_intervals, uniform_share, terms
        For the ablations in `benchmarks`; the defaults are the method.

    Returns
    -------
    FittedCalibrator
    """
    del seed
    solution = fit_log_slopes(logits, labels, weights, n_intervals=n_intervals, terms=terms)
    clipped = np.clip(solution.log_slopes, -MAX_LOG_SLOPE, MAX_LOG_SLOPE)
    calibrator = SmartCalibrator(
        logits.shape[1],
        tuple(float(edge) for edge in solution.edges),
        tuple(float(theta) for theta in clipped),
        uniform_share / (labels.shape[0] + 1),
    )
    if solution.converged:
        return FittedCalibrator(calibrator, FitOutcome.CONVERGED)
    warning = "the optimiser ran out of steps; the best point that it saw is kept"
    return FittedCalibrator(calibrator, FitOutcome.NOT_CONVERGED, (warning,))
