"""Weights and power of a stack, from out-of-fold probabilities.

With p_im the probability of row i's label under member m, t_i one class for each row, and q_im the
probability that m gives to the outcome "the label is t_i" or "it is not", whichever came true, the
weights minimise the objective of `smart`, a mixture in both parts,

    Σ_i [−log Σ_m w_m p_im − 3·log Σ_m w_m q_im] / 4 − Σ_m a_m log w_m

over the simplex, by expectation maximisation (Dempster, Laird and Rubin 1977, J. R. Stat. Soc. B
39:1–38). With r_im = w_m p_im / Σ_l w_l p_il, and s_im the same of q, a step is

    w_m ← (Σ_i (r_im + 3·s_im) / 4 + a_m) / (n + Σ a)

and never raises the objective, which is convex. a_m counts as so many rows in which only m is
right. The power β minimises the sum of NLL + 3·CE of the mixture to that power, and 200·log² β nats.
Weights below 0.02 are dropped, and at most three members remain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Probabilities
from trueprob.calibrators.smart.fit import minimise
from trueprob.calibrators.smart.objective import DEFAULT_TERMS, SmartObjective, Terms
from trueprob.scores.score import SMALLEST

__all__ = ["Mixture", "Outcomes", "em_step", "fit_mixture", "fit_weights"]

MOST_MEMBERS: Final = 3
LEAST_WEIGHT: Final = 0.02
RIDGE: Final = 200.0  # nats of the summed log likelihood, times log² β
POWER_ELEMENTS: Final = 400_000  # of larger sets a sample of rows gives the power
MAX_STEPS: Final = 2_000
TOLERANCE: Final = 1e-7  # nats of the mean objective; a step gains less when EM stops
UNPENALISED: Final = Terms(smoothness=0.0, scale_prior=0.0)
TOP: Final = DEFAULT_TERMS.top_weight

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Outcomes:
    """What each candidate gave to what came true; of several divisions one after another."""

    label: Array  # (m, n), the probability of the label
    top: Array  # (m, n), of "the label is t" or "it is not"
    share: Array  # (n,), weights of the rows, which sum to the number of rows

    @classmethod
    def of(
        cls,
        columns: Sequence[Probabilities],  # of each candidate, (n, k) float32
        labels: Labels,  # (n,)
        share: Array,
    ) -> Outcomes:
        """Read the probabilities; t is the argmax of the candidates' plain mean."""
        rows = np.arange(labels.shape[0])
        mean = columns[0].copy()
        for column in columns[1:]:
            mean += column
        top = mean.argmax(axis=1)
        right = top == labels
        label = np.stack([column[rows, labels].astype(np.float64) for column in columns])
        confidence = np.stack([column[rows, top].astype(np.float64) for column in columns])
        outcome = np.where(right, confidence, 1.0 - confidence)
        return cls(np.maximum(label, SMALLEST), np.maximum(outcome, SMALLEST), share)

    def part(self, members: Sequence[int], rows: NDArray[np.bool_] | None = None) -> Outcomes:
        """Some members and some rows."""
        label, top, share = self.label[list(members)], self.top[list(members)], self.share
        if rows is None:
            return Outcomes(label, top, share)
        return Outcomes(label[:, rows], top[:, rows], share[rows])


@dataclass(frozen=True)
class Mixture:
    """Members of a stack, in the order of the candidates."""

    members: tuple[int, ...]  # indices of candidates, increasing
    weights: tuple[float, ...]
    power: float  # 1 for a single member


def fit_weights(outcomes: Outcomes, pseudo_rows: Array, start: Array | None = None) -> Array:
    """Minimise the objective over the simplex; (m,), positive."""
    size = pseudo_rows.shape[0]
    weights = np.full(size, 1.0 / size) if start is None else start
    if size == 1:
        return weights
    total = float(outcomes.share.sum() + pseudo_rows.sum())
    value = np.inf
    for _ in range(MAX_STEPS):
        new, proposal = em_step(weights, outcomes, pseudo_rows)
        if value - new < TOLERANCE * total:
            break
        value, weights = new, proposal
    return weights


