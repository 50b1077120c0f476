"""Deterministic folds for cross-fitting, balanced in errors, with groups and copies kept whole.

A copied row that is in two folds is both fitted on and held out, so cross-validation prefers the
method that remembers best. Equal rows of *coarse* scores are no copies: a forest of 20 trees says
0.35 for many different inputs, and grouping them would make every fold extrapolate. So equal rows
count as copies only when nearly all distinct rows occur once and the scores lie on no grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.logit_functions import Logits
from trueprob.arrays.weights_and_groups import Groups

__all__ = ["EqualRows", "equal_rows", "fold_groups", "fold_of_rows", "probability_grid"]

SINGLE: Final = 0.95  # least share of the distinct rows that occur once
FINEST_GRID: Final = 1_000  # probabilities of three decimals, forests of 1 000 trees
GRID_ROWS: Final = 300  # looked at for a grid
LEAST_GRID_ROWS: Final = 20  # of them must be uncertain
ROUNDING: Final = 2e-3  # of a probability times the grid, from float32 logarithms
CERTAIN: Final = 1.0 - 0.5 / FINEST_GRID  # a probability of 1 lies on every grid


@dataclass(frozen=True, eq=False)
class EqualRows:
    """The distinct rows of a set.

    Attributes
    ----------
    row : ndarray of shape (n,), int64
        The number of each row's distinct row.
    sizes : ndarray of shape (m,), int64
        How often each of the m distinct rows occurs.
    """

    row: NDArray[np.int64]
    sizes: NDArray[np.int64]


def equal_rows(logits: Logits) -> EqualRows:
    """Find rows whose logits are equal to the bit."""
    # Equal rows have equal sums; the odd factors make equal sums of different rows unlikely.
    factors = np.random.default_rng(0).integers(1, 1 << 62, logits.shape[1], dtype=np.uint64)
    bits = np.ascontiguousarray(logits).view(np.uint32)
    sums = np.einsum("ij,j->i", bits, factors * np.uint64(2) + np.uint64(1), dtype=np.uint64)
    _, row, sizes = np.unique(sums, return_inverse=True, return_counts=True)
    return EqualRows(row.astype(np.int64, copy=False), sizes.astype(np.int64, copy=False))


def fold_groups(logits: Logits, groups: Groups | None) -> Groups | None:
    """The groups that are given, otherwise one for each row and its copies; None without copies."""
    if groups is not None:
        return groups
    found = equal_rows(logits)
    n, distinct = logits.shape[0], found.sizes.size
    if distinct == n or np.count_nonzero(found.sizes == 1) < SINGLE * distinct:
        return None
    return None if probability_grid(logits) is not None else found.row


def probability_grid(logits: Logits) -> int | None:
    """The smallest m for which the largest probabilities are multiples of 1/m; None without one.

    Only logarithms of probabilities can lie on a grid.
    """
    step = -(-logits.shape[0] // GRID_ROWS)
    rows = logits[::step].astype(np.float64)
    top = rows.max(axis=1)
    if top.max() > 1e-3:
        return None
    with np.errstate(under="ignore"):
        sums = np.exp(rows).sum(axis=1)
    # Rounded probabilities need not sum to one: half a step for each class.
    if np.median(np.abs(sums - 1.0)) > 0.05:
        return None
    uncertain = np.exp(top[top < np.log(CERTAIN)])
    if uncertain.size < LEAST_GRID_ROWS:
        return None
    multiples = uncertain[:, None] * np.arange(2, FINEST_GRID + 1)
    fits = (np.abs(multiples - np.round(multiples)) < ROUNDING).mean(axis=0) >= SINGLE
    return int(np.argmax(fits)) + 2 if fits.any() else None


def fold_of_rows(
    correct: NDArray[np.bool_],  # (n,); errors are rare and carry the information
    groups: Groups | None,  # (n,), rows of one group go to one fold
    n_folds: int,  # at least 2; lowered to the number of rows or groups
    *,
    seed: int,
) -> NDArray[np.int64]:
    """The fold of each row, 0 … n_folds − 1; all 0 when there is only one row or group."""
    generator = np.random.default_rng(seed)
    n = correct.shape[0]
    if groups is None:
        order = generator.permutation(n)
        order = order[np.argsort(correct[order], kind="stable")]  # errors first, then the rest
        fold = np.empty(n, dtype=np.int64)
        fold[order] = np.arange(n) % max(1, min(n_folds, n))
        return fold
    _, member = np.unique(groups, return_inverse=True)
    sizes = np.bincount(member)
    errors = np.bincount(member, weights=~correct)
    folds = max(1, min(n_folds, sizes.shape[0]))
    order = generator.permutation(sizes.shape[0])
    order = order[np.lexsort((-sizes[order], -errors[order]))]
    loads = np.zeros((folds, 2))
    of_group = np.empty(sizes.shape[0], dtype=np.int64)
    scale = np.array([1.0 / max(errors.sum(), 1.0), 1.0 / n])
    for group in order:  # largest first, each to the smallest fold so far
        target = int(np.argmin((loads * scale).sum(axis=1)))
        of_group[group] = target
        loads[target] += (errors[group], sizes[group])
    result: NDArray[np.int64] = of_group[member]
    return result
