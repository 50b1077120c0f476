"""Rows that are copies of each other: which they are, and when they must share a fold.

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

__all__ = ["EqualRows", "equal_rows", "groups_of_copies", "probability_grid"]

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


def groups_of_copies(logits: Logits) -> NDArray[np.int64] | None:
    """A group for each row, in which copies are together; None where there are no copies."""
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
