"""Labels that come later: each receipt counts once, in the transaction that adds its statistics.

The statistics belong to the promotion that is named in the receipt and use the receipt's own
confidence and prediction, so a label may come after a promotion, after a restart or to another
replica and still lands where its prediction was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.control.alarms import Alarms
from service.control.label_history import Histories, History, Label
from service.control.store import Store, Transaction
from service.control.store.alarms import AlarmRow
from service.control.store.promotions import PromotionRow
from service.control.window import advance
from service.errors import InvalidRequest
from service.receipts import Receipt, Receipts
from trueprob.binned import BinnedCalibration

__all__ = ["CLOCK_TOLERANCE_SECONDS", "MAX_LABELS", "Labels"]

MAX_LABELS: Final = 100_000
# Replicas' clocks differ: a used nonce is remembered this much longer than its receipt is good.
CLOCK_TOLERANCE_SECONDS: Final = 300.0

CountLabel = Callable[[str, str, int, Sequence[float]], None]


class Labels:
    """Takes labels in.

    Parameters
    ----------
    store : Store
    receipts : Receipts
    alarms : Alarms
    ttl_seconds : int
        How long after its prediction a label may come.
    window_labels : int
        Labels in the "last N" figures.
    clock : callable
        Seconds since 1970 UTC.
    count_label : callable
        ``(model, outcome, n, lag_seconds)``, for the metrics; called after the commit.
    """

    def __init__(
        self,
        store: Store,
        receipts: Receipts,
        alarms: Alarms,
        *,
        ttl_seconds: int,
        window_labels: int,
        clock: Callable[[], float],
        count_label: CountLabel,
    ) -> None:
        self._store = store
        self._receipts = receipts
        self._alarms = alarms
        self._ttl_seconds = ttl_seconds
        self._window_labels = window_labels
        self._clock = clock
        self._count_label = count_label
        self._histories = Histories()

    def count(
        self, model: str, prediction_ids: Sequence[str], labels: Sequence[Label]
    ) -> list[str]:
        """Count labels; the outcome of each, in order.

        Parameters
        ----------
        model : str
        prediction_ids : sequence of str
        labels : sequence of int or str
            As many; class indices or class names.

        Returns
        -------
        list of str
            Each one of `service.metric_catalogue.LABEL_OUTCOMES`.

        Raises
        ------
        ModelNotFound
        InvalidRequest
            No label of the request is a class of the model; nothing is counted.
        DatabaseUnavailable
            Nothing is counted; the same request may be sent again.
        """
        now = self._clock()
        receipts = self._receipts.verify_all(prediction_ids)
        with self._store.read() as transaction:
            history = self._histories.read(transaction, model, receipts)
        classes = history.classes[history.live.version]
        outcomes, correct = [], np.zeros(len(receipts), bool)
        unknown = 0
        for index, (receipt, label) in enumerate(zip(receipts, labels, strict=True)):
            outcome, own_classes = history.judge(receipt, now=now, ttl_seconds=self._ttl_seconds)
            resolved = (own_classes or classes).resolve(label)
            unknown += resolved is None
            if outcome == "accepted" and resolved is None:
                outcome = "unknown_class"
            outcomes.append(outcome)
            correct[index] = receipt is not None and resolved == receipt.prediction
        if labels and unknown == len(labels):
            raise InvalidRequest(
                f"labels[0] must be an integer 0..{len(classes.index) - 1} or a class name "
                f"of model {model!r}, got {_shown(labels[0])}"
            )
        counted = self._add(model, receipts, outcomes, correct, history, now)
        self._report(model, outcomes, [now - receipt.issued_at for receipt in counted])
        return outcomes

    def _add(
        self,
        model: str,
        receipts: Sequence[Receipt | None],
        outcomes: list[str],
        correct: NDArray[np.bool_],
        history: History,
        now: float,
    ) -> list[Receipt]:
        """Count what is new, in one transaction; mark the rest as duplicates."""
        first: dict[bytes, int] = {}
        for index, receipt in enumerate(receipts):
            if receipt is not None and outcomes[index] == "accepted":
                if receipt.nonce in first:
                    outcomes[index] = "duplicate"
                else:
                    first[receipt.nonce] = index
        keep = self._ttl_seconds + CLOCK_TOLERANCE_SECONDS
        keys = {nonce: _at(receipts, index).issued_at + keep for nonce, index in first.items()}
        counted: dict[int, list[int]] = {}
        raised: list[AlarmRow] = []
        with self._store.write() as transaction:
            transaction.models.lock(model)
            fresh = transaction.label_keys.claim(keys)
            # Read after the claim: a sweep that forgot a key before it was claimed is seen here.
            forgotten = transaction.swept.keys_before()
            for nonce, index in first.items():
                if _at(receipts, index).issued_at < forgotten:
                    outcomes[index] = "expired"
                elif nonce in fresh:
                    counted.setdefault(_at(receipts, index).revision, []).append(index)
                else:
                    outcomes[index] = "duplicate"
            for revision, rows in sorted(counted.items()):
                accepted = [_at(receipts, index) for index in rows]
                promotion, right = history.promotions[revision], correct[rows]
                # Locks in one order: alarm_state, then bins.
                raised += self._alarms.count(transaction, promotion, accepted, right, now=now)
                confidence = np.array([receipt.confidence for receipt in accepted])
                self._add_rows(transaction, promotion, confidence, right, now)
        self._alarms.announce(raised)
        return [_at(receipts, index) for rows in counted.values() for index in rows]

    def _add_rows(
        self,
        transaction: Transaction,
        promotion: PromotionRow,
        confidence: NDArray[np.float64],
        correct: NDArray[np.bool_],
        now: float,
    ) -> None:
        model, version, calibrator = promotion.model, promotion.version, promotion.calibrator
        transaction.bins.add(
            model,
            promotion.revision,
            version=version,
            calibrator=calibrator,
            hour=int(now // 3600),
            new=BinnedCalibration.of(confidence, correct),
        )
        newest = transaction.window_blocks.newest(model, version, calibrator)
        blocks = advance(newest, confidence, correct, window_labels=self._window_labels)
        transaction.window_blocks.put(model, version, calibrator, blocks)

    def _report(self, model: str, outcomes: Sequence[str], lags: Sequence[float]) -> None:
        for outcome, n in sorted(Counter(outcomes).items()):
            self._count_label(model, outcome, n, lags if outcome == "accepted" else ())


def _at(receipts: Sequence[Receipt | None], index: int) -> Receipt:
    receipt = receipts[index]
    if receipt is None:
        raise LookupError("a forged receipt is never counted")
    return receipt


def _shown(label: Label) -> str:
    """A label as a message may show it: numbers as they are, texts cut."""
    return str(label) if isinstance(label, int) else repr(label[:40])
