"""Fit of a linear stage: maximum likelihood with priors towards a single temperature.

With β the single inverse temperature of the set and x the centred logits times β,

    y = (1 + δ)·x + a∘x + M x + b,   M with a diagonal of zero (absent from the vector version)

    Σ NLL + s²·(common·δ² + diagonal·Σ a_j² + off_diagonal·k·Σ M_ij²) + bias·Σ b_j²

s² is the mean square of x, so every strength is in nats of the summed log likelihood for a change
of the output by about one nat, at any scale of the logits. Shrinking the entries off the diagonal
most and the common temperature least follows structured matrix scaling (Berta et al. 2025,
arXiv:2511.03685, package probmetrics); the strengths are ours.

The objective is strictly convex. L-BFGS minimises it in coordinates in which all priors are ½t²,
which also conditions it. The bias prior keeps the bias of a class without rows finite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, is_masked
from trueprob.calibrators.linear.lbfgs import minimise_convex
from trueprob.calibrators.linear.stage import CHUNK, LinearStage, centred
from trueprob.calibrators.smart.fit import fit_log_slopes

__all__ = ["LinearFit", "LinearObjective", "fit_linear_stage"]

MAX_STEPS: Final = 500
# Relative decrease of the mean objective at which L-BFGS stops. The error on held-out rows is
# then about 1e-5 nats, a hundredth of the standard error of 5 000 rows.
TOLERANCE: Final = 1e-8

# Strengths of the priors, in nats of the summed log likelihood.
COMMON: Final = 0.1
DIAGONAL: Final = 1.0
BIAS: Final = 1.0
OFF_DIAGONAL: Final = 1.0  # times k: each output has k − 1 of them

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LinearFit:
    """A linear stage, and whether L-BFGS converged."""

    stage: LinearStage
    converged: bool


class LinearObjective:
    """Mean objective and its gradient at whitened parameters t."""

    def __init__(
        self,
        logits: Logits,  # (n, k) float32
        labels: Labels,  # (n,) int64
        weights: Array | None,  # (n,)
        scale: float,  # β, the single inverse temperature
        *,
        full: bool,  # a matrix rather than its diagonal
    ) -> None:
        n, k = logits.shape
        self.logits, self.labels, self.full, self.scale = logits, labels, full, scale
        self.share = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
        self.n = n
        self.masked = np.isneginf(logits) if is_masked(logits) else None
        square = sum(
            float(self.share[rows] @ np.square(self._features(rows)).mean(axis=1))
            for rows in self._blocks()
        )
        spread = (
            math.sqrt(square) if square > 0.0 else 1.0
        )  # rows are constant, so W does not matter
        unit = np.ones(k)
        penalty = [
            np.array([COMMON * spread**2]),
            unit * DIAGONAL * spread**2,
            unit * BIAS,
        ]
        if full:
            penalty.append(np.ones(k * k) * OFF_DIAGONAL * k * spread**2)
        self.whitening = 1.0 / np.sqrt(2.0 * np.concatenate(penalty))
        self.size = self.whitening.shape[0]

    def _blocks(self) -> list[slice]:
        step = max(1, CHUNK // self.logits.shape[1])
        return [slice(start, start + step) for start in range(0, self.n, step)]

    def _features(self, rows: slice) -> Array:
        return self.scale * centred(self.logits[rows])

    def unpack(self, t: Array) -> tuple[Array, Array]:
        """W on the features x (a diagonal, or a matrix whose row j gives y_j) and b."""
        k = self.logits.shape[1]
        values = t * self.whitening
        diagonal = 1.0 + values[0] + values[1 : k + 1]
        bias = values[k + 1 : 2 * k + 1]
        if not self.full:
            return diagonal, bias
        matrix = values[2 * k + 1 :].reshape(k, k).copy()
        np.fill_diagonal(matrix, diagonal)
        return matrix, bias

    def pack(self, stage: LinearStage) -> Array:
        """Whitened parameters of a stage, the inverse of `unpack`."""
        k = self.logits.shape[1]
        linear = np.array(stage.weights) / self.scale
        matrix = linear.reshape(k, k) if self.full else None
        diagonal = (linear if matrix is None else np.diag(matrix)) - 1.0
        common = diagonal.mean()
        parts = [np.array([common]), diagonal - common, np.array(stage.bias)]
        if matrix is not None:
            parts.append((matrix - np.diag(np.diag(matrix))).ravel())
        t: Array = np.concatenate(parts) / self.whitening
        return t

    def __call__(self, t: Array) -> tuple[float, Array]:
        """Mean penalised NLL and its gradient."""
        k = self.logits.shape[1]
        linear, bias = self.unpack(t)
        value = 0.0
        by_bias = np.zeros(k)
        by_linear = np.zeros(linear.shape)
        for rows in self._blocks():
            x, labels, share = self._features(rows), self.labels[rows], self.share[rows]
            y = (x @ linear.T if self.full else x * linear) + bias
            if self.masked is not None:
                y[self.masked[rows]] = -np.inf
            y -= y.max(axis=1, keepdims=True)
            index = np.arange(labels.shape[0])
            chosen = y[index, labels]
            with np.errstate(under="ignore"):
                np.exp(y, out=y)
            total = y.sum(axis=1)
            value += float(share @ (np.log(total) - chosen))
            y *= (share / total)[:, None]
            y[index, labels] -= share
            by_bias += y.sum(axis=0)
            by_linear += y.T @ x if self.full else np.einsum("ij,ij->j", y, x)
        diagonal = np.diag(by_linear) if self.full else by_linear
        parts = [np.array([diagonal.sum()]), diagonal, by_bias]
        if self.full:
            off = by_linear.copy()
            np.fill_diagonal(off, 0.0)
            parts.append(off.ravel())
        gradient = np.concatenate(parts) * self.whitening
        return value + 0.5 * float(t @ t) / self.n, gradient + t / self.n


def fit_linear_stage(
    logits: Logits,  # (n, k) float32
    labels: Labels,  # (n,) int64
    weights: Array | None = None,  # (n,), only their ratios matter
    *,
    full: bool,  # a matrix rather than its diagonal
    start: LinearStage | None = None,  # saves steps; the minimum is unique
) -> LinearFit:
    """Minimise the objective, from the single temperature or from a given stage."""
    # `smart` with one interval: unlike maximum likelihood, it also works for sets without errors.
    scale = math.exp(float(fit_log_slopes(logits, labels, weights, n_intervals=1).log_slopes[0]))
    objective = LinearObjective(logits, labels, weights, scale, full=full)
    best, converged = minimise_convex(
        objective,
        np.zeros(objective.size) if start is None else objective.pack(start),
        max_steps=MAX_STEPS,
        tolerance=TOLERANCE,
    )
    linear, bias = objective.unpack(best)
    stage = LinearStage(tuple(map(float, (scale * linear).ravel())), tuple(map(float, bias)))
    return LinearFit(stage, converged)
