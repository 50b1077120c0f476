"""The second stage of `smart`: a monotone map of the confidence, where the rows can support one.

The first stage gives each row a temperature by its gap; what is left is seen in the confidence
itself. With c the first stage's confidence and u = logit(c) = log c − log(1 − c), the map

    u ↦ v(u),   c′ = 1 / (1 + exp(−v))

is continuous, increasing and piecewise linear between quantiles of u, and goes on with its last
slopes outside. The other classes share 1 − c′ as they shared 1 − c. Where c′ would fall below the
runner-up it stops there, c′ ≥ r / (1 + r) with r the runner-up's share of the rest, so that the
prediction stays.

The fit (`fit_second_stage`) sees confidences that were computed without the row's own label, and
is taken only when cross-validation prefers it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators.confidence import put_confidence
from trueprob.calibrators.parameters import numbers, require_keys
from trueprob.errors import InvalidDocument
from trueprob.folds import Groups, fold_of_rows

__all__ = ["SecondStage", "confidence_logit", "fit_second_stage"]

N_PIECES: Final = 7
RIDGE: Final = 1.0  # nats of the summed log likelihood for a slope off by e, or the shift by 1
N_FOLDS: Final = 5
MAX_STEPS: Final = 100

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SecondStage:
    """A continuous, increasing, piecewise linear map of logit(confidence)."""

    knots: tuple[float, ...]  # increasing, m >= 2; nats
    values: tuple[float, ...]  # the map at the knots, increasing

    def parameters(self) -> dict[str, Any]:
        """Knots and values, as JSON values."""
        return {"knots": list(self.knots), "values": list(self.values)}

    @classmethod
    def from_parameters(cls, parameters: object) -> Self:
        """Inverse of `parameters`; InvalidDocument when it cannot be used."""
        where = "parameters.second_stage"
        if not isinstance(parameters, Mapping):
            raise InvalidDocument(f"{where} must be null or an object")
        require_keys(parameters, ("knots", "values"), where=where)
        knots = numbers(parameters, "knots", where=where)
        values = numbers(parameters, "values", where=where)
        if len(knots) != len(values) or len(knots) < 2:
            raise InvalidDocument(f"{where} must have as many values as knots, at least 2")
        for name, sequence in (("knots", knots), ("values", values)):
            if any(b <= a for a, b in pairwise(sequence)):
                raise InvalidDocument(f"{where}.{name} must be increasing")
        return cls(knots, values)

    @cached_property
    def _lines(self) -> tuple[Array, Array, Array]:
        """Inner knots, and slope and intercept of the line between each two knots."""
        knots, values = np.array(self.knots), np.array(self.values)
        slopes = np.diff(values) / np.diff(knots)
        return knots[1:-1], slopes, values[:-1] - slopes * knots[:-1]

    def map(self, logit: Array) -> Array:
        """v(u) for u of shape (n,)."""
        inner, slopes, intercepts = self._lines
        piece = np.searchsorted(inner, logit)
        mapped: Array = slopes[piece] * logit + intercepts[piece]
        return mapped

    def apply(
        self, probabilities: NDArray[np.float32], top: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Put the mapped confidence in place, rescale the rest; works in the array it is given.

        Returns: the same array; ``p[top] == max(p)`` holds exactly.
        """
        logit, rest = confidence_logit(probabilities, top)
        return put_confidence(probabilities, top, rest, self.others(logit))

    def others(self, logit: Array) -> Array:
        """1 − c′ for confidences of these logits, without cancellation."""
        mapped: Array = 0.5 - 0.5 * np.tanh(0.5 * self.map(logit))
        return mapped


