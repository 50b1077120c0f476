"""How many labels of a day count: of one API key, and of predictions on one input.

Both bound what a single client, or a single input that is sent again and again, can make of the
statistics. What exceeds is not counted and its receipt stays unused: sent again on another day
within the receipt's time to live, it may still count. Labels of an input are told by its group,
and counted for each promotion by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.control.store import Transaction

__all__ = ["DAY_SECONDS", "LabelCaps"]

DAY_SECONDS: Final = 86_400


@dataclass(frozen=True)
class LabelCaps:
    """The limits.

    Attributes
    ----------
    per_key, per_input : int
        Labels of a model and a day (UTC) that count; 0 for no limit.
    """

    per_key: int
    per_input: int

    def take(
        self,
        transaction: Transaction,
        model: str,
        before: NDArray[np.int64],
        *,
        by: str | None,
        day: int,
    ) -> NDArray[np.bool_]:
        """Which of these labels count; the key is charged with them.

        Parameters
        ----------
        transaction : Transaction
            Holds the model's lock.
        model : str
        before : ndarray of shape (n,), int64
            Of labels that would count, in the order in which they were sent: how many of its
            input and day come before each.
        by : str or None
            Id of the API key; those who need none share one limit.
        day : int
            Since 1970 UTC.

        Returns
        -------
        ndarray of shape (n,), bool
        """
        fits = np.ones(len(before), np.bool_)
        if self.per_input:
            fits = before < self.per_input
        if self.per_key and fits.any():
            left = self.per_key - transaction.key_counts.get(model, day, by or "")
            fits &= np.cumsum(fits) <= left
            if fits.any():
                transaction.key_counts.add(model, day, by or "", int(np.count_nonzero(fits)))
        return fits
