"""The calibrator `smart`: a temperature for each row, from the gap of its two largest logits.

    p = (1 − w)·softmax(z / h(g)) + w/k,   g = z(1) − z(2),   s(g) = g / h(g)

s is continuous, increasing and piecewise linear with slopes exp(θ_j) between quantiles of the
calibration gaps, so 1/h(g) = Σ_j exp(θ_j)·|[0, g] ∩ I_j| / g and 1/h(0) = exp(θ_1). The last slope
continues beyond the last edge, and the order by gap is never reversed. A temperature from the gap
is the idea of SMART (arXiv:2506.23492); its published network is `smart-mlp`.

Where the rows cannot tell that this helps, θ is drawn to 0 and w to 0, see `evidence`.

The uniform weight w = ¼/(n + 1) limits the NLL of a row that is wrong with full confidence;
1/(n + 1) would raise the ECE on small sets. From 300 rows on, where the whole fit is applied and
cross-validation prefers it, a second stage maps the resulting confidence. It is fitted on
out-of-fold confidences of the first stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import TRANSPOSE_BELOW, Logits, Probabilities, logit_gap
from trueprob.arrays.weights_and_groups import Groups
from trueprob.calibrators.base import Calibrated, Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.evidence import (
    FitEvidence,
    effective_parameters,
    effective_rows,
    sampled,
    weigh,
)
from trueprob.calibrators.parameters import number, numbers, require_keys
from trueprob.calibrators.smart.fit import LogSlopes, fit_log_slopes, minimise
from trueprob.calibrators.smart.objective import DEFAULT_TERMS, GapObjective, Terms, prior
from trueprob.calibrators.smart.rows import (
    calibrate_narrow_rows,
    calibrate_single_row,
    calibrate_wide_rows,
    inverse_temperature_of_gap,
)
from trueprob.calibrators.smart.second_stage import SecondStage, fit_second_stage
from trueprob.errors import InvalidDocument
from trueprob.folds import fold_of_rows

__all__ = [
    "SECOND_STAGE_ROWS",
    "SmartCalibrator",
    "fit_smart",
    "out_of_fold_logit",
]

N_INTERVALS: Final = 8  # between quantiles of the calibration gaps
UNIFORM_SHARE: Final = 0.25  # w = this / (n + 1)
SECOND_STAGE_ROWS: Final = 300  # below, cross-validation cannot tell whether the stage helps
N_FOLDS: Final = 5
BLOCK: Final = 1 << 19  # elements of a block of logits, which stays in the cache
MAX_LOG_SLOPE: Final = 60.0  # float32 probabilities are 0 or 1 long before

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SmartCalibrator(Calibrator):
    """Softmax of logits divided by a temperature that depends on their gap.

    Attributes
    ----------
    edges : tuple of m − 1 floats
        Inner edges of the m intervals of the gap, increasing and positive, in nats.
    log_slopes : tuple of m floats
        θ_j, the logarithm of the slope of s in each interval.
    uniform_weight : float
        w of the mixture with the uniform distribution.
    second_stage : SecondStage or None
        Map of the resulting confidence.

    References
    ----------
    SMART, arXiv:2506.23492, for the temperature as a function of the gap.
    """

    edges: tuple[float, ...]
    log_slopes: tuple[float, ...]
    uniform_weight: float
    second_stage: SecondStage | None = None

    kind: ClassVar[str] = "smart"
    preserves_ranking: ClassVar[bool] = True

    def parameters(self) -> dict[str, Any]:
        """Fitted values as JSON values."""
        return {
            "edges": list(self.edges),
            "log_slopes": list(self.log_slopes),
            "uniform_weight": self.uniform_weight,
            "second_stage": None if self.second_stage is None else self.second_stage.parameters(),
        }

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        where = "parameters"
        require_keys(
            parameters, ("edges", "log_slopes", "uniform_weight", "second_stage"), where=where
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
        second = parameters["second_stage"]
        stage = None if second is None else SecondStage.from_parameters(second)
        return cls(n_classes, edges, log_slopes, weight, stage)

    @cached_property
    def _segments(self) -> tuple[Array, Array, Array]:
        """Inner edges, and slope and intercept of the line on each segment."""
        edges = np.array(self.edges, dtype=np.float64)
        slopes = np.exp(np.array(self.log_slopes, dtype=np.float64))
        # s(e_j) from below equals from above: c_{j+1} = c_j + (slope_j − slope_{j+1})·e_j
        intercepts = np.concatenate([[0.0], np.cumsum((slopes[:-1] - slopes[1:]) * edges)])
        return edges, slopes, intercepts

    @cached_property
    def _segment_lists(self) -> tuple[list[float], list[float], list[float]]:
        edges, slopes, intercepts = self._segments
        return edges.tolist(), slopes.tolist(), intercepts.tolist()

    def calibrated(self, logits: Logits) -> Calibrated:
        """See `Calibrator.calibrated`; the check is written out, since requests wait for it."""
        if self.input_stage is None and np.minimum.reduce(logits, axis=None) != -np.inf:
            return self._calibrated(logits)
        return self._staged(logits)

    def _calibrated(self, logits: Logits) -> Calibrated:
        """One pass, in blocks that stay in the cache."""
        n, k = logits.shape
        step = max(1, BLOCK // k)
        if n <= step:
            return self._block(logits)
        p, top = np.empty((n, k), np.float32), np.empty(n, np.int64)
        confidence, temperature = np.empty(n, np.float32), np.empty(n)
        gap = np.empty(n, np.float32)
        for start in range(0, n, step):
            rows = slice(start, start + step)
            block = self._block(logits[rows], p[rows])
            top[rows], confidence[rows] = block.prediction, block.confidence
            temperature[rows], gap[rows] = block.temperature, block.logit_gap
        return Calibrated(p, top, confidence, temperature, gap)

    def _block(self, logits: Logits, out: Probabilities | None = None) -> Calibrated:
        stages = self._inverse_temperature, self.uniform_weight, self.second_stage
        if logits.shape[1] >= TRANSPOSE_BELOW:
            return calibrate_wide_rows(logits, *stages, out=out)
        if len(logits) == 1 and self.second_stage is None:
            alone = calibrate_single_row(logits, *self._segment_lists, self.uniform_weight)
            if alone is not None:
                return alone
        found = calibrate_narrow_rows(logits, *stages)
        if out is not None:
            out[:] = found.probabilities
        return found

    def _probabilities(self, logits: Logits) -> Probabilities:
        return self._calibrated(logits).probabilities

    def _temperature(self, logits: Logits) -> Array:
        return 1.0 / self._inverse_temperature(logit_gap(logits))

    def _inverse_temperature(self, gap: NDArray[np.float32]) -> Array:
        return inverse_temperature_of_gap(gap, *self._segments)


def fit_smart(
    logits: Logits,
    labels: Labels,
    weights: Array | None = None,  # (n,), only their ratios matter
    *,
    seed: int = 0,  # of the folds of the second stage
    groups: Groups | None = None,  # (n,), rows of one group stay in one fold
    # For the ablations in `benchmarks`; the defaults are the method.
    n_intervals: int = N_INTERVALS,
    uniform_share: float = UNIFORM_SHARE,
    second_stage: bool = True,
    terms: Terms = DEFAULT_TERMS,
) -> FittedCalibrator:
    """Fit the slopes by penalised likelihood, then the second stage if there are enough rows.

    The first three arguments are checked arrays, as `trueprob.fit` passes them.
    """
    n, k = logits.shape
    solution = fit_log_slopes(logits, labels, weights, n_intervals=n_intervals, terms=terms)
    uniform_weight = uniform_share / (n + 1)

    def judge(part: slice, rows: float) -> FitEvidence:
        return _evidence(
            solution.objective.part(part), solution.log_slopes, uniform_weight, k, rows
        )

    evidence = sampled(judge, n, weights)
    calibrator = _calibrator(solution, evidence, k, uniform_weight)
    if second_stage and evidence.share == 1.0 and effective_rows(n, weights) >= SECOND_STAGE_ROWS:
        stage = _second_stage(solution, weights, groups, calibrator, seed=seed)
        calibrator = replace(calibrator, second_stage=stage)
    if solution.converged:
        return FittedCalibrator(calibrator, FitOutcome.CONVERGED, evidence.warnings)
    warning = "the optimiser ran out of steps; its best point is kept"
    return FittedCalibrator(calibrator, FitOutcome.NOT_CONVERGED, (warning, *evidence.warnings))


def _evidence(
    objective: GapObjective, log_slopes: Array, uniform_weight: float, k: int, rows: float
) -> FitEvidence:
    """Of the first stage with its uniform mixture, against the plain softmax."""
    beta = objective.coverage @ np.exp(log_slopes)
    moments = objective.moments(beta)
    _, _, curvature = objective.from_moments(log_slopes, moments)
    held = prior(log_slopes, objective.terms)[2] / objective.n
    log_likelihood = beta * objective.label_difference - np.logaddexp(0.0, moments[0])
    with np.errstate(divide="ignore"):  # without a mixture this is log 0 = −∞, which adds nothing
        even = np.log(np.array(uniform_weight / k))
    mixed = np.logaddexp(np.log1p(-uniform_weight) + log_likelihood, even)
    plain_rest, _, _ = objective.moments(np.ones_like(beta))
    plain = np.logaddexp(0.0, plain_rest) - objective.label_difference
    return weigh(
        plain,
        -mixed,
        objective.share,
        rows,
        parameters=effective_parameters(curvature, held),
    )


def _calibrator(
    solution: LogSlopes, evidence: FitEvidence, n_classes: int, uniform_weight: float
) -> SmartCalibrator:
    if evidence.share == 0.0:
        return SmartCalibrator(n_classes, (), (0.0,), 0.0)
    clipped = np.clip(evidence.share * solution.log_slopes, -MAX_LOG_SLOPE, MAX_LOG_SLOPE)
    return SmartCalibrator(
        n_classes,
        tuple(float(edge) for edge in solution.edges),
        tuple(float(theta) for theta in clipped),
        evidence.share * uniform_weight,
    )


def _second_stage(
    solution: LogSlopes,
    weights: Array | None,
    groups: Groups | None,
    calibrator: SmartCalibrator,
    *,
    seed: int,
) -> SecondStage | None:
    """The second stage, fitted on out-of-fold confidences; None if it cannot be fitted."""
    correct = solution.objective.correct
    if correct.all() or not correct.any():
        return None
    fold = fold_of_rows(correct, groups, N_FOLDS, seed=seed)
    n_folds = int(fold.max()) + 1
    if n_folds == 1:
        return None
    if weights is not None and any(not weights[fold != i].any() for i in range(n_folds)):
        return None
    logit = out_of_fold_logit(
        solution,
        fold,
        uniform_weight=calibrator.uniform_weight,
        n_classes=calibrator.n_classes,
    )
    return fit_second_stage(logit, correct, weights, seed=seed, groups=groups)


def out_of_fold_logit(
    solution: LogSlopes,  # the fit on all rows
    fold: NDArray[np.int64],  # (n,); no fold may hold all the weight
    *,
    uniform_weight: float,
    n_classes: int,
) -> Array:
    """Out-of-fold logit log c − log(1 − c) of the first stage's confidence, shape (n,), nats.

    Each fold's refit starts at the fit on all rows and ends close to it, so the logits are not
    read again: L(β) of each row (see `objective`) is continued from its fitted β₀ as

        L(β) ≈ L(β₀) + L′·(β − β₀) + ½·L″·(β − β₀)²

    and a step of a refit costs O(n) for any number of classes. L is nearly linear where one class
    is far ahead, and exactly linear for two classes. All refits keep the edges of the intervals.
    """
    objective = solution.objective
    beta = objective.coverage @ np.exp(solution.log_slopes)
    moments = np.stack(objective.moments(beta))
    held_out_beta = np.empty_like(beta)
    for index in range(int(fold.max()) + 1):
        held = fold == index
        refit = _ContinuedObjective(objective, ~held, beta, moments)
        log_slopes, _ = minimise(refit, solution.log_slopes)
        held_out_beta[held] = objective.coverage[held] @ np.exp(log_slopes)
    # Logarithm of all other exponentials, relative to that of the top class.
    log_rest, _, _ = _continued(held_out_beta - beta, moments)
    log_top = -np.logaddexp(0.0, log_rest)
    with np.errstate(under="ignore", divide="ignore"):
        # Without a mixture these are log 0 = −∞, which adds nothing.
        even = np.log(np.array([1.0, n_classes - 1.0]) * uniform_weight / n_classes)
        kept = np.log1p(-uniform_weight)
        top = np.logaddexp(kept + log_top, even[0])
        rest = np.logaddexp(kept + log_top + log_rest, even[1])
    return np.asarray(top - rest)


class _ContinuedObjective(GapObjective):
    """The objective of some rows, with moments continued from the fit on all rows."""

    def __init__(
        self, whole: GapObjective, rows: NDArray[np.bool_], beta: Array, moments: Array
    ) -> None:
        share = whole.share[rows]
        self.n = int(rows.sum())
        self.share = share / share.sum()
        self.correct = whole.correct[rows]
        self.label_difference = whole.label_difference[rows]
        self.coverage = whole.coverage[rows]
        self.terms = whole.terms
        self._beta = beta[rows]
        self._moments = moments[:, rows]

    def moments(self, beta: Array) -> tuple[Array, Array, Array]:
        return _continued(beta - self._beta, self._moments)


def _continued(distance: Array, moments: Array) -> tuple[Array, Array, Array]:
    """L(β₀ + distance) and its derivatives, by the expansion in `out_of_fold_logit`."""
    log_rest, first, second = moments
    return (
        log_rest + distance * (first + 0.5 * distance * second),
        first + distance * second,
        second,
    )
