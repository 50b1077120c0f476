"""Newly counted labels: which of new ones count, and in which order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueprob_service.control.group_tally import GroupTally
from trueprob_service.control.label_caps import DAY_SECONDS, within_cap
from trueprob_service.control.store import Transaction
from trueprob_service.receipts.columns import ReceiptColumns

__all__ = ["CountedLabels", "count_within_cap", "counting_order"]


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
