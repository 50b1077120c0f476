"""Newly counted labels: which of new ones count, and in which order.

A request's labels by group: which are copies of what was counted, and which of the day.

Groups are what copies of an outcome share: the digest of the input, or a key of the client.

How many labels of one input count a day.

That bounds what a single input that is sent again and again can make of the statistics. What
exceeds is not counted and its receipt stays unused: sent again on another day within the receipt's
time to live, it may still count. Labels of an input are told by its group, and counted for each
promotion by itself.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.control.store import Transaction
from trueprob_service.control.store.labels import EarlierLabels
from trueprob_service.receipts.columns import ReceiptColumns

__all__ = [
    "DAY_SECONDS",
    "CountedLabels",
    "GroupTally",
    "count_within_cap",
    "counting_order",
    "within_cap",
]


DAY_SECONDS: Final = 86_400


def within_cap(before: NDArray[np.int64], *, per_input: int) -> NDArray[np.bool_]:
    """Which of some labels count."""
    return before < per_input if per_input else np.ones(len(before), np.bool_)


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
    known: EarlierLabels  # what was counted of these groups before
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
            EarlierLabels.none(len(groups))
            if written
            else transaction.group_counts.get(model_id, revision, groups)
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


@dataclass(frozen=True, eq=False)
class CountedLabels:
    """Labels that have just been counted, at least one."""

    receipts: ReceiptColumns  # of one promotion
    label: NDArray[np.int64]  # class index
    order: NDArray[np.uint64]  # by which they are counted, see `counting_order`
    repeated: NDArray[np.bool_]  # labels of a group that an earlier request counted

    def __len__(self) -> int:
        return len(self.receipts)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> CountedLabels:
        return CountedLabels(
            self.receipts[chosen], self.label[chosen], self.order[chosen], self.repeated[chosen]
        )

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether the prediction was right, shape (n,)."""
        return np.equal(self.label, self.receipts.prediction)

    @property
    def units(self) -> NDArray[np.int64] | None:
        """Equal numbers for labels of one group, shape (n,); None when each is its own."""
        group = self.receipts.group
        groups, unit = np.unique(group, return_inverse=True)
        alone = group == 0
        if len(groups) - alone.any() + np.count_nonzero(alone) == len(group):
            return None
        return np.where(alone, len(groups) + np.arange(len(group)), unit)


def counting_order(secret: bytes, receipts: ReceiptColumns) -> NDArray[np.uint64]:
    """Where each label stands among those of its request: nobody outside can predict it.

    A keyed hash of the nonces of all of them (SHAKE-128), read as one number a label in the order
    of the nonces: it hangs on neither the outcomes nor the order in which the labels were sent.
    One hash of many rows costs far less than a hash a row.
    """
    nonce = receipts.nonce
    ascending = np.lexsort(nonce.T[::-1])
    given = nonce[ascending].astype(">u8").tobytes()
    drawn = hashlib.shake_128(secret + given).digest(8 * len(nonce))
    order = np.empty(len(nonce), np.uint64)
    order[ascending] = np.frombuffer(drawn, "<u8")
    return order


def count_within_cap(
    transaction: Transaction,  # holds the model's lock
    receipts: ReceiptColumns,
    label: NDArray[np.int64],  # (n,) int64
    *,
    model_id: int,
    labels_per_input: int,
    now: float,
    order_key: bytes,  # see `counting_order`
) -> tuple[NDArray[np.bool_], dict[int, CountedLabels]]:
    """Count those of some new labels that the cap of their groups lets through."""
    group, revision = receipts.group, receipts.revision
    day = int(now // DAY_SECONDS)
    before, repeated = np.zeros(len(receipts), np.int64), np.zeros(len(receipts), np.bool_)
    tallies = {}
    for number in np.unique(revision).tolist():
        own = revision == number
        tally = GroupTally.claim(transaction, model_id, number, group[own], day=day)
        tallies[number], before[own], repeated[own] = tally, tally.before, tally.repeated
    fits = within_cap(before, per_input=labels_per_input)
    counted = {}
    for number, tally in tallies.items():
        own = revision == number
        tally.write(transaction, fits[own])
        chosen = own & fits
        if chosen.any():
            order = counting_order(order_key, receipts[chosen])
            counted[number] = CountedLabels(
                receipts[chosen], label[chosen], order, repeated[chosen]
            )
    return fits, counted
