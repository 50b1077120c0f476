"""Fit of a linear stage, with the strength of its priors chosen by cross-validation.

`objective` has the objective and its strength λ. Few rows, or errors that no class causes, want
strong priors; a network that favours a class wants weak ones. Only rows that were left out can tell
which. So the folds are fitted with one strength after another, from the strongest, where W is the
identity times the single temperature, each from the result before, until the NLL of the rows left
out rises. The best strength is fitted on all rows. Outputs of the rows left out come from the same
fits; the gap stage of `smart-vector` and `smart-matrix` is fitted on them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, is_masked, log_softmax
from trueprob.calibrators.linear.lbfgs import minimise_convex
from trueprob.calibrators.linear.objective import LinearObjective
from trueprob.calibrators.linear.stage import CHUNK, LinearStage, centred
from trueprob.calibrators.smart.fit import fit_log_slopes

__all__ = ["STRENGTHS", "LinearCrossFit", "LinearFit", "cross_fit_linear_stage", "fit_linear_stage"]

# Of the priors, strongest first. Any four from infinity to 0.3 or 1 have the same held-out NLL
# within 0.0003 nats (docs/decisions.md, 69).
STRENGTHS: Final = (math.inf, 30.0, 3.0, 0.3)
MAX_STEPS: Final = 500
# Nats of expected decrease of the mean at which L-BFGS stops. The error on held-out rows is then
# about 1e-5 nats, a hundredth of the standard error of 5 000 rows.
TOLERANCE: Final = 1e-6
LARGE: Final = 100_000  # elements; larger sets are computed in float32 and summed in float64

Array = NDArray[np.float64]
Map = tuple[Array, Array]  # W on the features x, or its diagonal, and b


@dataclass(frozen=True)
class LinearFit:
    """A linear stage fitted with one strength, and whether L-BFGS converged."""

    stage: LinearStage
    converged: bool


@dataclass(frozen=True)
class LinearCrossFit:
    """A linear stage on all rows, and outputs of stages that were fitted without their rows."""

    stage: LinearStage
    strength: float  # chosen; infinite if the stage is the single temperature
    outputs: Logits  # (n, k), out of fold, with the same strength
    converged: bool


def cross_fit_linear_stage(
    logits: Logits,  # (n, k) float32
    labels: Labels,  # (n,) int64
    weights: Array | None,  # (n,), only their ratios matter
    fold: NDArray[np.int64],  # (n,); with one fold nothing is left out, and λ is infinite
    *,
    full: bool,  # a matrix rather than its diagonal
    strengths: Sequence[float] = STRENGTHS,  # strongest first
) -> LinearCrossFit:
    """Choose the strength by cross-validation and fit all rows with it."""
    identity = _identity(logits.shape[1], full=full)
    order = np.argsort(fold, kind="stable")  # a fold is a slice of the rows in this order
    sorted_labels = labels[order]
    sorted_weights = None if weights is None else weights[order]
    x, scale = _features(logits[order], sorted_labels, sorted_weights)
    if fold.max() == 0:
        stage = _stage(identity, scale)
        return LinearCrossFit(stage, math.inf, stage.apply(logits), converged=True)
    ends = np.cumsum(np.bincount(fold)).tolist()
    folds = [slice(*pair) for pair in pairwise([0, *ends])]
    masked = _masked(logits[order])
    objectives = [
        LinearObjective(
            x,
            sorted_labels,
            _without(sorted_weights, left_out),
            full=full,
            left_out=left_out,
            masked=masked,
        )
        for left_out in folds
    ]
    share = np.ones(labels.shape) if weights is None else weights
    rows = np.arange(labels.shape[0])
    maps, lowest, converged = [identity] * len(folds), math.inf, True
    best, best_outputs = strengths[0], logits
    for strength in strengths:
        outputs = np.empty_like(logits)
        proposed = []
        for objective, start, left_out in zip(objectives, maps, folds, strict=True):
            fitted, reached = _minimise(objective, start, strength)
            converged &= reached
            proposed.append(fitted)
            held = order[left_out]
            outputs[held] = _stage(fitted, scale).apply(logits[held])
        loss = -float(share @ log_softmax(outputs)[rows, labels])
        if loss >= lowest:
            break  # weaker priors are worse still
        maps, lowest, best, best_outputs = proposed, loss, strength, outputs
    start = np.mean([w for w, _ in maps], axis=0), np.mean([b for _, b in maps], axis=0)
    objective = LinearObjective(x, sorted_labels, sorted_weights, full=full, masked=masked)
    fitted, reached = _minimise(objective, start, best)
    return LinearCrossFit(_stage(fitted, scale), best, best_outputs, converged and reached)


def fit_linear_stage(
    logits: Logits,  # (n, k) float32
    labels: Labels,  # (n,) int64
    weights: Array | None = None,  # (n,), only their ratios matter
    *,
    full: bool,  # a matrix rather than its diagonal
    strength: float = 1.0,
) -> LinearFit:
    """Minimise the objective with one strength, from the single temperature."""
    x, scale = _features(logits, labels, weights)
    objective = LinearObjective(x, labels, weights, full=full, masked=_masked(logits))
    fitted, converged = _minimise(objective, _identity(logits.shape[1], full=full), strength)
    return LinearFit(_stage(fitted, scale), converged)


def _features(logits: Logits, labels: Labels, weights: Array | None) -> tuple[NDArray[Any], float]:
    """Features x of shape (k, n), and β, the single inverse temperature."""
    # `smart` with one interval: unlike maximum likelihood, it also works for sets without errors.
    slopes = fit_log_slopes(logits, labels, weights, n_intervals=1).log_slopes
    scale = math.exp(float(slopes[0]))
    n, k = logits.shape
    x = np.empty((k, n), dtype=np.float64 if logits.size <= LARGE else np.float32)
    step = max(1, CHUNK // k)
    for start in range(0, n, step):
        rows = slice(start, start + step)
        x[:, rows] = (scale * centred(logits[rows])).T
    return x, scale


def _masked(logits: Logits) -> NDArray[np.bool_] | None:
    """Masked classes, (k, n); None if there are none."""
    return np.ascontiguousarray(np.isneginf(logits).T) if is_masked(logits) else None


def _without(weights: Array | None, left_out: slice) -> Array | None:
    """Weights for a fit without these rows; equal ones if only these have any."""
    if weights is None or weights[: left_out.start].any() or weights[left_out.stop :].any():
        return weights
    return None


def _identity(k: int, *, full: bool) -> Map:
    return (np.eye(k) if full else np.ones(k)), np.zeros(k)


def _minimise(objective: LinearObjective, start: Map, strength: float) -> tuple[Map, bool]:
    """W and b on the features, and whether L-BFGS converged."""
    if math.isinf(strength):
        return start, True
    objective.shrink(strength)
    best, converged = minimise_convex(
        objective,
        objective.pack(*start),
        max_steps=MAX_STEPS,
        tolerance=TOLERANCE,
        precondition=objective.precondition,
    )
    return objective.unpack(best), converged


def _stage(fitted: Map, scale: float) -> LinearStage:
    weights, bias = fitted
    return LinearStage(tuple((scale * weights).ravel().tolist()), tuple(bias.tolist()))
