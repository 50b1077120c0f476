"""Paired bootstrap of sums over rows or groups, as one matrix product.

A statistic that is a function of sums over rows is resampled by resampling the units (rows, or
groups whose rows are not independent): counts (resamples, units) times sums (units, columns).
More than 2 000 units are first merged at random into 2 000: their spread is estimated to 1.6 %
all the same, and the cost no longer depends on n.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_UNITS", "N_RESAMPLES", "resampled_sums", "unit_of_rows"]

N_RESAMPLES: Final = 2_000  # the 90 % and 95 % bounds then move by 0.7 and 0.5 points of level
MAX_UNITS: Final = 2_000
CHUNK: Final = 250  # resamples counted at a time: 4 MB of counts


def unit_of_rows(n: int, groups: NDArray[np.int64] | NDArray[np.str_] | None) -> NDArray[np.int64]:
    """Index of the independent unit of each row."""
    if groups is None:
        return np.arange(n)
    return np.unique(groups, return_inverse=True)[1].astype(np.int64, copy=False)


def resampled_sums(
    columns: NDArray[np.float64], unit: NDArray[np.int64], *, seed: int
) -> NDArray[np.float64]:
    """Sums of columns over resampled units."""
    generator = np.random.default_rng(seed)
    n_units = int(unit.max()) + 1
    if n_units > MAX_UNITS:
        merged = generator.permutation(n_units) % MAX_UNITS
        unit, n_units = merged[unit], MAX_UNITS
    order = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[order], np.arange(n_units))
    sums = np.add.reduceat(columns[order], starts, axis=0)
    result = np.empty((N_RESAMPLES, columns.shape[1]))
    for start in range(0, N_RESAMPLES, CHUNK):
        size = min(CHUNK, N_RESAMPLES - start)
        draws = generator.integers(0, n_units, size=(size, n_units))
        draws += np.arange(size)[:, None] * n_units
        counts = np.bincount(draws.ravel(), minlength=size * n_units).reshape(size, n_units)
        result[start : start + size] = counts @ sums
    return result
