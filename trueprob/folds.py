"""Deterministic folds for cross-fitting, balanced in errors, with groups kept whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.weights_and_groups import Groups

__all__ = ["fold_of_rows"]


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
