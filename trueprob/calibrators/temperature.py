"""The calibrators `temperature` and `identity`: one temperature for all rows.

`identity` is the plain softmax, the baseline of every comparison. `temperature` is fitted by
penalised likelihood:

    p = softmax(z / T),   log(1/T) = s·θ,   β = e^θ minimises   mean NLL + 4·log(1 + θ²) / n

Guo et al. 2017, arXiv:1706.04599, without the penalty, which is the scale prior of `smart` at
twice its strength. The NLL is convex in β, but has no minimum for a set without errors, or worse
than chance: there the prior decides. Its tail is so heavy that badly scaled logits keep their
scale. s is 1 where the rows can tell that θ helps, see `evidence`.

`inverse_temperature` is β of maximum likelihood, where fits start. Both searches are safeguarded
Newton steps of log β.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import (
    Logits,
    Probabilities,
    is_masked,
    softmax,
    tempered_softmax,
)
from trueprob.calibrators.base import Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.evidence import FitEvidence, sampled
from trueprob.calibrators.parameters import number, require_keys

__all__ = [
    "IdentityCalibrator",
    "TemperatureCalibrator",
    "fit_identity",
    "fit_temperature",
    "inverse_temperature",
]

# Bound of |log(β·scale)|, with scale the root mean square of the top logit minus its row's mean, so
# that logits times 1 000 have the same fit, scaled. Real networks need β from 0.2 to 50, far within
# exp(±7) ≈ 1 100.
LOG_RANGE: Final = 7.0
STEPS: Final = 60
TOLERANCE: Final = 1e-7  # of log β
# Nats of the summed log likelihood, times log(1 + θ²). Of ½, 1, 2, 4 and 8 the lowest held-out NLL
# of 20, 50, 100 and 300 rows drawn from the given calibration halves (docs/decisions.md, 69).
SCALE_PRIOR: Final = 4.0
MAX_LOG: Final = 60  # of |θ| where the prior decides; float32 probabilities are 0 or 1 long before
CHUNK: Final = 1 << 17  # elements worked on at a time: two such arrays stay in the cache
LARGE: Final = 2_000_000  # elements; above, the search starts at the result of a sample of rows


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
    preserves_ranking: ClassVar[bool] = True

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
    logits: Logits,
    labels: Labels,
    weights: NDArray[np.float64] | None = None,
    *,
    seed: int = 0,
    scale_prior: float = SCALE_PRIOR,  # for the ablations in `benchmarks`
) -> FittedCalibrator:
    """Fit the temperature; deterministic, so `seed` is unused."""
    del seed
    likelihood = _Likelihood(logits, labels, weights)
    n, k = logits.shape
    if likelihood.scale == 0.0:  # every row is constant: no temperature matters
        return FittedCalibrator(TemperatureCalibrator(k, 1.0), FitOutcome.CONVERGED)
    start = _sample_fit(logits, labels, weights)
    theta = _penalised_optimum(likelihood, scale_prior / likelihood.n, start=start)

    def judge(part: slice, rows: float) -> FitEvidence:
        some = None if weights is None else weights[part]
        of_part = _Likelihood(logits[part], labels[part], some)
        gain = of_part(0.0)[0] - of_part(theta)[0]
        return FitEvidence(rows * gain)

    evidence = sampled(judge, n, weights)
    calibrator = TemperatureCalibrator(k, math.exp(-evidence.share * theta))
    return FittedCalibrator(calibrator, FitOutcome.CONVERGED, evidence.warnings)


def inverse_temperature(
    logits: Logits,
    labels: Labels,
    weights: NDArray[np.float64] | None = None,
    *,
    tolerance: float = TOLERANCE,
) -> tuple[float, bool]:
    """β = 1/T of maximum likelihood, and whether it lies inside the interval that is searched."""
    likelihood = _Likelihood(logits, labels, weights)
    if likelihood.scale == 0.0:
        return 1.0, True
    start = _sample_fit(logits, labels, weights)
    u, inside = _optimum(likelihood, start=start, tolerance=tolerance)
    return math.exp(u), inside


class _Likelihood:
    """Mean NLL as a function of u = log β, with its derivatives."""

    def __init__(self, logits: Logits, labels: Labels, weights: NDArray[np.float64] | None) -> None:
        n = labels.shape[0]
        with np.errstate(over="ignore"):
            shifted = logits - logits.max(axis=1, keepdims=True)
        # Larger differences add nothing to any sum, and squares stay finite.
        self.shifted: Logits = np.maximum(shifted, np.float32(-1e15), out=shifted)
        self.n = n
        self.share = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
        self.target = float(self.share @ shifted[np.arange(n), labels].astype(np.float64))
        if is_masked(logits):
            mean = shifted.mean(axis=1, dtype=np.float64, where=np.isfinite(logits))
        else:
            mean = shifted.mean(axis=1, dtype=np.float64)
        self.scale = float(np.sqrt(self.share @ np.square(mean)))

    def __call__(self, u: float) -> tuple[float, float, float]:
        """Value, slope, and curvature less slope, which is β²·Var[d] and never negative."""
        # With d = z − max z, and E and Var under softmax(βd), the slope is β·mean(E[d] − d_y).
        beta = math.exp(u)
        n, k = self.shifted.shape
        sums = np.zeros(3)
        step = max(1, CHUNK // k)
        for start in range(0, n, step):
            rows = slice(start, start + step)
            differences = self.shifted[rows]
            with np.errstate(under="ignore", over="ignore"):
                work = differences * np.float32(beta)
                np.exp(work, out=work)
                total = work.sum(axis=1, dtype=np.float64)
                work *= differences
                mean = work.sum(axis=1, dtype=np.float64) / total
                work *= differences
                variance = work.sum(axis=1, dtype=np.float64) / total - np.square(mean)
            sums += np.stack([np.log(total), mean, variance]) @ self.share[rows]
        value, mean_difference, spread = sums.tolist()
        slope = beta * (mean_difference - self.target)
        return value - beta * self.target, slope, beta * beta * spread


def _optimum(likelihood: _Likelihood, *, start: float, tolerance: float) -> tuple[float, bool]:
    """Log β of maximum likelihood, and whether it lies inside the interval that is searched."""
    centre = -math.log(likelihood.scale)
    low, high = start_low, start_high = centre - LOG_RANGE, centre + LOG_RANGE
    u = min(max(start, low), high)
    for _ in range(STEPS):
        _, slope, spread = likelihood(u)
        low, high = (low, u) if slope > 0.0 else (u, high)
        # Without a negative slope in the curvature, which would make it smaller.
        proposal = _proposal(u, slope, spread + max(slope, 0.0), low, high)
        close, u = abs(proposal - u) < tolerance, proposal
        if close:
            break
    margin = 1e-3
    return u, start_low + margin <= u <= start_high - margin


def _penalised_optimum(likelihood: _Likelihood, strength: float, *, start: float) -> float:
    """Log β = u that minimises the mean NLL plus strength·log(1 + u²)."""

    def value(u: float) -> float:
        return likelihood(u)[0] + strength * math.log1p(u * u)

    best, inside = _optimum(likelihood, start=start, tolerance=1e-3)
    if inside:
        # The NLL falls before its minimum and rises after it, so the optimum is between it and 0.
        u = min(best, 0.0, key=value)
        low, high = min(best, 0.0) - 0.01, max(best, 0.0) + 0.01
    else:
        u = float(min(range(-MAX_LOG, MAX_LOG + 1), key=value))
        low, high = u - 1.0, u + 1.0
    for _ in range(STEPS):
        _, slope, spread = likelihood(u)
        heavy = 1.0 + u * u
        curvature = spread + slope
        curvature += 2.0 * strength * (1.0 - u * u) / heavy**2
        slope += 2.0 * strength * u / heavy
        low, high = (low, u) if slope > 0.0 else (u, high)
        proposal = _proposal(u, slope, curvature, low, high)
        close, u = abs(proposal - u) < TOLERANCE, proposal
        if close:
            break
    return u


def _proposal(u: float, slope: float, curvature: float, low: float, high: float) -> float:
    """A Newton step, or the middle of the interval where the step leaves it."""
    proposal = u - slope / curvature if curvature > 0.0 else math.inf
    return proposal if low < proposal < high else 0.5 * (low + high)


def _sample_fit(logits: Logits, labels: Labels, weights: NDArray[np.float64] | None) -> float:
    """Log β of a sample of a large set, to start at; 0 for a smaller one."""
    few = sample_rows(logits, weights)
    if few is None:
        return 0.0
    part = None if weights is None else weights[few]
    return math.log(inverse_temperature(logits[few], labels[few], part, tolerance=1e-3)[0])


def sample_rows(logits: Logits, weights: NDArray[np.float64] | None) -> NDArray[np.int64] | None:
    """Evenly spaced rows of positive weight to start a large fit on; None for a smaller set."""
    # A quarter of the elements that count as large, and at least 50 rows.
    n, k = logits.shape
    if logits.size <= LARGE or n <= 200:
        return None
    rows = np.arange(n) if weights is None else np.flatnonzero(weights)
    return rows[:: math.ceil(rows.shape[0] / max(LARGE // (4 * k), 50))]
