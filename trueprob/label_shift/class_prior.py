"""The class prior of unlabelled rows, estimated by EM from calibrated probabilities.

Label shift means that P(class) changes and P(row | class) does not. Then the posterior under a new
prior π̂ is p_c·π̂_c/π_c, normalised (Saerens, Latinne, Decaestecker 2002, eq. 2.4), where π is the
prior that p goes with, and the likelihood of the rows has its maximum in π̂ where EM ends (eq. 2.9):

    r_ic ← p_ic·ρ_c / Σ_j p_ij·ρ_j,   π̂_c ← (Σ_i r_ic + a·π_c) / (m + a),   ρ_c = π̂_c/π_c

The log-likelihood is concave, so the start does not matter. Two things are added to the paper:

- a = k/2 pseudo-rows with the old mix. Plain maximum likelihood (a = 0) sets classes that few of m
  rows hint at to 0, and the first row that does have such a class then costs dozens of nats.
- Fixed classes keep their share, since nothing is known about them: those without a labelled row.

Probabilities must be right for each class (class-wise calibrated), and π must be their mean over
rows of the old mix (Alexandari, Kundaje, Shrikumar 2020, arXiv:1901.06852): then rows without a
shift are a fixed point, even where the calibration is a little off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.array_types import plain_array
from trueprob.errors import InvalidInput

__all__ = [
    "PriorEstimate",
    "adapt_to_class_prior",
    "as_probabilities",
    "estimate_class_prior",
    "ratios_by_em",
    "scaled_rows",
]

PSEUDO_ROWS: Final = 0.5  # for each class
TOLERANCE: Final = 1e-5  # change of the shares in one step, summed over classes
MOST_STEPS: Final = 1_000
SUM_TOLERANCE: Final = 1e-3  # of the sum of a row or of a prior: rounded numbers are accepted

Array = NDArray[np.float64]


@dataclass(frozen=True)
class PriorEstimate:
    """A class prior that EM found.

    Attributes
    ----------
    source : ndarray of shape (k,), float64
        π, the mix of classes that the probabilities go with.
    target : ndarray of shape (k,), float64
        π̂, the estimated mix of the unlabelled rows. Sums to one.
    ratio : ndarray of shape (k,), float64
        π̂_c/π_c; positive. Its value is 1 for a class that neither mix has.
    iterations : int
        Steps of EM.
    converged : bool
        Whether the last step changed the shares by less than 1e-5 in all.
    """

    source: Array
    target: Array
    ratio: Array
    iterations: int
    converged: bool

    @property
    def distance(self) -> float:
        """KL divergence of the new mix from the old one, Σ π̂ log(π̂/π), in nats."""
        return float(self.target @ np.log(self.ratio))

    def adapt(self, probabilities: ArrayLike) -> Array:
        """Probabilities for the new mix, p_c·π̂_c/π_c normalised; see `adapt_to_class_prior`."""
        return scaled_rows(as_probabilities(probabilities, k=self.source.size), self.ratio)


def estimate_class_prior(
    probabilities: ArrayLike, source: ArrayLike, *, fixed: ArrayLike | None = None
) -> PriorEstimate:
    """Estimate the class prior of unlabelled rows by EM.

    Parameters
    ----------
    probabilities : array_like of shape (m, k)
        Of unlabelled rows, calibrated for each class.
    source : array_like of shape (k,)
        π: mean of the same calibrator's probabilities over rows of the old mix. Positive, except
        for fixed classes; sums to one.
    fixed : array_like of shape (k,), bool, optional
        Classes that keep their share; default: those whose `source` is 0.

    Returns
    -------
    PriorEstimate

    Raises
    ------
    InvalidInput
        Shapes do not match, a row or `source` is no distribution, or a class has share 0 and is
        not fixed.

    References
    ----------
    Saerens, Latinne, Decaestecker, Neural Computation 14 (2002), eq. 2.9.
    """
    p = as_probabilities(probabilities)
    k = p.shape[1]
    prior = _as_prior(source, "source", k=k)
    kept = prior == 0.0 if fixed is None else np.asarray(fixed)
    if kept.shape != (k,) or kept.dtype != np.bool_:
        raise InvalidInput(
            f"fixed must be booleans of shape ({k},), got {kept.dtype} of shape {kept.shape}",
            field="fixed",
        )
    if (prior[~kept] == 0.0).any():
        raise InvalidInput(
            "source must be positive for every class that is not fixed: a class that the old mix "
            "never has cannot be reweighted",
            field="source",
        )
    ones = np.ones((k, 1))
    ratio, steps, converged = ratios_by_em(p, np.ones((len(p), 1)), prior[:, None], ones, kept)
    return PriorEstimate(prior, prior * ratio[:, 0], ratio[:, 0], steps, converged)


def adapt_to_class_prior(probabilities: ArrayLike, source: ArrayLike, target: ArrayLike) -> Array:
    """Adapt probabilities from one mix of classes to another, p_c·π̂_c/π_c normalised.

    Parameters
    ----------
    probabilities : array_like of shape (n, k)
        Calibrated for each class under the mix `source`.
    source, target : array_like of shape (k,)
        π and π̂; each sums to one. `target` is 0 wherever `source` is 0.

    Returns
    -------
    ndarray of shape (n, k), float64
        Rows sum to one. The prediction may be another class than before.

    Raises
    ------
    InvalidInput
        Shapes do not match, something is no distribution, `target` has a class that `source` has
        not, or a row has only classes that `target` has not.

    References
    ----------
    Saerens, Latinne, Decaestecker, Neural Computation 14 (2002), eq. 2.4.
    """
    p = as_probabilities(probabilities)
    old, new = (
        _as_prior(each, name, k=p.shape[1])
        for each, name in ((source, "source"), (target, "target"))
    )
    if (new[old == 0.0] > 0.0).any():
        raise InvalidInput(
            "target must be 0 where source is 0: a class that the old mix never has cannot be "
            "reweighted",
            field="target",
        )
    ratio = np.divide(new, old, out=np.ones_like(new), where=old > 0.0)
    if not (p @ ratio > 0.0).all():
        raise InvalidInput(
            "target must leave every row a class: a row has only classes whose target is 0",
            field="target",
        )
    return scaled_rows(p, ratio)


def ratios_by_em(
    p: Array,  # (n, k), rows that sum to one
    weights: Array,  # (n, B): one EM for each column of row weights
    source: Array,  # (k, B), π
    start: Array,  # (k, B), ρ to start at; positive
    fixed: NDArray[np.bool_],  # (k,), classes with ρ = 1
) -> tuple[Array, int, bool]:
    """π̂/π of each column, the steps of the slowest, and whether all converged."""
    ratio = np.where(fixed[:, None], 1.0, start)
    pseudo = PSEUDO_ROWS * p.shape[1]
    room = 1.0 - source[fixed].sum(axis=0)  # the share of the classes that are not fixed
    divisor = np.where(source > 0.0, source, 1.0)
    open_columns = np.arange(weights.shape[1])
    step = 0
    while open_columns.size and step < MOST_STEPS:
        step += 1
        old, prior = ratio[:, open_columns], source[:, open_columns]
        # ρ > 0, so a row with any probability has a positive denominator.
        rows = p.T @ (weights[:, open_columns] / (p @ old)) * old + pseudo * prior
        free = np.where(fixed[:, None], 0.0, rows)
        total = np.maximum(free.sum(axis=0), np.finfo(np.float64).tiny)
        new = free * (room[open_columns] / total) / divisor[:, open_columns]
        new[fixed] = 1.0
        ratio[:, open_columns] = new
        moved = (np.abs(new - old) * prior).sum(axis=0)
        open_columns = open_columns[moved >= TOLERANCE]
    return ratio, step, not open_columns.size


def scaled_rows(p: Array, ratio: Array) -> Array:
    """p_c·ρ_c, normalised."""
    scaled = p * ratio
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


def as_probabilities(
    values: ArrayLike, *, k: int | None = None, name: str = "probabilities"
) -> Array:
    """Rows of probabilities as float64 that sum to one; InvalidInput otherwise."""
    p = plain_array(values, name)
    expected = "k" if k is None else k
    if p.ndim != 2 or p.shape[0] < 1 or p.shape[1] < 2 or k not in (None, p.shape[1]):
        raise InvalidInput(f"{name} must have shape (n, {expected}), got {p.shape}", field=name)
    if p.dtype.kind != "f":
        raise InvalidInput(f"{name} must be floats, got {p.dtype}", field=name)
    result: Array = p.astype(np.float64)
    total = result.sum(axis=1, keepdims=True)
    if not (result >= 0.0).all() or not (np.abs(total - 1.0) <= SUM_TOLERANCE).all():
        raise InvalidInput(
            f"{name} must not be negative, and each row must sum to 1: give probabilities, "
            "not logits",
            field=name,
        )
    result /= total
    return result


def _as_prior(values: ArrayLike, name: str, *, k: int) -> Array:
    prior: Any = np.asarray(values)
    if prior.shape != (k,) or prior.dtype.kind not in "fiu":
        raise InvalidInput(f"{name} must be numbers of shape ({k},), got {prior.shape}", field=name)
    shares: Array = prior.astype(np.float64)
    if not (shares >= 0.0).all() or not abs(shares.sum() - 1.0) <= SUM_TOLERANCE:
        raise InvalidInput(f"{name} must not be negative, and must sum to 1", field=name)
    shares /= shares.sum()
    return shares
