"""The calibrator `temperature`: one temperature for all rows, by maximum likelihood.

    p = softmax(z / T),  T minimises the mean NLL

Guo et al. 2017, arXiv:1706.04599. The NLL is convex in β = 1/T. Safeguarded Newton steps search
log β in a bounded interval. For sets without errors the likelihood has no maximum, so the search
ends at the bound with the outcome `at_bound`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, is_masked, tempered_softmax
from trueprob.calibrators.base import Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.parameters import number, require_keys

__all__ = ["TemperatureCalibrator", "fit_temperature", "inverse_temperature"]

# Bound of |log(β·scale)|, with scale the root mean square of the top logit minus its row's mean, so
# that logits times 1 000 have the same fit, scaled. Real networks need β from 0.2 to 50, far within
# exp(±7) ≈ 1 100.
LOG_RANGE: Final = 7.0
STEPS: Final = 60
TOLERANCE: Final = 1e-7  # of log β
CHUNK: Final = 1 << 17  # elements worked on at a time: two such arrays stay in the cache
LARGE: Final = 2_000_000  # elements; above, the search starts at the result of a sample of rows


@dataclass(frozen=True)
class TemperatureCalibrator(Calibrator):
    """Softmax of logits divided by one temperature.

    Attributes
    ----------
    value : float
        The temperature, positive.

    References
    ----------
    Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599, section 4.2.
    """

    value: float

    kind: ClassVar[str] = "temperature"

    def parameters(self) -> dict[str, Any]:
        """Fitted values as JSON values."""
        return {"temperature": self.value}

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        require_keys(parameters, ("temperature",), where="parameters")
        return cls(n_classes, number(parameters, "temperature", where="parameters", above=0.0))

    def _probabilities(self, logits: Logits) -> Probabilities:
        return tempered_softmax(logits, self.value)

    def _temperature(self, logits: Logits) -> NDArray[np.float64]:
        return np.full(logits.shape[0], self.value)


def fit_temperature(
    logits: Logits, labels: Labels, weights: NDArray[np.float64] | None = None, *, seed: int = 0
) -> FittedCalibrator:
    """Fit the temperature; deterministic, so `seed` is unused.

    The outcome is `at_bound` when the likelihood has no maximum inside the interval: for sets
    without errors, or worse than chance. The temperature then says nothing about the network.
    """
    del seed
    beta, outcome = inverse_temperature(logits, labels, weights)
    warnings: tuple[str, ...] = ()
    if outcome is FitOutcome.AT_BOUND:
        warning = (
            "the likelihood has no maximum inside the allowed interval (every prediction right, "
            f"or no better than chance): the temperature stopped at its bound, {1.0 / beta:.3g}"
        )
        warnings = (warning,)
    return FittedCalibrator(TemperatureCalibrator(logits.shape[1], 1.0 / beta), outcome, warnings)


def inverse_temperature(
    logits: Logits,
    labels: Labels,
    weights: NDArray[np.float64] | None = None,
    *,
    tolerance: float = TOLERANCE,
) -> tuple[float, FitOutcome]:
    """β = 1/T of maximum likelihood, and how the search ended."""
    # With d = z − max z and E, Var under softmax(βd): NLL'(β) = mean(E[d] − d_y), NLL''(β) =
    # mean(Var[d]). In u = log β the first derivative is β·NLL', the second about β²·NLL''.
    rows = np.arange(labels.shape[0])
    with np.errstate(over="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True)
    # Larger differences add nothing to any sum, and squares stay finite.
    np.maximum(shifted, np.float32(-1e15), out=shifted)
    share = _shares(weights, labels.shape[0])
    target = float(share @ shifted[rows, labels].astype(np.float64))
    if is_masked(logits):
        centre = shifted.mean(axis=1, dtype=np.float64, where=np.isfinite(logits))
    else:
        centre = shifted.mean(axis=1, dtype=np.float64)
    scale = float(np.sqrt(share @ np.square(centre)))
    if scale == 0.0:
        return 1.0, FitOutcome.CONVERGED  # every row is constant: no temperature matters
    low, high = -LOG_RANGE - math.log(scale), LOG_RANGE - math.log(scale)
    start_low, start_high = low, high

    u = min(max(0.0, low), high)
    few = sample_rows(logits, weights)
    if few is not None:
        rough, _ = inverse_temperature(
            logits[few], labels[few], None if weights is None else weights[few], tolerance=1e-3
        )
        u = min(max(math.log(rough), low), high)
    for _ in range(STEPS):
        beta = math.exp(u)
        mean, variance = _moments(shifted, beta)
        slope = beta * (float(share @ mean) - target)
        curvature = beta * beta * float(share @ variance) + max(slope, 0.0)
        if slope > 0.0:
            high = u
        else:
            low = u
        step = -slope / curvature if curvature > 0.0 else math.inf
        proposal = u + step
        if not low < proposal < high:
            proposal = 0.5 * (low + high)
        if abs(proposal - u) < tolerance:
            u = proposal
            break
        u = proposal
    margin = 1e-3
    outcome = FitOutcome.CONVERGED
    if u > start_high - margin or u < start_low + margin:
        outcome = FitOutcome.AT_BOUND
    return math.exp(u), outcome


def sample_rows(logits: Logits, weights: NDArray[np.float64] | None) -> NDArray[np.int64] | None:
    """Evenly spaced rows of positive weight to start a large fit on; None for a smaller set."""
    # A quarter of the elements that count as large, and at least 50 rows.
    n, k = logits.shape
    if logits.size <= LARGE or n <= 200:
        return None
    rows = np.arange(n) if weights is None else np.flatnonzero(weights)
    return rows[:: math.ceil(rows.shape[0] / max(LARGE // (4 * k), 50))]


def _moments(shifted: Logits, beta: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of each row's differences d under softmax(βd)."""
    n, k = shifted.shape
    mean, variance = np.empty(n), np.empty(n)
    step = max(1, CHUNK // k)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        differences = shifted[rows]
        with np.errstate(under="ignore", over="ignore"):
            work = differences * np.float32(beta)
            np.exp(work, out=work)
            total = work.sum(axis=1, dtype=np.float64)
            work *= differences
            mean[rows] = work.sum(axis=1, dtype=np.float64) / total
            work *= differences
            variance[rows] = work.sum(axis=1, dtype=np.float64) / total - np.square(mean[rows])
    return mean, variance


def _shares(weights: NDArray[np.float64] | None, n: int) -> NDArray[np.float64]:
    return np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