def confidence_logit(
    probabilities: NDArray[np.float32], top: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Logit of the confidence and the sum of the other classes.

    The others are summed by themselves: 1 − c has no digits left when c is near 1.
    """
    rows = np.arange(top.shape[0])
    confidence = probabilities[rows, top].astype(np.float64)
    probabilities[rows, top] = 0.0
    rest = probabilities.sum(axis=1, dtype=np.float64)
    probabilities[rows, top] = confidence.astype(np.float32)
    rest = np.maximum(rest, float(np.finfo(np.float32).tiny))
    return np.log(confidence) - np.log(rest), rest


def fit_second_stage(
    logit: Array,
    correct: NDArray[np.bool_],  # (n,) bool
    weights: Array | None,  # (n,)
    *,
    seed: int = 0,  # of the folds
    groups: Groups | None = None,  # (n,), rows of one group stay in one fold
) -> SecondStage | None:
    """Fit the map and keep it when cross-validation prefers it.

    Returns: none when the map's held-out cross entropy of "is the top label right" is not lower
    than the identity's.
    """
    n = logit.shape[0]
    share = np.ones(n) if weights is None else weights * (n / weights.sum())
    knots = _knots(logit)
    if knots.shape[0] < 3:
        return None
    fitted = _minimise(logit, correct, share, knots, np.zeros(knots.shape[0]))
    fold = fold_of_rows(correct, groups, N_FOLDS, seed=seed)
    gain = 0.0
    for index in range(N_FOLDS):
        held, kept = fold == index, fold != index
        # Started where the fit on all rows ends, it converges in two or three steps.
        theta = _minimise(logit[kept], correct[kept], share[kept], knots, fitted)
        stage = _stage(knots, theta)
        before = _loss(logit[held], correct[held])
        gain += float(share[held] @ (before - _loss(stage.map(logit[held]), correct[held])))
    return _stage(knots, fitted) if gain > 0.0 else None


def _loss(logit: Array, correct: NDArray[np.bool_]) -> Array:
    """Cross entropy of each row's "is the top label right", nats."""
    return np.asarray(np.logaddexp(0.0, np.where(correct, -logit, logit)))


def _knots(logit: Array) -> Array:
    """Ends and inner quantiles of u, equal ones merged."""
    return np.unique(np.quantile(logit, np.linspace(0.0, 1.0, N_PIECES + 1)))


def _minimise(
    logit: Array, correct: NDArray[np.bool_], share: Array, knots: Array, theta: Array
) -> Array:
    """Ridge-penalised maximum likelihood by damped Gauss–Newton steps; θ = (δ, φ).

    v(u) = u_0 + δ + Σ_j exp(φ_j)·|[u_0, u] ∩ I_j|, penalty RIDGE·(δ² + Σ φ_j²): the identity is
    θ = 0. Lengths are signed and count from the middle knot u_0: a slope moves its own side only.
    """
    lower, upper = knots[:-1].copy(), knots[1:].copy()
    lower[0], upper[-1] = -np.inf, np.inf
    middle = knots[knots.shape[0] // 2]
    length = np.clip(logit[:, None], lower, upper) - np.clip(middle, lower, upper)
    sign = np.where(correct, 1.0, -1.0)

    def evaluate(point: Array) -> tuple[float, Array, Array]:
        by_slope = length * np.exp(point[1:])
        design = np.column_stack([np.ones(logit.shape[0]), by_slope])
        mapped = middle + point[0] + by_slope.sum(axis=1)
        probability = 0.5 + 0.5 * np.tanh(0.5 * mapped)
        residual = share * (probability - correct)
        gradient = design.T @ residual + 2.0 * RIDGE * point
        spread = share * probability * (1.0 - probability)
        # Gauss–Newton: the slopes' own second derivative is left out, so it is positive.
        curvature = design.T @ (spread[:, None] * design) + 2.0 * RIDGE * np.eye(point.shape[0])
        value = float(share @ np.logaddexp(0.0, -sign * mapped)) + RIDGE * float(point @ point)
        return value, gradient, curvature

    value, gradient, curvature = evaluate(theta)
    damping = 0.0
    for _ in range(MAX_STEPS):
        damped = curvature + damping * np.diag(np.diag(curvature))
        step = -np.linalg.solve(damped, gradient)
        expected = -float(gradient @ step)
        if expected < 1e-8:
            break
        proposal = theta + step * min(1.0, 1.0 / float(np.abs(step).max()))
        new = evaluate(proposal)
        if new[0] < value:
            theta, (value, gradient, curvature) = proposal, new
            damping = damping / 10.0 if damping > 1e-6 else 0.0
        else:
            damping = max(10.0 * damping, 1e-3)
    return theta


def _stage(knots: Array, theta: Array) -> SecondStage:
    """The map with these parameters, as its values at the knots."""
    middle = knots[knots.shape[0] // 2]
    length = np.clip(knots[:, None], knots[:-1], knots[1:]) - np.clip(middle, knots[:-1], knots[1:])
    values = middle + theta[0] + length @ np.exp(theta[1:])
    return SecondStage(tuple(map(float, knots)), tuple(map(float, values)))
