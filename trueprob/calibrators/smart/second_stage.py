"""The second stage of `smart`: a monotone map of the first stage's confidence.

With c the confidence and u = logit(c) = log c − log(1 − c), the map

    u ↦ v(u),   c′ = 1 / (1 + exp(−v))

is continuous, increasing and piecewise linear between quantiles of u; outside, the last slopes
continue. The other classes share 1 − c′ in the proportions in which they shared 1 − c. c′ never
falls below r / (1 + r), with r the runner-up's share of the rest, and stays a few units in the last
place above it, so the prediction stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.weights_and_groups import Groups
from trueprob.calibrators.confidence import put_confidence
from trueprob.calibrators.parameters import numbers, require_keys
from trueprob.errors import InvalidDocument
from trueprob.folds import fold_of_rows

__all__ = ["SecondStage", "confidence_logit", "fit_second_stage"]

N_PIECES: Final = 7
RIDGE: Final = 1.0  # nats of the summed log likelihood for a slope changed by e, or a shift of 1
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
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
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
        """Inner knots, and slope and intercept of the line between two knots."""
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
        """Set the mapped confidence and rescale the rest, in place."""
        logit, rest = confidence_logit(probabilities, top)
        return put_confidence(probabilities, top, rest, self.others(logit))

    def others(self, logit: Array) -> Array:
        """1 − c′ for confidences with these logits, without cancellation."""
        mapped: Array = 0.5 - 0.5 * np.tanh(0.5 * self.map(logit))
        return mapped


def confidence_logit(
    probabilities: NDArray[np.float32], top: NDArray[np.int64]
) -> tuple[Array, Array]:
    """Logit of the confidence and the sum of the other classes, both of shape (n,)."""
    # The others are summed directly, because 1 − c has no digits left when c is near 1.
    rows = np.arange(top.shape[0])
    confidence = probabilities[rows, top].astype(np.float64)
    probabilities[rows, top] = 0.0
    rest = probabilities.sum(axis=1, dtype=np.float64)
    probabilities[rows, top] = confidence.astype(np.float32)
    rest = np.maximum(rest, float(np.finfo(np.float32).tiny))
    return np.log(confidence) - np.log(rest), rest


def fit_second_stage(
    logit: Array,  # (n,), of confidences computed without the row's own label
    correct: NDArray[np.bool_],  # (n,)
    weights: Array | None,  # (n,)
    *,
    seed: int = 0,  # of the folds
    groups: Groups | None = None,  # (n,), rows of one group stay in one fold
) -> SecondStage | None:
    """Fit the map; None when its held-out cross entropy is not below the identity's."""
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
        # Starting at the fit on all rows, it converges in two or three steps.
        theta = _minimise(logit[kept], correct[kept], share[kept], knots, fitted)
        stage = _stage(knots, theta)
        before = _loss(logit[held], correct[held])
        gain += float(share[held] @ (before - _loss(stage.map(logit[held]), correct[held])))
    return _stage(knots, fitted) if gain > 0.0 else None


def _loss(logit: Array, correct: NDArray[np.bool_]) -> Array:
    """Cross entropy of "is the top label right" for each row, nats."""
    return np.asarray(np.logaddexp(0.0, np.where(correct, -logit, logit)))


def _knots(logit: Array) -> Array:
    """Ends and inner quantiles of u, without duplicates."""
    return np.unique(np.quantile(logit, np.linspace(0.0, 1.0, N_PIECES + 1)))


def _minimise(
    logit: Array, correct: NDArray[np.bool_], share: Array, knots: Array, theta: Array
) -> Array:
    """Ridge-penalised maximum likelihood by damped Gauss–Newton steps; θ = (δ, φ).

    v(u) = u_0 + δ + Σ_j exp(φ_j)·|[u_0, u] ∩ I_j| with penalty RIDGE·(δ² + Σ φ_j²); the identity
    is θ = 0. Lengths are signed and start at the middle knot u_0, so a slope moves one side only.
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
        # Gauss–Newton: positive, because second derivatives of v are left out.
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
