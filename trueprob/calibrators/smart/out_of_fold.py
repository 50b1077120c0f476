"""Out-of-fold confidences of `smart`'s first stage, at the price of one pass over the logits.

Each fold's refit starts at the fit on all rows and ends close to it, so the logits are not read
again: with L(β), L′ and L″ of each row at its fitted β₀, L is continued as

    L(β) ≈ L(β₀) + L′·(β − β₀) + ½·L″·(β − β₀)²

and a step of a refit costs O(n), whatever the number of classes. L is nearly linear wherever one
class is far ahead of the others, and exactly so for two classes. The edges of the gap's
intervals, which come from the logits alone, are those of all rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators.smart.fit import LogSlopes, minimise
from trueprob.calibrators.smart.objective import GapObjective

__all__ = ["out_of_fold_logit"]

Array = NDArray[np.float64]


class _ContinuedObjective(GapObjective):
    """The objective of some of the rows, by the continuation of their moments."""

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


def out_of_fold_logit(
    solution: LogSlopes, fold: NDArray[np.int64], *, uniform_weight: float, n_classes: int
) -> Array:
    """Logit of each row's confidence by slopes that were fitted without its fold.

    Returns: log c − log(1 − c), in nats; 1 − c is never formed by subtraction.
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
    log_rest, _, _ = _continued(held_out_beta - beta, moments)  # over the top class's exponential
    log_top = -np.logaddexp(0.0, log_rest)
    with np.errstate(under="ignore", divide="ignore"):
        # log 0 = −∞ without a mixture, which adds nothing
        even = np.log(np.array([1.0, n_classes - 1.0]) * uniform_weight / n_classes)
        kept = np.log1p(-uniform_weight)
        top = np.logaddexp(kept + log_top, even[0])
        rest = np.logaddexp(kept + log_top + log_rest, even[1])
    return np.asarray(top - rest)


def _continued(distance: Array, moments: Array) -> tuple[Array, Array, Array]:
    log_rest, first, second = moments
    return (
        log_rest + distance * (first + 0.5 * distance * second),
        first + distance * second,
        second,
    )
