"""Shift ratio of traffic without labels: PSI divided by its value under no shift.

The bins lie between quantiles of the calibration split (`Baseline`). Live values are counted in
them, and the population stability index is

    PSI = Σ_b (a_b − e_b)·log(a_b / e_b)

for live shares a and reference shares e: the Kullback–Leibler divergences of both directions,
added. Without a shift it is about (1/n + 1/m)·χ² with B − 1 degrees of freedom, for n live rows, m
reference rows and B bins, so the *ratio*

    PSI / ((B − 1)·(1/n + 1/m))

has mean 1. With 10 bins it exceeds 1.9 in 1 of 20 looks and 3.1 in 1 of 1000, whatever n and m are.
(The usual limits 0.1 and 0.25 on PSI itself mean something different at every n.)

**What it means**: the traffic is unlike the calibration split. It does not mean that calibration is
lost: shifted traffic may be perfectly calibrated, and calibration may be lost without a shift of
the gaps. It is not a sequential test: of a thousand looks without a shift, one exceeds 3.1. Rows
are assumed to be independent; a stream of similar frames shifts for a while, which means nothing.
If n is much larger than m the ratio shows even tiny differences, as every test does: look at PSI
too.

References
----------
Yurdakul, "Statistical properties of population stability index", Western Michigan University
(2018): the χ² limit and its mean. Lewis, "An introduction to credit
scoring" (1994), for 0.1 and 0.25.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.errors import InvalidInput

__all__ = ["ReferenceBins"]

Array = NDArray[np.float64]
N_BINS: Final = 10
PSEUDO: Final = 0.5  # added to every live count, because the PSI of an empty bin is infinite


@dataclass(frozen=True, eq=False)
class ReferenceBins:
    """Bins between quantiles of a reference sample.

    Attributes
    ----------
    edges : ndarray of shape (b − 1,), float64
        Inner edges, ascending; bins are right-closed.
    shares : ndarray of shape (b,), float64
        Share of the reference sample in each bin; positive.
    n : float
        Number of rows of the reference sample.
    """

    edges: Array
    shares: Array
    n: float

    @classmethod
    def of_percentiles(cls, percentiles: ArrayLike, n: float) -> ReferenceBins:
        """Bins from the percentiles of a `Baseline`: ten, or fewer where values are tied.

        Parameters
        ----------
        percentiles : array_like of shape (101,)
            Quantiles 0, 0.01, …, 1, each a value that occurred.
        n : float
            Number of rows that the percentiles were computed from.

        Returns
        -------
        ReferenceBins

        Raises
        ------
        InvalidInput
            The percentiles are not 101 finite ascending numbers, or n is below 1.
        """
        q = np.asarray(percentiles, dtype=np.float64)
        if q.shape != (101,) or not np.isfinite(q).all() or (np.diff(q) < 0.0).any():
            raise InvalidInput(
                f"percentiles must be 101 finite ascending numbers, got shape {q.shape}",
                field="percentiles",
            )
        if not n >= 1.0:
            raise InvalidInput(f"n must be at least 1, got {n}", field="n")
        edges = np.unique(q[10:100:10])
        edges = edges[edges < q[-1]]  # no value lies above the last one
        # Percentile j is the ⌈jn/100⌉-th of n values, so ⌈jn/100⌉ values are at most that.
        last = np.searchsorted(q, edges, side="right") - 1
        below = np.ceil(last * n / 100.0 - 1e-9) / n
        shares = np.diff(below, prepend=0.0, append=1.0)
        filled = shares > 0.0  # with fewer than ten rows, two deciles may be the same value
        return cls(edges[filled[:-1]], shares[filled], float(n))

    @classmethod
    def of_values(cls, values: ArrayLike) -> ReferenceBins:
        """Bins between the deciles of at least one finite value."""
        array = np.sort(np.asarray(values, dtype=np.float64))
        edges = np.unique(np.quantile(array, np.arange(1, N_BINS) / N_BINS, method="inverted_cdf"))
        edges = edges[edges < array[-1]]
        below = np.searchsorted(array, edges, side="right")
        return cls(edges, np.diff(below, prepend=0, append=array.size) / array.size, array.size)

    @property
    def limit(self) -> float:
        """What `psi_ratio` exceeds in 1 of 1000 looks without a shift; infinite with one bin."""
        d = self.shares.shape[0] - 1
        if d == 0:
            return math.inf
        spread = 2.0 / (9.0 * d)  # Wilson and Hilferty (1931): the cube root of χ²/d is normal
        return float((1.0 - spread + 3.0902 * math.sqrt(spread)) ** 3)

    def counts(self, values: ArrayLike) -> NDArray[np.int64]:
        """Number of values in each bin, of shape (b,); counts of several calls may be added."""
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 1 or np.isnan(array).any():
            raise InvalidInput(
                f"values must have shape (n,) without NaN, got shape {array.shape}", field="values"
            )
        index = np.searchsorted(self.edges, array, side="left")
        return np.bincount(index, minlength=self.shares.shape[0]).astype(np.int64)

    def psi(self, counts: ArrayLike) -> float:
        """Population stability index, in nats; NaN without rows.

        Parameters
        ----------
        counts : array_like of shape (b,)
            Results of `counts`, added.
        """
        c = self._checked(counts)
        total = float(c.sum())
        if total == 0.0:
            return math.nan
        live = (c + PSEUDO) / (total + PSEUDO * c.shape[0])
        return float(np.sum((live - self.shares) * np.log(live / self.shares)))

    def psi_ratio(self, counts: ArrayLike) -> float:
        """PSI divided by its mean without a shift; NaN without rows or with a single bin."""
        c = self._checked(counts)
        total = float(c.sum())
        if total == 0.0 or c.shape[0] < 2:
            return math.nan
        expected: float = (c.shape[0] - 1) * (1.0 / total + 1.0 / self.n)
        return self.psi(c) / expected

    def _checked(self, counts: ArrayLike) -> Array:
        array: Array = np.asarray(counts, dtype=np.float64)
        if array.shape != self.shares.shape or not (array >= 0.0).all():
            raise InvalidInput(
                f"counts must be at least 0, of shape {self.shares.shape}, got {array.shape}",
                field="counts",
            )
        return array
