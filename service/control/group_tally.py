"""A request's labels by group: which are copies of what was counted, and which of the day.

Groups are what copies of an outcome share: the digest of the input, or a key of the client.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.control.store import Transaction
from service.control.store.group_counts import Known

__all__ = ["GroupTally"]


@dataclass(frozen=True, eq=False)
class GroupTally:
    """Labels of one promotion, in the order in which they were sent.

    Attributes
    ----------
    model_id, revision, day : int
    groups : ndarray of shape (m,), uint64
        Those of the labels, ascending.
    member : ndarray of shape (n,), int64
        Of each label the place of its group; -1 for a label that is its own group.
    known : Known
        What was counted of these groups before.
    """

    model_id: int
    revision: int
    day: int
    groups: NDArray[np.uint64]
    member: NDArray[np.int64]
    known: Known

    @classmethod
    def read(
        cls,
        transaction: Transaction,
        model_id: int,
        revision: int,
        group: NDArray[np.uint64],
        *,
        day: int,
    ) -> GroupTally:
        """Look up the groups of some labels.

        Parameters
        ----------
        transaction : Transaction
            Holds the model's lock.
        model_id, revision : int
        group : ndarray of shape (n,), uint64
            Of each label; 0 for one that is its own group.
        day : int
            Since 1970 UTC.
        """
        groups, member = np.unique(group, return_inverse=True)
        if len(groups) and groups[0] == 0:
            groups, member = groups[1:], member - 1
        known = transaction.group_counts.known(model_id, revision, groups)
        return cls(model_id, revision, day, groups, member, known)

    @property
    def repeated(self) -> NDArray[np.bool_]:
        """Which labels are of a group that an earlier request counted, shape (n,)."""
        return np.append(self.known.counted, False)[self.member]

    @property
    def before(self) -> NDArray[np.int64]:
        """How many labels of its group and day come before each, shape (n,)."""
        earlier = np.append(self._today, 0)[self.member]
        alone = self.member < 0
        if len(self.groups) + np.count_nonzero(alone) < len(self.member):
            together = np.argsort(self.member, kind="stable")
            sizes = np.bincount(self.member[together] + 1)
            starts = np.cumsum(sizes) - sizes
            earlier[together] += np.arange(len(together)) - np.repeat(starts, sizes)
            earlier[alone] = 0
        return earlier

    def write(self, transaction: Transaction, taken: NDArray[np.bool_]) -> None:
        """Remember the labels that count.

        Parameters
        ----------
        transaction : Transaction
        taken : ndarray of shape (n,), bool
        """
        more = np.bincount(self.member[taken] + 1, minlength=len(self.groups) + 1)[1:]
        some = more > 0
        counts = (self._today + more)[some]
        transaction.group_counts.put(
            self.model_id, self.revision, self.groups[some], counts, day=self.day
        )

    @property
    def _today(self) -> NDArray[np.int64]:
        return np.where(self.known.day == self.day, self.known.labels, 0)
