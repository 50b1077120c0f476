"""Fit of `smart-binary`: penalised likelihood, a second stage, and a guard of extreme log-odds.

With n rows of weight one (weights are scaled to a mean of one), v as in `binary`:

    mean NLL + [5·Σ_j(θ_{j+1} − θ_j)² + 2·log(1 + θ_r²) + 2·log(1 + b²)] / n

is minimised, θ_r being the log slope of the interval that holds s = 0. The priors are those of
`smart`: towards one temperature, and that towards 1. The third shrinks the offset towards 0. Its
tail is as heavy, so that a network that favours one class keeps its offset. With two classes "is
the top label right" has the cross entropy of the labels, so that term of `smart` would only weaken
the priors.

Beyond ±log(2·(n + 1)) slopes are divided by 50: of n rows none says more, and a row that is wrong
there would cost more than all others. `smart` mixes with the uniform distribution instead, which
has flat ends. Where the rows cannot tell that all this helps, it is drawn to none, see `evidence`.
From 300 rows on, where the whole fit is applied and cross-validation prefers it, the second stage
of `smart` maps v on the whole line, before the guard.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits
from trueprob.arrays.weights_and_groups import Groups
from trueprob.calibrators.base import FitOutcome, FittedCalibrator
from trueprob.calibrators.evidence import (
    FitEvidence,
    effective_parameters,
    effective_rows,
    sampled,
    weigh,
)
from trueprob.calibrators.smart.binary import PiecewiseMap, SmartBinaryCalibrator, logit_difference
from trueprob.calibrators.smart.calibrator import SECOND_STAGE_ROWS
from trueprob.calibrators.smart.fit import minimise
from trueprob.calibrators.smart.second_stage import fit_second_stage
from trueprob.errors import InvalidInput
from trueprob.folds import fold_of_rows

__all__ = ["BinaryObjective", "fit_smart_binary"]

N_INTERVALS: Final = 8  # between quantiles of s
# Nats of the summed log likelihood: for a change of slope by e, times log(1 + θ_r²), and times
# log(1 + b²).
SMOOTHNESS: Final = 5.0
SCALE_PRIOR: Final = 2.0
OFFSET_PRIOR: Final = 2.0
N_FOLDS: Final = 5
GUARD_RATIO: Final = 0.02  # of the slopes beyond the guard
IDENTITY: Final = PiecewiseMap((), (1.0,), 0.0)
START_ROWS: Final = 2_000  # to choose a single temperature to start at
FARTHEST_START: Final = 14  # of its logarithm from that of the scale of s

Array = NDArray[np.float64]


class BinaryObjective:
    """The objective as a function of (b, θ), with its gradient and Hessian."""

    def __init__(
        self,
        s: Array,  # (n,), logit differences, nats
        positive: NDArray[np.bool_],  # (n,), whether the label is 1
        weights: Array | None,  # (n,), only their ratios matter
        edges: Array,  # (m − 1,), inner edges of the intervals of s
        *,
        free_offset: bool = True,  # False: b stays where it is
    ) -> None:
        self.n = s.shape[0]
        self.positive = positive
        self.share = np.full(self.n, 1.0 / self.n) if weights is None else weights / weights.sum()
        self.edges = edges
        self.free_offset = free_offset
        lower = np.concatenate([[-np.inf], edges])
        upper = np.concatenate([edges, [np.inf]])
        # Signed length of [0, s] in each interval, shape (n, m).
        self.length = np.clip(s[:, None], lower, upper) - np.clip(0.0, lower, upper)
        self.reference = int(np.searchsorted(edges, 0.0))

    def log_odds(self, theta: Array) -> Array:
        """The log-odds of each row, shape (n,)."""
        odds: Array = theta[0] + self.length @ np.exp(theta[1:])
        return odds

    def __call__(self, theta: Array) -> tuple[float, Array, Array]:
        """Objective at (b, θ), its gradient, and a Hessian that may be indefinite."""
        design = np.empty((self.share.shape[0], theta.shape[0]))
        design[:, 0] = 1.0
        np.multiply(self.length, np.exp(theta[1:]), out=design[:, 1:])
        v = theta[0] + design[:, 1:].sum(axis=1)
        probability = 0.5 + 0.5 * np.tanh(0.5 * v)
        value = float(self.share @ np.logaddexp(0.0, np.where(self.positive, -v, v)))
        gradient = design.T @ (self.share * (probability - self.positive))
        spread = self.share * probability * (1.0 - probability)
        curvature = design.T @ (spread[:, None] * design)
        curvature[1:, 1:] += np.diag(gradient[1:])
        penalty, penalty_gradient, penalty_curvature = self.prior(theta)
        value += penalty / self.n
        gradient += penalty_gradient / self.n
        curvature += penalty_curvature / self.n
        if not self.free_offset:
            gradient[0] = 0.0
            curvature[0, :] = curvature[:, 0] = 0.0
            curvature[0, 0] = 1.0
        return value, gradient, curvature

    def prior(self, theta: Array) -> tuple[float, Array, Array]:
        """Penalty in nats of the summed log likelihood, its gradient, and a positive curvature."""
        gradient, curvature = np.zeros_like(theta), np.zeros((theta.shape[0],) * 2)
        operator = np.diff(np.eye(theta.shape[0] - 1), axis=0)
        difference = operator @ theta[1:]
        value = SMOOTHNESS * float(difference @ difference)
        gradient[1:] = 2.0 * SMOOTHNESS * operator.T @ difference
        curvature[1:, 1:] = 2.0 * SMOOTHNESS * operator.T @ operator
        for index, strength in ((0, OFFSET_PRIOR), (1 + self.reference, SCALE_PRIOR)):
            # The curvature of a heavy tail is negative beyond 1; this is its majoriser's.
            heavy = 1.0 + float(theta[index]) ** 2
            value += strength * math.log(heavy)
            gradient[index] += 2.0 * strength * float(theta[index]) / heavy
            curvature[index, index] += 2.0 * strength / heavy
        return value, gradient, curvature


def fit_smart_binary(
    logits: Logits,  # (n, 2) float32
    labels: Labels,  # (n,) int64
    weights: Array | None = None,  # (n,), only their ratios matter
    *,
    seed: int = 0,  # of the folds of the second stage
    groups: Groups | None = None,  # (n,), rows of one group stay in one fold
    second_stage: bool = True,
) -> FittedCalibrator:
    """Fit the map of the logit difference; InvalidInput for another number of classes than two.

    From labels of one class only the scale is fitted: the offset stays 0, because it would learn to
    predict that class.
    """
    n, k = logits.shape
    if k != 2:
        raise InvalidInput(
            f"method smart-binary is for two classes, got {k}: use smart", field="method"
        )
    s, positive = logit_difference(logits), labels == 1
    used = positive if weights is None else positive[weights > 0.0]
    one_class = bool(used.all() or not used.any())
    objective = BinaryObjective(s, positive, weights, interval_edges(s), free_offset=not one_class)
    theta, converged = minimise(objective, _start(s, positive, weights, objective.edges))
    found = _map(objective.edges, theta)
    guarded = found.then(_guard(n))

    def judge(part: slice, rows: float) -> FitEvidence:
        some = None if weights is None else weights[part]
        of_part = BinaryObjective(
            s[part], positive[part], some, objective.edges, free_offset=not one_class
        )
        of_part.n = n  # the priors stay those of all rows
        free = slice(1 if one_class else 0, None)
        curvature, held = of_part(theta)[2][free, free], objective.prior(theta)[2][free, free] / n
        return weigh(
            _loss(s[part], positive[part]),
            _loss(guarded(s[part]), positive[part]),
            some,
            rows,
            parameters=effective_parameters(curvature, held),
        )

    evidence = sampled(judge, n, weights)
    if evidence.share < 1.0:
        found = _map(objective.edges, evidence.share * theta) if evidence.share else IDENTITY
    elif second_stage and not one_class and effective_rows(n, weights) >= SECOND_STAGE_ROWS:
        second = _second_stage(s, objective, theta, weights, groups, seed=seed)
        found = found if second is None else found.then(second)
    if evidence.share:
        found = found.then(_guard(n, evidence.share))
    calibrator = SmartBinaryCalibrator.of_map(found)
    if converged:
        return FittedCalibrator(calibrator, FitOutcome.CONVERGED, evidence.warnings)
    warning = "the optimiser ran out of steps; its best point is kept"
    return FittedCalibrator(calibrator, FitOutcome.NOT_CONVERGED, (warning, *evidence.warnings))


def _loss(log_odds: Array, positive: NDArray[np.bool_]) -> Array:
    """NLL of each row, nats."""
    return np.asarray(np.logaddexp(0.0, np.where(positive, -log_odds, log_odds)))


def interval_edges(s: Array) -> Array:
    """Inner quantiles of s, without duplicates and without its ends."""
    quantiles = np.unique(np.quantile(s, np.arange(1, N_INTERVALS) / N_INTERVALS))
    inner: Array = quantiles[(quantiles > s.min()) & (quantiles < s.max())]
    return inner


def _start(s: Array, positive: NDArray[np.bool_], weights: Array | None, edges: Array) -> Array:
    """The best of some single temperatures without offset, on a sample of the rows."""
    rows = np.arange(s.shape[0]) if weights is None else np.flatnonzero(weights)
    rows = rows[:: math.ceil(rows.shape[0] / START_ROWS)]
    part = None if weights is None else weights[rows]
    sampled = BinaryObjective(s[rows], positive[rows], part, edges)
    scale = float(np.sqrt(np.square(s[rows]).mean()))
    centre = -math.log(scale) if scale > 0.0 else 0.0
    steps = np.arange(-FARTHEST_START, FARTHEST_START + 1)
    candidates = np.concatenate([[0.0], centre + steps])

    def point(log_slope: float) -> Array:
        return np.concatenate([[0.0], np.full(edges.shape[0] + 1, log_slope)])

    return min(map(point, candidates.tolist()), key=lambda theta: sampled(theta)[0])


def _map(edges: Array, theta: Array) -> PiecewiseMap:
    slopes = np.exp(theta[1:])
    return PiecewiseMap(tuple(edges.tolist()), tuple(slopes.tolist()), float(theta[0]))


def _second_stage(
    s: Array,
    objective: BinaryObjective,
    theta: Array,  # fitted on all rows
    weights: Array | None,
    groups: Groups | None,
    *,
    seed: int,
) -> PiecewiseMap | None:
    """The map of v, fitted on out-of-fold v; None if cross-validation does not prefer it.

    All refits keep the edges of the intervals and start at the fit on all rows.
    """
    positive = objective.positive
    fold = fold_of_rows(positive, groups, N_FOLDS, seed=seed)
    n_folds = int(fold.max()) + 1
    if n_folds == 1:
        return None
    if weights is not None and any(not weights[fold != i].any() for i in range(n_folds)):
        return None
    v = np.empty_like(s)
    for index in range(n_folds):
        held, kept = fold == index, fold != index
        part = None if weights is None else weights[kept]
        refit = BinaryObjective(s[kept], positive[kept], part, objective.edges)
        again, _ = minimise(refit, theta)
        v[held] = _map(objective.edges, again)(s[held])
    found = fit_second_stage(v, positive, weights, seed=seed, groups=groups)
    if found is None:
        return None
    knots, values = np.array(found.knots), np.array(found.values)
    slopes = np.diff(values) / np.diff(knots)
    at_zero = float(found.map(np.zeros(1))[0])
    return PiecewiseMap(tuple(knots[1:-1].tolist()), tuple(slopes.tolist()), at_zero)


def _guard(n: int, strength: float = 1.0) -> PiecewiseMap:
    """The identity up to ±log(2·(n + 1)), and GUARD_RATIO^strength of its slope beyond."""
    end, ratio = math.log(2.0 * (n + 1.0)), GUARD_RATIO**strength
    return PiecewiseMap((-end, end), (ratio, 1.0, ratio), 0.0)
