"""Outcomes of labels, and the claims by which a label counts once for an id of the caller.

A label by id claims the nonce of its prediction, as a label by receipt does, and a key of the id
besides, with the label. So the two together count once, and so do several predictions of one id:
once a label has counted, a later one is a ``duplicate``, or a ``conflict`` if it is another label.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.control.store import Transaction

__all__ = ["IdClaims", "OutcomeCode", "OwnIds"]

# Nonces end in a counter, which never gets that far.
_OF_AN_ID: Final = 1 << 63


class OutcomeCode(IntEnum):
    """Outcome of a label; indexes `trueprob_service.metrics.catalogue.LABEL_OUTCOMES`."""

    ACCEPTED = 0
    DUPLICATE = 1
    EXPIRED = 2
    FORGED = 3
    FOREIGN = 4
    UNKNOWN_CLASS = 5
    SUPERSEDED = 6
    CAPPED = 7
    REPLACED = 8  # accepted, for the latest of several predictions of an id
    UNKNOWN_ID = 9
    CONFLICT = 10  # an id for which another label counted


@dataclass(frozen=True, eq=False)
class OwnIds:
    """The ids of the labels of a request."""

    hashes: NDArray[np.void]  # (n,), 16 bytes each
    replaced: NDArray[np.bool_]  # (n,), whether earlier predictions had the same id

    def claims(self, model_id: int) -> IdClaims:
        """The claims of these ids; a model that is declared again starts without any."""
        end = (_OF_AN_ID | model_id).to_bytes(8, "big")
        joined = self.hashes.tobytes()
        keys = [joined[start : start + 16] + end for start in range(0, len(joined), 16)]
        return IdClaims(keys, self.replaced)


@dataclass(eq=False)
class IdClaims:
    """Keys of ids, in the transaction that counts their labels."""

    keys: list[bytes]  # of each label of the request
    replaced: NDArray[np.bool_]
    _claimed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _counted: dict[bytes, int] = field(default_factory=dict)

    def claim(
        self,
        transaction: Transaction,
        new: NDArray[np.int64],  # places of labels in ascending order, no two of one id
        labels: NDArray[np.int64],  # (n,), class indices of all labels
        *,
        expires_at: float,
    ) -> NDArray[np.int64]:
        """Claim the ids of some labels; returns those for which no label has counted."""
        places = sorted(new.tolist(), key=self.keys.__getitem__)  # inserted in the table's order
        fresh, self._counted = transaction.label_keys.claim_ids(
            [self.keys[index] for index in places], labels[places], expires_at=expires_at
        )
        self._claimed = np.sort(np.array(places, np.int64)[fresh])
        return self._claimed

    def settle(
        self,
        transaction: Transaction,
        outcome: NDArray[np.int8],  # (n,), of all labels; is changed
        labels: NDArray[np.int64],
        accepted: NDArray[np.int64],  # places of the labels that might have counted
    ) -> None:
        """Give back the claims of labels that did not count, and tell what became of the others."""
        counts = outcome[self._claimed] == OutcomeCode.ACCEPTED
        transaction.label_keys.unclaim([self.keys[i] for i in self._claimed[~counts].tolist()])
        counted = dict(self._counted)
        for index in self._claimed[counts].tolist():
            counted[self.keys[index]] = int(labels[index])
        for index in accepted[outcome[accepted] == OutcomeCode.DUPLICATE].tolist():
            if counted.get(self.keys[index], labels[index]) != labels[index]:
                outcome[index] = OutcomeCode.CONFLICT
        outcome[(outcome == OutcomeCode.ACCEPTED) & self.replaced] = OutcomeCode.REPLACED
