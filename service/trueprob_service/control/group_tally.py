"""A request's labels by group: which are copies of what was counted, and which of the day.

Groups are what copies of an outcome share: the digest of the input, or a key of the client.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.control.store import Transaction
from trueprob_service.control.store.group_counts import Known

__all__ = ["GroupTally"]

_MANY: Final = 50  # groups of which looking for each costs more than a savepoint


@dataclass(frozen=True, eq=False)
class GroupTally:
    """Labels of one promotion, in the order in which they were sent."""

    model_id: int
    revision: int
    day: int
    groups: NDArray[np.uint64]  # those of the labels, ascending
    # of each label the place of its group; -1 for a label that is its own group
    member: NDArray[np.int64]
    known: Known  # what was counted of these groups before
    written: bool  # whether all labels stand in the table already, as if they counted

    @classmethod
    def claim(
        cls,
        transaction: Transaction,  # holds the model's lock
        model_id: int,
        revision: int,
        group: NDArray[np.uint64],  # (n,) uint64, of each label; 0 for one that is its own group
        *,
        day: int,  # since 1970 UTC
    ) -> GroupTally:
        """What was counted of the groups of some labels.

        Many groups are put in at once, for nearly always all are new, and looked up only where some
        are not. `write` must follow: it says which of the labels count.
        """
        groups, member = np.unique(group, return_inverse=True)
        if len(groups) and groups[0] == 0:
            groups, member = groups[1:], member - 1
        written = False
        if len(groups) >= _MANY:
            sizes = np.bincount(member + 1, minlength=len(groups) + 1)[1:]
            written = transaction.group_counts.put_new(model_id, revision, groups, sizes, day=day)
        known = (
            Known.nothing(len(groups))
            if written
            else transaction.group_counts.known(model_id, revision, groups)
        )
        return cls(model_id, revision, day, groups, member, known, written)

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
        """Remember the labels that count."""
        if self.written and taken.all():
            return
        more = np.bincount(self.member[taken] + 1, minlength=len(self.groups) + 1)[1:]
        # Only what was written here, and not by an earlier request, is taken out.
        some = (more > 0) | self.written
        counts = (self._today + more)[some]
        transaction.group_counts.put(
            self.model_id, self.revision, self.groups[some], counts, day=self.day
        )

    @property
    def _today(self) -> NDArray[np.int64]:
        return np.where(self.known.day == self.day, self.known.labels, 0)
