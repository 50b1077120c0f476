"""Takes labels of predictions: each receipt counts once, in the transaction of its statistics.

A label counts for the promotion that its receipt names, with the confidence and the prediction in
the receipt. So it may arrive after a later promotion, after a restart or at another replica.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.scores.binned import BinnedCalibration
from trueprob_service.control.labels.alarms import Alarms
from trueprob_service.control.labels.counting import CountedLabels, count_within_cap
from trueprob_service.control.labels.judging import (
    NO_CLASS,
    JudgedLabels,
    Label,
    OutcomeCode,
    PromotionHistories,
    PromotionHistory,
)
from trueprob_service.control.labels.shadow_scoring import ShadowDecision, score_shadow
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.alarms import AlarmRow
from trueprob_service.control.store.label_sums import advance
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.errors import InvalidRequest
from trueprob_service.metrics.catalogue import LABEL_OUTCOMES
from trueprob_service.receipts.columns import ReceiptColumns
from trueprob_service.receipts.receipt import Receipts

__all__ = ["CLOCK_TOLERANCE_SECONDS", "ReceiptLabels"]

# The clocks of replicas differ: a used nonce is stored this much longer than its receipt is valid.
CLOCK_TOLERANCE_SECONDS: Final = 300.0

_KEY_BYTES: Final = 32

CountLabel = Callable[[str, str, int, Sequence[float]], None]


class ReceiptLabels:
    """Counts labels of predictions."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,  # deploys a candidate that labels have promoted
        receipts: Receipts,
        alarms: Alarms,
        *,
        labels_per_input: int,  # labels of one input that count in a day; 0: no limit
        ttl_seconds: int,  # how long after its prediction a label may come
        window_labels: int,  # number of labels in the figures of the last N
        clock: Callable[[], float],  # seconds since 1970 UTC
        count_label: CountLabel,  # (model, outcome, n, lags in seconds), for metrics
        order_key: bytes | None = None,  # see `counting_order`; None: a random key
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._receipts = receipts
        self._labels_per_input = labels_per_input
        self._alarms = alarms
        self._ttl_seconds = ttl_seconds
        self._window_labels = window_labels
        self._clock = clock
        self._count_label = count_label
        self.order_key = order_key or secrets.token_bytes(_KEY_BYTES)
        self._histories = PromotionHistories()

    def count(
        self, model: str, prediction_ids: Sequence[str], labels: Sequence[Label]
    ) -> list[str]:
        """Count labels, and return the outcome of each in order.

        Outcomes are those of `trueprob_service.metrics.catalogue.LABEL_OUTCOMES`. Raises
        `InvalidRequest` if no label is a class of the model, and `DatabaseUnavailable`. Nothing is
        counted then, and the request may be repeated.
        """
        now = self._clock()
        receipts = self._receipts.verify_all(prediction_ids)
        with self._store.write() as transaction:
            history = self._histories.read(transaction, model, receipts)
            judged = history.judge(receipts, labels, now=now, ttl_seconds=self._ttl_seconds)
            if labels and (judged.label == NO_CLASS).all():
                classes = history.classes[history.live.version]
                raise InvalidRequest(
                    f"labels[0] must be an integer 0..{len(classes.index) - 1} or a class name "
                    f"of model {model!r}, got {_shown(labels[0])}"
                )
            outcome, counted = self._add(transaction, receipts, judged, history, now)
            decision, raised = self._update(transaction, history, counted, now)
        self._alarms.announce(raised)
        if decision is not None:
            self._deploy(decision)
        self._report(model, outcome, now - receipts.issued_at)
        return [LABEL_OUTCOMES[each] for each in outcome.tolist()]

    def _add(
        self,
        transaction: Transaction,
        receipts: ReceiptColumns,
        judged: JudgedLabels,
        history: PromotionHistory,
        now: float,
    ) -> tuple[NDArray[np.int8], dict[int, CountedLabels]]:
        """Use the receipts of new labels; the outcomes of all, and the counted ones by revision."""
        outcome = judged.outcome.copy()
        nonces = receipts.nonce_bytes
        good = np.flatnonzero(outcome == OutcomeCode.ACCEPTED)
        first: dict[bytes, int] = {}
        for index in good.tolist():
            first.setdefault(nonces[index], index)
        outcome[good] = OutcomeCode.DUPLICATE
        new = np.fromiter(first.values(), np.int64, len(first))
        issued_at = receipts.issued_at[new]
        keep_until = issued_at + self._ttl_seconds + CLOCK_TOLERANCE_SECONDS
        fresh = transaction.label_keys.claim(list(first), keep_until.tolist())
        # Read after the claim, so that it includes every deletion of keys before the claim.
        forgotten = issued_at < transaction.swept.keys_before()
        outcome[new[forgotten]] = OutcomeCode.EXPIRED
        new = new[fresh & ~forgotten]
        outcome[new] = OutcomeCode.CAPPED
        fits, counted = count_within_cap(
            transaction,
            receipts[new],
            judged.label[new],
            model_id=history.model_id,
            labels_per_input=self._labels_per_input,
            now=now,
            order_key=self.order_key,
        )
        outcome[new[fits]] = OutcomeCode.ACCEPTED
        transaction.label_keys.unclaim([nonces[index] for index in new[~fits].tolist()])
        return outcome, counted

    def _update(
        self,
        transaction: Transaction,
        history: PromotionHistory,
        counted: Mapping[int, CountedLabels],
        now: float,
    ) -> tuple[ShadowDecision | None, list[AlarmRow]]:
        """Update shadow, alarms and statistics with the counted labels of each revision."""
        decision = score_shadow(transaction, history.live.model, counted, now=now)
        raised: list[AlarmRow] = []
        for revision, labels in counted.items():
            promotion = history.promotions[revision]
            # Always lock in this order: alarm_state, then bins.
            raised += self._alarms.count(transaction, promotion, labels, now=now)
            self._add_sums(transaction, promotion, labels, now)
        return decision, raised

    def _deploy(self, decision: ShadowDecision) -> None:
        """Update the deployments of this process; other processes poll the database."""
        if decision.promoted is None:
            self._catalogue.shadow(decision.shadow.model, decision.shadow.revision, None)
        elif self._catalogue.find(decision.shadow.model, decision.shadow.version) is not None:
            row, revision = decision.promoted
            self._catalogue.deploy(row, revision=revision)

    def _add_sums(
        self, transaction: Transaction, promotion: PromotionRow, labels: CountedLabels, now: float
    ) -> None:
        model, version, calibrator = promotion.model, promotion.version, promotion.calibrator
        confidence, correct = labels.receipts.confidence, labels.correct
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

    def _report(self, model: str, outcome: NDArray[np.int8], lags: NDArray[np.float64]) -> None:
        for code in np.unique(outcome).tolist():
            meant = outcome == code
            seconds = lags[meant].tolist() if code == OutcomeCode.ACCEPTED else ()
            self._count_label(model, LABEL_OUTCOMES[code], int(np.count_nonzero(meant)), seconds)


def _shown(label: Label) -> str:
    """A label for an error message; long texts are cut."""
    return str(label) if isinstance(label, int) else repr(label[:40])
