"""Decides which new labels count, and in which order.

Copies of one outcome share a group: the digest of the input, or a key that the client sent. Per
promotion and day (UTC), at most ``labels_per_input`` labels of a group count, so that one input
sent many times does not dominate the statistics. A label over the cap leaves its receipt unused:
sent again on another day, while the receipt is valid, it may still count.
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
_MANY: Final = 50  # for so many groups, a savepoint costs less than looking them up


@dataclass(frozen=True, eq=False)
class GroupTally:
    """The groups of one promotion's new labels, and how many labels of each counted before."""

    model_id: int
    revision: int
    day: int
    groups: NDArray[np.uint64]  # distinct, ascending
    member: NDArray[np.int64]  # (n,), index of each label's group; -1: a label without a group
    known: EarlierLabels  # earlier counted labels of these groups
    written: bool  # whether `claim` wrote all labels to the table as counted

    @classmethod
    def claim(
        cls,
        transaction: Transaction,  # holds the model's lock
        model_id: int,
        revision: int,
        group: NDArray[np.uint64],  # (n,), of each label; 0 for none
        *,
        day: int,  # since 1970 UTC
    ) -> GroupTally:
        """Read how many labels of these groups counted before.

        Many groups are inserted at once, because nearly always all of them are new; they are looked
        up only if some are not. `write` must follow: it corrects the table.
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
        """Whether an earlier request counted a label of the same group, shape (n,)."""
        return np.append(self.known.counted, False)[self.member]

    @property
    def before(self) -> NDArray[np.int64]:
        """Number of earlier labels of the same group and day, shape (n,)."""
        earlier = np.append(self._today, 0)[self.member]
        ungrouped = self.member < 0
        if len(self.groups) + np.count_nonzero(ungrouped) < len(self.member):
            by_group = np.argsort(self.member, kind="stable")
            sizes = np.bincount(self.member[by_group] + 1)
            starts = np.cumsum(sizes) - sizes
            earlier[by_group] += np.arange(len(by_group)) - np.repeat(starts, sizes)
            earlier[ungrouped] = 0
        return earlier

    def write(self, transaction: Transaction, counts: NDArray[np.bool_]) -> None:
        """Write to the table which labels count."""
        if self.written and counts.all():
            return
        more = np.bincount(self.member[counts] + 1, minlength=len(self.groups) + 1)[1:]
        # Counts of 0 are written only to correct what `claim` has written.
        changed = (more > 0) | self.written
        totals = (self._today + more)[changed]
        transaction.group_counts.put(
            self.model_id, self.revision, self.groups[changed], totals, day=self.day
        )

    @property
    def _today(self) -> NDArray[np.int64]:
        return np.where(self.known.day == self.day, self.known.labels, 0)


@dataclass(frozen=True, eq=False)
class CountedLabels:
    """One or more newly counted labels of one promotion."""

    receipts: ReceiptColumns
    label: NDArray[np.int64]  # class index
    order: NDArray[np.uint64]  # see `counting_order`
    repeated: NDArray[np.bool_]  # an earlier request counted a label of the same group

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
        """A number for each group, shape (n,); None when no two labels share a group."""
        group = self.receipts.group
        groups, unit = np.unique(group, return_inverse=True)
        alone = group == 0
        if len(groups) - alone.any() + np.count_nonzero(alone) == len(group):
            return None
        return np.where(alone, len(groups) + np.arange(len(group)), unit)


def counting_order(secret: bytes, receipts: ReceiptColumns) -> NDArray[np.uint64]:
    """A sort key for each label of a request that clients cannot predict.

    One keyed hash (SHAKE-128) of all nonces gives one number a label, in the order of the nonces.
    So the keys depend neither on the outcomes nor on the order in which the labels were sent. One
    hash of many rows costs far less than a hash of each.
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
    label: NDArray[np.int64],  # (n,), class indices
    *,
    model_id: int,
    labels_per_input: int,
    now: float,
    order_key: bytes,  # see `counting_order`
) -> tuple[NDArray[np.bool_], dict[int, CountedLabels]]:
    """Count new labels up to the cap of each group; returns which count, and those by revision."""
    group, revision = receipts.group, receipts.revision
    day = int(now // DAY_SECONDS)
    before, repeated = np.zeros(len(receipts), np.int64), np.zeros(len(receipts), np.bool_)
    tallies = {}
    for number in np.unique(revision).tolist():
        own = revision == number
        tally = GroupTally.claim(transaction, model_id, number, group[own], day=day)
        tallies[number], before[own], repeated[own] = tally, tally.before, tally.repeated
    within = within_cap(before, per_input=labels_per_input)
    counted = {}
    for number, tally in tallies.items():
        own = revision == number
        tally.write(transaction, within[own])
        chosen = own & within
        if chosen.any():
            order = counting_order(order_key, receipts[chosen])
            counted[number] = CountedLabels(
                receipts[chosen], label[chosen], order, repeated[chosen]
            )
    return within, counted


def within_cap(
    before: NDArray[np.int64],  # as `GroupTally.before`
    *,
    per_input: int,  # 0: no limit
) -> NDArray[np.bool_]:
    """Which labels count, given how many of the same group and day come before each."""
    return before < per_input if per_input else np.ones(len(before), np.bool_)
