"""Counts labels by the callers' own ids of predictions.

An id leads to the prediction that is remembered for it, as the receipt that it would have had; from
there on a label by id is a label by receipt (`by_receipt`). An id that is not there yet may be on
its way: another process writes what it has answered a moment later. So a request is looked up again
for a while, without a thread that waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from starlette.concurrency import run_in_threadpool

from trueprob_service.control.labels.body import Label
from trueprob_service.control.labels.by_receipt import ReceiptLabels
from trueprob_service.control.labels.claims import OwnIds
from trueprob_service.control.remembered.lookup import RememberedRows
from trueprob_service.control.remembered.memory import Memory
from trueprob_service.errors import InvalidRequest

__all__ = ["WAIT_SECONDS", "IdLabels"]

WAIT_SECONDS: Final = 5.0  # for ids that are not there yet
_LOOKS: Final = (0.1, 0.2, 0.4, 0.8, 1.5, 2.0)  # seconds before each further look, 5 in all
_MOST_WAITING: Final = 64  # requests; more are answered without waiting


class IdLabels:
    """Counts labels by id."""

    def __init__(
        self,
        memory: Memory | None,  # None: nothing is remembered here
        receipt_labels: ReceiptLabels,
    ) -> None:
        self._memory = memory
        self._receipt_labels = receipt_labels
        self._waiting = 0

    async def count(
        self,
        model: str,
        ids: Sequence[str],
        labels: Sequence[Label],
        *,
        wait_seconds: float = WAIT_SECONDS,
    ) -> list[str]:
        """Count labels, and return the outcome of each in order.

        Outcomes are those of labels by receipt, and ``unknown_id``, ``replaced`` and ``conflict``.
        Raises as `ReceiptLabels.count`.
        """
        found = await run_in_threadpool(self._find, model, ids, None)
        if len(found.missing) and wait_seconds > 0 and self._waiting < _MOST_WAITING:
            self._waiting += 1
            try:
                found = await self._look_again(model, ids, found, wait_seconds)
            finally:
                self._waiting -= 1
        return await run_in_threadpool(self.count_found, model, found, labels)

    async def _look_again(
        self, model: str, ids: Sequence[str], found: RememberedRows, wait_seconds: float
    ) -> RememberedRows:
        for seconds in _LOOKS:
            seconds = min(seconds, wait_seconds)
            wait_seconds -= seconds
            await asyncio.sleep(seconds)
            found = await run_in_threadpool(self._find, model, ids, found)
            if not len(found.missing) or wait_seconds <= 0:
                break
        return found

    def _find(
        self, model: str, ids: Sequence[str], before: RememberedRows | None
    ) -> RememberedRows:
        if self._memory is None:
            raise InvalidRequest(
                "ids are not remembered here, because remember_ttl_seconds is 0: send labels with "
                "prediction_ids"
            )
        return self._memory.find(model, ids, before)

    def count_found(self, model: str, found: RememberedRows, labels: Sequence[Label]) -> list[str]:
        """Count the labels of ids that were looked up."""
        own_ids = OwnIds(found.hashes, found.replaced)
        return self._receipt_labels.count_receipts(model, found.receipts, labels, own_ids)
