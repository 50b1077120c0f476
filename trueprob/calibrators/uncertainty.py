"""How far labelled rows determine the probabilities of a calibrator, and intervals from that.

With u the logit of the confidence (for two classes of P(class 1)), the rows are taken to be right
with the probability 1 / (1 + exp(−v)),

    v(u) = u + δ(u),   δ continuous and piecewise linear between quantiles of u

The posterior of δ, given the labels of the rows, is approximated by a normal distribution at its
mode (Laplace). With γ_j the slope of δ in interval j, the prior is, in nats,

    0.625·Σ_j (γ_{j+1} − γ_j)² + 0.5·(mean γ)² + 0.125·δ(median u)²

This is the family of `smart` and `smart-binary`, fitted on top of the calibrator; it does not ask
how the calibrator was fitted. An interval of v is u + E[δ] ± z·sd[δ], extended to u where it would
not contain it. It is off the middle where the labels say that the calibrator is off.

Intervals of a smoothness prior cover the true curve at their level on average over the rows, and
not at each single point (Wahba 1983; Nychka 1988). Bootstrap refits are not used: they repeat the
shrinkage of the fit, and so do not see its bias.

References
----------
Wahba, 1983. Bayesian confidence intervals for the cross-validated smoothing spline. JRSS B 45.
Nychka, 1988. Bayesian confidence intervals for smoothing splines. JASA 83.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities
from trueprob.arrays.weights_and_groups import Groups
from trueprob.calibrators.parameters import numbers, require_keys
from trueprob.errors import InvalidDocument, InvalidInput

__all__ = ["ProbabilityInterval", "Uncertainty"]

N_INTERVALS: Final = 8  # between quantiles of u
SMOOTHNESS: Final = 0.625  # nats for slopes of neighbouring intervals that differ by 1
SCALE_PRIOR: Final = 0.5  # nats for a mean slope of 1
LEVEL_PRIOR: Final = 0.125  # nats for a shift of 1 at the median
NARROWEST: Final = 0.05  # nats; closer quantiles are one
OUTSIDE: Final = 5.0  # nats beyond the rows where the outer intervals end
FARTHEST: Final = 30.0  # nats; logits are clipped there
BLOCK: Final = 1 << 20  # probabilities computed at a time
CELLS: Final = 4_096  # more rows are first averaged in so many quantile cells
STEPS: Final = 50
FIELDS: Final = ("logits", "shifts", "variances", "covariances")

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ProbabilityInterval:
    """Intervals of the probability that a prediction is right.

    Attributes
    ----------
    prediction : ndarray of shape (n,), int64
    confidence : ndarray of shape (n,), float64
        The calibrated probability of the prediction.
    low, high : ndarray of shape (n,), float64
        ``low <= confidence <= high``. With two classes, P(class 1) lies between low and high where
        the prediction is 1, and between 1 − high and 1 − low where it is 0.
    level : float
        Nominal level of the intervals.
    """

    prediction: Labels
    confidence: Array
    low: Array
    high: Array
    level: float


@dataclass(frozen=True)
class Uncertainty:
    """Posterior of the shift δ between the calibrator's logit and the true one.

    Attributes
    ----------
    logits : tuple of m floats
        Knots: logits of the confidence, with two classes of P(class 1), increasing, in nats.
    shifts : tuple of m floats
        E[δ] at the knots, in nats.
    variances : tuple of m floats
        Var[δ] at the knots, positive, in squared nats.
    covariances : tuple of m − 1 floats
        Of δ at neighbouring knots. δ is linear between the knots and beyond them, so these
        numbers give its mean and variance everywhere.
    """

    logits: tuple[float, ...]
    shifts: tuple[float, ...]
    variances: tuple[float, ...]
    covariances: tuple[float, ...]

    @classmethod
    def of(
        cls,
        answers: Callable[[Logits], tuple[Probabilities, Labels]],
        logits: Logits,
        labels: Labels,
        weights: Array | None = None,
        groups: Groups | None = None,
    ) -> Self:
        """The posterior given labelled rows.

        Parameters
        ----------
        answers : callable
            Calibrated probabilities and predictions of logits.
        logits : ndarray of shape (n, k), float32
        labels : ndarray of shape (n,), int64
        weights : ndarray of shape (n,), float64, optional
            Only their ratios matter. Unequal ones count as fewer rows.
        groups : ndarray of shape (n,), optional
            Rows of one group whose errors agree count as fewer rows.

        Returns
        -------
        Uncertainty
        """
        n, k = logits.shape
        logit, right = np.empty(n), np.empty(n)
        step = max(1, BLOCK // k)
        for start in range(0, n, step):
            rows = slice(start, start + step)
            p, prediction = answers(logits[rows])
            column = np.ones_like(prediction) if k == 2 else prediction
            logit[rows], right[rows] = _logit(p, column), labels[rows] == column
        weights = np.ones(n) if weights is None else weights
        used = weights > 0.0
        logit, right = logit[used], right[used]
        share = _information(
            logit,
            right,
            weights[used] / weights[used].mean(),
            None if groups is None else groups[used],
        )
        knots = _knots(logit)
        logit, right, share = _averaged(logit, right, share)
        shift, covariance = _posterior(logit, right, share, knots)
        numbers_at = (knots, shift, np.diag(covariance), np.diag(covariance, 1))
        return cls(*(tuple(each.tolist()) for each in numbers_at))

    def interval(
        self, probabilities: Probabilities, prediction: Labels, level: float
    ) -> ProbabilityInterval:
        """Intervals for calibrated rows; InvalidInput for a level that is not between 0 and 1."""
        if not 0.0 < level < 1.0:
            raise InvalidInput(
                f"level must lie between 0 and 1, both excluded, got {level}", field="level"
            )
        confidence = probabilities[np.arange(prediction.shape[0]), prediction].astype(np.float64)
        z = NormalDist().inv_cdf(0.5 + 0.5 * level)
        logit = _logit(probabilities, prediction)
        sign = np.ones(logit.shape[0])
        if probabilities.shape[1] == 2:
            sign[prediction == 0] = -1.0
        shift, variance = self._at(sign * logit)
        middle, half = logit + sign * shift, z * np.sqrt(variance)
        low = np.minimum(_probability(middle - half), confidence)
        high = np.maximum(_probability(middle + half), confidence)
        return ProbabilityInterval(prediction, confidence, low, high, level)

    def _at(self, logit: Array) -> tuple[Array, Array]:
        """Mean and variance of δ at these logits."""
        shifts, variances = np.array(self.shifts), np.array(self.variances)
        index, part = _position(logit, np.array(self.logits))
        before, beside = 1.0 - part, np.array(self.covariances)[index]
        shift = before * shifts[index] + part * shifts[index + 1]
        variance = (
            np.square(before) * variances[index]
            + 2.0 * part * before * beside
            + np.square(part) * variances[index + 1]
        )
        return shift, np.maximum(variance, 0.0)

    def parameters(self) -> dict[str, Any]:
        """Its four lists of numbers, as JSON values."""
        return {name: list(getattr(self, name)) for name in FIELDS}

    @classmethod
    def from_parameters(cls, parameters: object) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        where = "uncertainty"
        if not isinstance(parameters, Mapping):
            raise InvalidDocument(f"{where} must be an object")
        require_keys(parameters, FIELDS, where=where)
        logits, shifts, variances, beside = (
            numbers(parameters, name, where=where) for name in FIELDS
        )
        m = len(logits)
        if m < 2 or (len(shifts), len(variances), len(beside)) != (m, m, m - 1):
            raise InvalidDocument(
                f"{where} must have at least 2 logits, as many shifts and variances, and one "
                "covariance fewer"
            )
        if any(b <= a for a, b in pairwise(logits)):
            raise InvalidDocument(f"{where}.logits must be increasing")
        if min(variances) <= 0.0:
            raise InvalidDocument(f"{where}.variances must be positive")
        if any(c * c > a * b for c, (a, b) in zip(beside, pairwise(variances), strict=True)):
            raise InvalidDocument(f"{where}.covariances must belong to its variances")
        return cls(logits, shifts, variances, beside)


def _logit(probabilities: Probabilities, column: Labels) -> Array:
    """Logit of one probability of each row, clipped."""
    # The others are summed directly, because 1 − p has no digits left when p is near 1.
    # The one is set to 0 for the sum, and back: a copy of wide rows would be large.
    rows = np.arange(column.shape[0])
    chosen = probabilities[rows, column]
    probabilities[rows, column] = 0.0
    others = probabilities.sum(axis=1, dtype=np.float64)
    probabilities[rows, column] = chosen
    tiny = float(np.finfo(np.float32).tiny)
    logit = np.log(np.maximum(chosen.astype(np.float64), tiny)) - np.log(np.maximum(others, tiny))
    return np.asarray(np.clip(logit, -FARTHEST, FARTHEST), dtype=np.float64)


def _probability(logit: Array) -> Array:
    result: Array = 0.5 + 0.5 * np.tanh(0.5 * logit)
    return result


def _information(logit: Array, right: Array, weights: Array, groups: Groups | None) -> Array:
    """Weights whose sum is the number of equally weighted, independent rows they are worth.

    The variance of the score Σ w·(y − p) is Σ w²·p(1 − p) for independent rows, and the curvature
    of the log likelihood Σ w·p(1 − p). Weights are scaled so that both agree.
    """
    p = _probability(logit)
    spread = p * (1.0 - p)
    curvature, variance = float(weights @ spread), float(np.square(weights) @ spread)
    scale = curvature / variance if variance > 0.0 else 1.0
    if groups is not None:
        residual = weights * (right - p)
        by_row = float(residual @ residual)
        member = np.unique(groups, return_inverse=True)[1]
        by_group = float(np.square(np.bincount(member, weights=residual)).sum())
        # Never more than independent rows: groups whose errors cancel are chance.
        scale *= min(1.0, by_row / by_group) if by_group > 0.0 else 1.0
    return weights * scale


def _knots(logit: Array) -> Array:
    """Quantiles of u, and one more knot on either side."""
    quantiles = np.quantile(logit, np.linspace(0.0, 1.0, N_INTERVALS + 1))
    kept = [float(quantiles[0])]
    kept += [float(b) for a, b in pairwise(quantiles) if b - a >= NARROWEST and b > kept[-1]]
    return np.array([kept[0] - OUTSIDE, *kept, kept[-1] + OUTSIDE])


def _averaged(logit: Array, right: Array, share: Array) -> tuple[Array, Array, Array]:
    """Rows averaged in quantile cells of u if there are many."""
    n = logit.shape[0]
    if n <= CELLS:
        return logit, right, share
    order = np.argsort(logit, kind="stable")
    starts = np.linspace(0, n, CELLS, endpoint=False).astype(np.int64)
    total = np.add.reduceat(share[order], starts)
    mean_logit = np.add.reduceat((share * logit)[order], starts) / total
    mean_right = np.add.reduceat((share * right)[order], starts) / total
    return mean_logit, mean_right, total


def _position(logit: Array, knots: Array) -> tuple[NDArray[np.int64], Array]:
    """The knot below each logit, and the part of the way to the next, also beyond the knots."""
    index = np.searchsorted(knots[1:-1], logit)
    return index, (logit - knots[index]) / np.diff(knots)[index]


def _posterior(logit: Array, right: Array, share: Array, knots: Array) -> tuple[Array, Array]:
    """Mode and covariance matrix of δ at the knots, by damped Newton steps."""
    m = knots.shape[0]
    index, part = _position(logit, knots)
    precision = _prior_precision(knots, float(np.median(logit)))

    def at_rows(delta: Array) -> Array:
        return logit + (1.0 - part) * delta[index] + part * delta[index + 1]

    def cost(delta: Array) -> float:
        v = at_rows(delta)
        return float(share @ (np.logaddexp(0.0, v) - right * v) + 0.5 * delta @ precision @ delta)

    def sums(values: Array, on_knot: Array) -> Array:
        """Σ values·on_knot over the rows of each interval."""
        return np.bincount(index, weights=values * on_knot, minlength=m - 1).astype(np.float64)

    def derivatives(delta: Array) -> tuple[Array, Array]:
        p = _probability(at_rows(delta))
        residual, spread = share * (p - right), share * p * (1.0 - p)
        gradient, diagonal = precision @ delta, np.zeros(m)
        gradient[:-1] += sums(residual, 1.0 - part)
        gradient[1:] += sums(residual, part)
        diagonal[:-1] += sums(spread, np.square(1.0 - part))
        diagonal[1:] += sums(spread, np.square(part))
        beside = sums(spread, part * (1.0 - part))
        hessian = precision + np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        return gradient, hessian

    delta, value = np.zeros(m), cost(np.zeros(m))
    gradient, hessian = derivatives(delta)
    for _ in range(STEPS):
        step = -np.linalg.solve(hessian, gradient)
        if -float(gradient @ step) < 1e-8:
            break
        size = min(1.0, 4.0 / float(np.abs(step).max()))
        # The cost is convex, so some shorter step is always better.
        while size > 1e-6 and cost(delta + size * step) > value:
            size *= 0.5
        delta = delta + size * step
        value = cost(delta)
        gradient, hessian = derivatives(delta)
    covariance: Array = np.asarray(np.linalg.inv(hessian), dtype=np.float64)
    return delta, covariance


def _prior_precision(knots: Array, middle: float) -> Array:
    """Matrix P of the prior ½·δᵀPδ."""
    m = knots.shape[0]
    slopes = np.diff(np.eye(m), axis=0) / np.diff(knots)[:, None]
    bends, mean = np.diff(slopes, axis=0), slopes.mean(axis=0)
    index, part = _position(np.array([middle]), knots)
    level = np.zeros(m)
    level[index] = 1.0 - part
    level[index + 1] = part
    precision: Array = (
        SMOOTHNESS * bends.T @ bends
        + SCALE_PRIOR * np.outer(mean, mean)
        + LEVEL_PRIOR * np.outer(level, level)
    )
    return 2.0 * precision
