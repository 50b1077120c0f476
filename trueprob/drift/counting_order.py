"""The order in which the labels of a request are counted, and the rows that count as one.

The guarantees of the betting tests hold for labels *in the order of counting*. Three rules protect
them:

- **Order.** Rows are counted in the order of keys that the caller gives: a keyed hash (HMAC) of
  something that was drawn before the outcome was known, such as the nonce of a receipt. The order
  of a client may depend on the outcome (a report sorted by "wrong" and "right"), and then even a
  perfectly calibrated stream shows changes. Keep the key secret: with it, a client could sort its
  rows by their outcome.
- **Groups.** Outcomes that may be copies of one another (frames of a video, retries, one picture
  sent twice) have one group key. The rows of a group in one call make one factor, the mean of
  theirs: a mean of e-values is an e-value, whatever their dependence. The group is counted at the
  place of its first row.
- **Repeats.** Rows whose group was counted in an earlier call are left out; `repeated` marks them.
  The state does not store groups, so the caller must.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.weights_and_groups import as_groups
from trueprob.errors import InvalidInput

__all__ = ["ClassRows", "CountingOrder", "Factors", "OrderKeys"]

Array = NDArray[np.float64]
OrderKeys = Sequence[bytes] | ArrayLike


@dataclass(frozen=True, eq=False)
class ClassRows:
    """Counted rows with the classes that were predicted, for the bets on single classes.

    Attributes
    ----------
    n_classes : int
    of_unit : ndarray of shape (n_units,), int64
        Predicted class of each unit's first row.
    values : ndarray of shape (n_class_bets, n_units), float64
        Factors of the bets on the class of each unit.
    p, y : ndarray of shape (n_rows,), float64
        Confidence and outcome of the rows, unit after unit.
    starts : ndarray of shape (n_units,), int64
        Where each unit begins in `p` and `y`.
    tolerance : float
    """

    n_classes: int
    of_unit: NDArray[np.int64]
    values: Array
    p: Array
    y: Array
    starts: NDArray[np.int64]
    tolerance: float

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Rows of each unit."""
        return np.diff(self.starts, append=self.p.shape[0])

    def unit_means(self, values: Array) -> Array:
        """Means of values of rows over each unit."""
        if self.starts.shape[0] == self.p.shape[0]:
            return values
        return np.asarray(np.add.reduceat(values, self.starts) / self.sizes)


@dataclass(frozen=True, eq=False)
class Factors:
    """Factors that multiply the wealth of each bet, one for each unit, in the order of counting.

    Attributes
    ----------
    mixture : str
        Name of the mixture of bets that computed them.
    values : ndarray of shape (n_bets, n_units), float64
        Positive; under the null hypothesis their conditional mean is at most 1.
    classes : ClassRows or None
        For mixtures that bet on single classes.
    """

    mixture: str
    values: Array
    classes: ClassRows | None = None

    @property
    def n_units(self) -> int:
        """Number of units: rows, or groups of rows."""
        return int(self.values.shape[1])


@dataclass(frozen=True, eq=False)
class CountingOrder:
    """Rows in the order of counting, and the unit that each belongs to."""

    rows: NDArray[np.int64]  # indices of the counted rows, unit after unit
    starts: NDArray[np.int64]  # where each unit begins in `rows`

    @classmethod
    def of(
        cls,
        n_rows: int,
        *,
        order: OrderKeys | None = None,
        groups: ArrayLike | None = None,
        repeated: ArrayLike | None = None,
    ) -> CountingOrder:
        """The order of these rows; see the module's docstring for the arguments.

        Raises InvalidInput if a shape or a type is wrong, or if two rows have the same key.
        """
        rows = np.arange(n_rows) if order is None else _ascending(order, n_rows)
        if repeated is not None:
            left_out = np.asarray(repeated)
            if left_out.shape != (n_rows,) or left_out.dtype != np.bool_:
                raise InvalidInput(
                    f"repeated must be bool of shape ({n_rows},), "
                    f"got {left_out.dtype} of shape {left_out.shape}",
                    field="repeated",
                )
            rows = rows[~left_out[rows]]
        if groups is None:
            return cls(rows, np.arange(rows.shape[0]))
        keys = as_groups(groups, n_rows=n_rows)[rows]
        _, first, unit = np.unique(keys, return_index=True, return_inverse=True)
        position = first[unit]  # where the first row of its unit is counted
        by_unit = np.argsort(position, kind="stable")
        return cls(rows[by_unit], np.flatnonzero(np.diff(position[by_unit], prepend=-1)))

    def mean_factors(self, values: Array) -> Array:
        """Means over the rows of each unit: (n_bets, n_rows) → (n_bets, n_units)."""
        if self.starts.shape[0] == self.rows.shape[0]:
            return values
        counts = np.diff(self.starts, append=self.rows.shape[0])
        return np.asarray(np.add.reduceat(values, self.starts, axis=1) / counts)


def _ascending(order: OrderKeys, n_rows: int) -> NDArray[np.int64]:
    if isinstance(order, Sequence) and all(isinstance(key, bytes) for key in order):
        # Not as a NumPy array: its bytes lose trailing zeros.
        distinct, n_keys = len(set(order)), len(order)
        rows = np.array(sorted(range(n_keys), key=order.__getitem__), dtype=np.int64)
    else:
        keys = np.asarray(order)
        if keys.dtype.kind not in "iu" or keys.ndim != 1:
            raise InvalidInput(
                f"order must be bytes or integers of shape ({n_rows},), "
                f"got {keys.dtype} of shape {keys.shape}",
                field="order",
            )
        distinct, n_keys = np.unique(keys).shape[0], keys.shape[0]
        rows = np.argsort(keys)
    if n_keys != n_rows:
        raise InvalidInput(f"order must have shape ({n_rows},), got ({n_keys},)", field="order")
    if distinct != n_rows:
        raise InvalidInput(
            f"order must hold {n_rows} distinct keys, got {distinct}: "
            "rows with equal keys would be counted in the client's order",
            field="order",
        )
    return rows
