"""The objective of `smart`: a penalised likelihood of the log slopes θ, with its derivatives.

With n rows of weight one (weights are scaled to a mean of one) the objective is

    mean NLL + 3·mean CE + [20·Σ_j(θ_{j+1} − θ_j)² + 8·log(1 + θ_1²)] / n

CE is the cross entropy of "is the top label right". The first prior shrinks towards one
temperature, the second shrinks that towards 1, with a tail so heavy that badly scaled logits keep
their scale. Both are in nats of the summed log likelihood, hence the division. With the weight 3 a
row counts about four times, and so do the priors. The weight has the effect of half a soft ECE
without its kernel, which `Terms` can add for the ablation.

Per row everything follows from one convex function of β = 1/h: with d_j = z_j − z(1) and
L(β) = log Σ_{j≠top} exp(β·d_j), the top probability is 1/(1 + e^L), and

    NLL = softplus(L) − β·d_y,   CE = softplus(L) if right, softplus(−L) if wrong.

A Newton step needs L, L′ and L″, which is one pass over the logits. Sets of more than two million
elements are computed in float32 and summed in float64.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import TRANSPOSE_BELOW, Logits
from trueprob.calibrators.soft_ece import soft_ece
from trueprob.calibrators.temperature import CHUNK, LARGE

__all__ = ["DEFAULT_TERMS", "GapObjective", "SmartObjective", "Terms", "interval_edges", "prior"]

FARTHEST: Final = -1e15  # nats; larger differences add nothing, and squares stay finite

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Terms:
    """Weights of the terms; values other than the defaults are for ablations."""

    top_weight: float = 3.0  # of the cross entropy of "is the top label right"
    smoothness: float = 20.0  # nats of the summed log likelihood for a change of slope by e
    scale_prior: float = 8.0  # nats, times log(1 + θ_1²)
    soft_ece: float = 0.0  # of the loss of the published recipe


DEFAULT_TERMS: Final = Terms()


class GapObjective(ABC):
    """The objective as a function of θ; a subclass computes the moments L, L′, L″."""

    n: int  # rows
    share: Array  # (n,), weights that sum to one
    correct: NDArray[np.bool_]  # (n,), whether the top label is right
    label_difference: Array  # (n,), logit of the label minus the largest, nats
    coverage: Array  # (n, m), share of [0, g] in each interval
    terms: Terms

    @abstractmethod
    def moments(self, beta: Array) -> tuple[Array, Array, Array]:
        """L(β) of each row with its first and second derivative."""

    def __call__(self, theta: Array) -> tuple[float, Array, Array]:
        """Objective at θ, its gradient, and a Hessian that may be indefinite."""
        return self.from_moments(theta, self.moments(self.coverage @ np.exp(theta)))

    def from_moments(
        self, theta: Array, moments: tuple[Array, Array, Array]
    ) -> tuple[float, Array, Array]:
        """The same, with the moments at θ."""
        by_theta = self.coverage * np.exp(theta)
        beta = by_theta.sum(axis=1)
        log_rest, first, second = moments
        wrong = 0.5 + 0.5 * np.tanh(0.5 * log_rest)  # 1 − top probability
        # softplus(−L) = softplus(L) − L
        top_weight = self.terms.top_weight
        rises = np.where(self.correct, 1.0 + top_weight, 1.0)
        falls = np.where(self.correct, 0.0, top_weight)
        value = (
            rises * np.logaddexp(0.0, log_rest)
            + falls * np.logaddexp(0.0, -log_rest)
            - beta * self.label_difference
        )
        factor = rises * wrong - falls * (1.0 - wrong)
        slope = self.share * (factor * first - self.label_difference)
        spread = (rises + falls) * wrong * (1.0 - wrong)
        curve = self.share * (factor * second + spread * np.square(first))
        gradient = slope @ by_theta
        curvature = by_theta.T @ (curve[:, None] * by_theta) + np.diag(gradient)
        mean = float(self.share @ value)
        if self.terms.soft_ece:
            # Its curvature is left out: it may have either sign, and steps are damped.
            error, by_confidence = soft_ece(1.0 - wrong, self.correct, self.share)
            mean += self.terms.soft_ece * error
            by_beta = -by_confidence * wrong * (1.0 - wrong) * first
            gradient += self.terms.soft_ece * (by_beta @ by_theta)
        penalty, penalty_gradient, penalty_curvature = prior(theta, self.terms)
        return (
            mean + penalty / self.n,
            gradient + penalty_gradient / self.n,
            curvature + penalty_curvature / self.n,
        )


class SmartObjective(GapObjective):
    """The objective with moments computed from logits."""

    def __init__(
        self,
        logits: Logits,  # (n, k) float32
        labels: Labels,  # (n,) int64
        weights: Array | None,  # (n,)
        edges: Array,  # (m − 1,), inner edges of the intervals of the gap
        terms: Terms = DEFAULT_TERMS,
    ) -> None:
        self.terms = terms
        n, k = logits.shape
        rows = np.arange(n)
        self.n = n
        self.share = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
        self.top = logits.argmax(axis=1)
        self.correct = self.top == labels
        self.axis = 0 if k < TRANSPOSE_BELOW else 1
        dtype = np.float64 if logits.size <= LARGE else np.float32
        work: NDArray[Any] = np.array(
            logits.T if self.axis == 0 else logits, dtype=dtype, order="C"
        )
        top = (self.top, rows) if self.axis == 0 else (rows, self.top)
        highest = work[top].astype(np.float64)
        label = (labels, rows) if self.axis == 0 else (rows, labels)
        self.label_difference = np.maximum(work[label] - highest, FARTHEST)
        work[top] = -np.inf
        second = work.max(axis=self.axis)
        self.gap = np.minimum(highest - second, -FARTHEST)
        work[top] = second  # a difference of 0; `moments` leaves the top class out
        with np.errstate(over="ignore"):
            work -= second if self.axis == 0 else second[:, None]
        self.below_second = np.maximum(work, FARTHEST, out=work)
        self.coverage = coverage(self.gap, edges)

    def part(self, rows: slice) -> SmartObjective:
        """The objective of some rows, with the priors of all."""
        if rows == slice(None):
            return self
        few = copy.copy(self)
        few.share = self.share[rows] / self.share[rows].sum()
        for name in ("top", "correct", "label_difference", "gap", "coverage"):
            setattr(few, name, getattr(self, name)[rows])
        few.below_second = self.below_second[(slice(None), rows) if self.axis == 0 else rows]
        return few

    def moments(self, beta: Array) -> tuple[Array, Array, Array]:
        """L(β) of each row with its first and second derivative."""
        n = beta.shape[0]
        result = np.empty((3, n))
        step = max(1, CHUNK // self.below_second.shape[self.axis])
        for start in range(0, n, step):
            rows = slice(start, start + step)
            local = np.arange(min(step, n - start))
            if self.axis == 0:
                differences = self.below_second[:, rows]
                factor = beta[rows].astype(differences.dtype)
                top = (self.top[rows], local)
            else:
                differences = self.below_second[rows]
                factor = beta[rows, None].astype(differences.dtype)
                top = (local, self.top[rows])
            with np.errstate(under="ignore", over="ignore"):
                terms = differences * factor
                np.exp(terms, out=terms)
                terms[top] = 0.0
                total = terms.sum(axis=self.axis, dtype=np.float64)
                terms *= differences
                mean = terms.sum(axis=self.axis, dtype=np.float64) / total
                terms *= differences
                square = terms.sum(axis=self.axis, dtype=np.float64) / total
            result[0, rows] = np.log(total) - beta[rows] * self.gap[rows]
            result[1, rows] = mean - self.gap[rows]
            result[2, rows] = np.maximum(square - mean * mean, 0.0)
        return result[0], result[1], result[2]


def prior(theta: Array, terms: Terms = DEFAULT_TERMS) -> tuple[float, Array, Array]:
    """Penalty in nats of the summed log likelihood, its gradient, and a positive curvature."""
    # The curvature of the heavy tail is negative beyond 1; its majoriser's is 4/(1 + θ_1²).
    difference = np.diff(theta)
    heavy = 1.0 + theta[0] ** 2
    smoothness, scale_prior = terms.smoothness, terms.scale_prior
    value = smoothness * float(difference @ difference) + scale_prior * math.log(heavy)
    gradient = np.zeros_like(theta)
    gradient[1:] += 2.0 * smoothness * difference
    gradient[:-1] -= 2.0 * smoothness * difference
    gradient[0] += 2.0 * scale_prior * theta[0] / heavy
    operator = np.diff(np.eye(theta.shape[0]), axis=0)
    curvature = 2.0 * smoothness * operator.T @ operator
    curvature[0, 0] += 2.0 * scale_prior / heavy
    return value, gradient, curvature


def coverage(gap: Array, edges: Array) -> Array:
    """Share of [0, g] in each interval, shape (n, m); a gap of 0 is in the first interval."""
    lower = np.concatenate([[0.0], edges])
    upper = np.concatenate([edges, [np.inf]])
    inside = np.clip(gap[:, None], lower, upper) - lower
    zero = gap <= 0.0
    result: Array = inside / np.where(zero, 1.0, gap)[:, None]
    result[zero] = 0.0
    result[zero, 0] = 1.0
    return result


def interval_edges(gap: Array, n_intervals: int) -> Array:
    """Inner quantiles of the gaps, without duplicates and without ends."""
    quantiles = np.quantile(gap, np.arange(1, n_intervals) / n_intervals)
    unique = np.unique(quantiles)
    inner: Array = unique[(unique > 0.0) & (unique < gap.max())]
    return inner