def em_step(weights: Array, outcomes: Outcomes, pseudo_rows: Array) -> tuple[float, Array]:
    """The objective at these weights, in nats of the summed log likelihood, and the next ones."""
    share = outcomes.share
    label, top = weights @ outcomes.label, weights @ outcomes.top
    counted = pseudo_rows > 0.0
    likelihood = float(share @ (np.log(label) + TOP * np.log(top))) / (1.0 + TOP)
    value = -likelihood - float(pseudo_rows[counted] @ np.log(weights[counted]))
    rows = outcomes.label @ (share / label) + TOP * (outcomes.top @ (share / top))
    new = weights * rows / (1.0 + TOP) + pseudo_rows
    # A weight of 0 would stay 0; so small a weight is dropped anyway.
    return value, np.maximum(new / (share.sum() + pseudo_rows.sum()), SMALLEST)


def fit_mixture(
    columns: Sequence[Probabilities],  # out-of-fold, of each candidate, (n, k)
    labels: Labels,  # (n,)
    outcomes: Outcomes,  # of the same candidates and rows
    pseudo_rows: Array,  # (m,), a of each candidate
    rows: NDArray[np.bool_] | None = None,  # (n,), those to fit on
) -> Mixture:
    """Fit weights, drop members, then fit the power."""
    members, start = list(range(len(columns))), None
    while True:
        weights = fit_weights(outcomes.part(members, rows), pseudo_rows[members], start)
        kept = [m for m, w in zip(members, weights, strict=True) if w >= LEAST_WEIGHT]
        if len(kept) == len(members) > MOST_MEMBERS:
            by_weight = sorted(zip(weights, members, strict=True), reverse=True)
            kept = sorted(member for _, member in by_weight[:MOST_MEMBERS])
        if len(kept) == len(members):
            break
        start = weights[[members.index(member) for member in kept]]
        start /= start.sum()
        members = kept
    if len(members) == 1:
        return Mixture((members[0],), (1.0,), 1.0)
    used = np.arange(labels.shape[0]) if rows is None else np.flatnonzero(rows)
    used = used[outcomes.share[used] > 0.0]
    power = _fit_power([columns[m] for m in members], weights, labels, outcomes.share, used)
    return Mixture(tuple(members), tuple(map(float, weights / weights.sum())), power)


def _fit_power(
    columns: list[Probabilities],
    weights: Array,
    labels: Labels,
    share: Array,
    rows: NDArray[np.int64],
) -> float:
    """β of the mixture: the slope of `smart` with one interval, from the slope 1."""
    most = max(POWER_ELEMENTS // columns[0].shape[1], 500)
    total = float(share[rows].sum())  # the ridge counts all rows, also those left out
    if rows.shape[0] > most:
        rows = rows[np.linspace(0, rows.shape[0] - 1, most).astype(np.int64)]
    mixed = np.zeros((rows.shape[0], columns[0].shape[1]), np.float32)
    for column, weight in zip(columns, weights, strict=True):
        mixed += column[rows] * np.float32(weight)
    logarithm = np.log(np.maximum(mixed, np.float32(SMALLEST)))
    power = _PowerObjective(logarithm, labels[rows], share[rows], np.empty(0), UNPENALISED)
    power.ridge = RIDGE / total
    log_power, _ = minimise(power, np.zeros(1))
    return float(np.exp(log_power[0]))


class _PowerObjective(SmartObjective):
    """NLL + 3·CE of the mixture to a power, with the ridge, as a function of log β."""

    ridge: float

    def __call__(self, theta: Array) -> tuple[float, Array, Array]:
        value, gradient, curvature = super().__call__(theta)
        return (
            value + self.ridge * float(theta @ theta),
            gradient + 2.0 * self.ridge * theta,
            curvature + 2.0 * self.ridge,
        )
