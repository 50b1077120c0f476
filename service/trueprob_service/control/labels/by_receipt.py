"""Counts labels of predictions: each receipt once, in the transaction of its statistics.

A label counts for the promotion that its receipt names, with the confidence and the prediction in
the receipt. So it may arrive after a later promotion, after a restart or at another replica.

The promotions and class lists that the receipts name are read once per request
(`PromotionHistories`, `ClassList`); `PromotionHistory.judge` decides by them whether a label may
count, and `ReceiptLabels` counts it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob_service.control.labels.alarms import Alarms
from trueprob_service.control.labels.body import Label
from trueprob_service.control.labels.claims import OutcomeCode, OwnIds
from trueprob_service.control.labels.counting import CountedLabels, count_within_cap
from trueprob_service.control.labels.shadow_scoring import ShadowDecision, score_shadows
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.alarms import AlarmRow
from trueprob_service.control.store.label_sums import advance, by_part
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.errors import InvalidRequest, ModelNotFound
from trueprob_service.inference.deployment import ServedVersion
from trueprob_service.metrics.catalogue import CLASS_COUNTERS, LABEL_OUTCOMES
from trueprob_service.receipts.columns import ReceiptColumns, number
from trueprob_service.receipts.receipt import Receipts, digest64
from trueprob_service.settings import Settings

__all__ = [
    "CLOCK_TOLERANCE_SECONDS",
    "NO_CLASS",
    "ClassList",
    "JudgedLabels",
    "PromotionHistories",
    "PromotionHistory",
    "ReceiptLabels",
]

NO_CLASS = -1
# The clocks of replicas differ: a used nonce is stored this much longer than its receipt is valid.
CLOCK_TOLERANCE_SECONDS: Final = 300.0
_KEY_BYTES: Final = 32

CountLabel = Callable[[str, str, int, Sequence[float]], None]


@dataclass(frozen=True)
class ClassList:
    """The class list of a version."""

    digest: int  # as in receipts
    index: Mapping[str, int]  # name to class index

    def resolve(self, labels: Sequence[Label]) -> NDArray[np.int64]:
        """Class index of each label, shape (n,); `NO_CLASS` for an unknown class."""
        k = len(self.index)
        if set(map(type, labels)) <= {int}:
            try:
                given = np.array(labels, dtype=np.int64)
            except OverflowError:  # JSON numbers may have any size
                pass
            else:
                return np.where((given >= 0) & (given < k), given, NO_CLASS)
        found = [
            self.index.get(label, NO_CLASS)
            if isinstance(label, str)
            else (label if 0 <= label < k else NO_CLASS)
            for label in labels
        ]
        return np.array(found, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class JudgedLabels:
    """Outcomes and classes of labels, before duplicates and caps are checked."""

    outcome: NDArray[np.int8]  # `OutcomeCode`
    # Class index in the version that predicted, or in the live one where that is unknown;
    # `NO_CLASS` for an unknown class.
    label: NDArray[np.int64]


@dataclass(frozen=True)
class PromotionHistory:
    """The promotions that a request's receipts name, with their class lists."""

    model: int  # digest of the model's name, as in receipts
    model_id: int  # changes when a model is deleted and declared again
    live: PromotionRow
    promotions: Mapping[int, PromotionRow]  # by revision
    classes: Mapping[int, ClassList]  # by version

    def judge(
        self,
        receipts: ReceiptColumns,
        labels: Sequence[Label],  # one for each receipt
        *,
        now: float,
        ttl_seconds: float,
    ) -> JudgedLabels:
        """Judge labels by their receipts alone."""
        outcome = np.full(len(receipts), OutcomeCode.SUPERSEDED, np.int8)
        label = np.full(len(receipts), NO_CLASS, np.int64)
        unknown = np.ones(len(receipts), np.bool_)  # whether the predicting version is unknown
        own = receipts.genuine & (receipts.model == self.model)
        revision, version, class_list = receipts.revision, receipts.version, receipts.class_list
        for promotion in self.promotions.values():
            classes = self.classes[promotion.version]
            matching = own & (revision == promotion.revision) & (version == promotion.version)
            matching &= class_list == classes.digest
            outcome[matching] = OutcomeCode.ACCEPTED
            label[matching] = classes.resolve(_select(labels, matching))
            unknown &= ~matching
        label[unknown] = self.classes[self.live.version].resolve(_select(labels, unknown))
        accepted = outcome == OutcomeCode.ACCEPTED
        outcome[accepted & (label == NO_CLASS)] = OutcomeCode.UNKNOWN_CLASS
        outcome[accepted & (now - receipts.issued_at > ttl_seconds)] = OutcomeCode.EXPIRED
        outcome[~own] = OutcomeCode.FOREIGN
        outcome[~receipts.genuine] = OutcomeCode.FORGED
        return JudgedLabels(outcome, label)


def _select(labels: Sequence[Label], chosen: NDArray[np.bool_]) -> Sequence[Label]:
    if chosen.all():
        return labels
    return [labels[index] for index in np.flatnonzero(chosen).tolist()]


class PromotionHistories:
    """Reads promotion histories. Promotions and class lists never change, so they are cached."""

    def __init__(self) -> None:
        # By model id, and version or revision.
        self._classes: dict[tuple[int, int], ClassList] = {}
        self._promotions: dict[tuple[int, int], PromotionRow] = {}

    def read(
        self, transaction: Transaction, model: str, receipts: ReceiptColumns
    ) -> PromotionHistory:
        """Lock the model and read the history that these receipts need."""
        model_id, live = transaction.models.lock(model), transaction.promotions.live(model)
        if model_id is None or live is None:
            raise ModelNotFound(f"there is no model named {model!r}")
        model_digest = number(digest64(model))
        revisions = np.unique(
            receipts.revision[receipts.genuine & (receipts.model == model_digest)]
        )
        promotions = {
            revision: promotion
            for revision in revisions.tolist()
            if (promotion := self._promotion(transaction, model, model_id, revision)) is not None
        }
        classes = {
            each.version: self._class_list(transaction, model, model_id, each.version)
            for each in (live, *promotions.values())
        }
        return PromotionHistory(model_digest, model_id, live, promotions, classes)

    def _promotion(
        self, transaction: Transaction, model: str, model_id: int, revision: int
    ) -> PromotionRow | None:
        promotion = self._promotions.get((model_id, revision))
        if promotion is None:
            promotion = transaction.promotions.get(model, revision)
            if promotion is not None:
                self._promotions[model_id, revision] = promotion
        return promotion

    def _class_list(
        self, transaction: Transaction, model: str, model_id: int, version: int
    ) -> ClassList:
        classes = self._classes.get((model_id, version))
        if classes is None:
            row = transaction.models.version(model, version)
            names = () if row is None else row.class_names
            classes = ClassList(
                number(ServedVersion(model, version, names).class_list_digest),
                {name: index for index, name in enumerate(names)},
            )
            self._classes[model_id, version] = classes
        return classes


class ReceiptLabels:
    """Counts labels of predictions."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,  # deploys what labels promote
        receipts: Receipts,
        alarms: Alarms,
        *,
        settings: Settings,
        clock: Callable[[], float],  # seconds since 1970 UTC
        count_label: CountLabel,  # (model, outcome, n, lags in seconds), for metrics
        order_key: bytes | None = None,  # see `counting_order`; None: a random key
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._receipts = receipts
        self._alarms = alarms
        self._settings = settings
        self._ttl_seconds = settings.receipt_ttl_seconds
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
        return self.count_receipts(model, self._receipts.verify_all(prediction_ids), labels)

    def count_receipts(
        self,
        model: str,
        receipts: ReceiptColumns,
        labels: Sequence[Label],
        own_ids: OwnIds | None = None,  # of labels by the callers' ids
    ) -> list[str]:
        """As `count`, for receipts that were verified."""
        now = self._clock()
        with self._store.write() as transaction:
            history = self._histories.read(transaction, model, receipts)
            judged = history.judge(receipts, labels, now=now, ttl_seconds=self._ttl_seconds)
            if own_ids is not None:
                judged.outcome[judged.outcome == OutcomeCode.FORGED] = OutcomeCode.UNKNOWN_ID
            if labels and (judged.label == NO_CLASS).all():
                classes = history.classes[history.live.version]
                raise InvalidRequest(
                    f"labels[0] must be an integer 0..{len(classes.index) - 1} or a class name "
                    f"of model {model!r}, got {_shown(labels[0])}"
                )
            outcome, counted = self._add(transaction, receipts, judged, history, now, own_ids)
            decisions, raised = self._update(transaction, history, counted, now)
        self._alarms.announce(raised)
        for decision in decisions:
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
        own_ids: OwnIds | None,
    ) -> tuple[NDArray[np.int8], dict[int, CountedLabels]]:
        """Use the receipts of new labels; returns all outcomes, and counted labels by revision."""
        outcome = judged.outcome.copy()
        nonces = receipts.nonce_bytes
        accepted = np.flatnonzero(outcome == OutcomeCode.ACCEPTED)
        first: dict[bytes, int] = {}
        for index in accepted.tolist():
            first.setdefault(nonces[index], index)
        outcome[accepted] = OutcomeCode.DUPLICATE
        new = np.fromiter(first.values(), np.int64, len(first))
        claims = None
        if own_ids is not None:
            claims = own_ids.claims(history.model_id)
            expires_at = now + self._ttl_seconds + CLOCK_TOLERANCE_SECONDS
            new = claims.claim(transaction, new, judged.label, expires_at=expires_at)
        issued_at = receipts.issued_at[new]
        keep_until = issued_at + self._ttl_seconds + CLOCK_TOLERANCE_SECONDS
        fresh = transaction.label_keys.claim(
            [nonces[index] for index in new.tolist()], keep_until.tolist()
        )
        # Read after the claim, so that it includes every deletion of keys before the claim.
        key_deleted = issued_at < transaction.high_water_marks.keys_before()
        outcome[new[key_deleted]] = OutcomeCode.EXPIRED
        new = new[fresh & ~key_deleted]
        outcome[new] = OutcomeCode.CAPPED
        within, counted = count_within_cap(
            transaction,
            receipts[new],
            judged.label[new],
            model_id=history.model_id,
            labels_per_input=self._settings.labels_per_input,
            now=now,
            order_key=self.order_key,
        )
        outcome[new[within]] = OutcomeCode.ACCEPTED
        transaction.label_keys.unclaim([nonces[index] for index in new[~within].tolist()])
        if claims is not None:
            claims.settle(transaction, outcome, judged.label, accepted)
        return outcome, counted

    def _update(
        self,
        transaction: Transaction,
        history: PromotionHistory,
        counted: Mapping[int, CountedLabels],
        now: float,
    ) -> tuple[list[ShadowDecision], list[AlarmRow]]:
        """Update shadows, alarms and statistics with the counted labels of each revision."""
        decisions = score_shadows(
            transaction, history.live.model, counted, settings=self._settings, now=now
        )
        raised: list[AlarmRow] = []
        for revision, labels in counted.items():
            promotion = history.promotions[revision]
            # Always lock in this order: alarm_state, then bins.
            names = list(history.classes[promotion.version].index)
            raised += self._alarms.count(transaction, promotion, labels, names, now=now)
            self._add_sums(transaction, promotion, labels, len(names), now)
        return decisions, raised

    def _deploy(self, decision: ShadowDecision) -> None:
        """Update the deployments of this process; other processes poll the database."""
        shadow = decision.shadow
        if decision.promoted is None:
            self._catalogue.shadow(shadow.model, shadow.revision, shadow.role, None)
        elif self._catalogue.find(shadow.model, shadow.version) is not None:
            decision.promoted.deploy(self._catalogue)

    def _add_sums(
        self,
        transaction: Transaction,
        promotion: PromotionRow,
        labels: CountedLabels,
        n_classes: int,
        now: float,
    ) -> None:
        model, version, calibrator = promotion.model, promotion.version, promotion.calibrator
        confidence, correct = labels.receipts.confidence, labels.correct
        transaction.bins.add(
            model,
            promotion.revision,
            version=version,
            calibrator=calibrator,
            hour=int(now // 3600),
            new=by_part(confidence, correct, labels.receipts.prediction, n_classes=n_classes),
        )
        if n_classes in CLASS_COUNTERS:
            transaction.class_totals.add(
                model,
                version=version,
                calibrator=calibrator,
                prediction=labels.receipts.prediction,
                confidence=confidence,
                correct=correct,
            )
        newest = transaction.window_blocks.newest(model, version, calibrator)
        window_labels = self._settings.window_labels
        blocks = advance(newest, confidence, correct, window_labels=window_labels)
        transaction.window_blocks.put(model, version, calibrator, blocks)

    def _report(self, model: str, outcome: NDArray[np.int8], lags: NDArray[np.float64]) -> None:
        for code in np.unique(outcome).tolist():
            matching = outcome == code
            counted = code in (OutcomeCode.ACCEPTED, OutcomeCode.REPLACED)
            seconds = lags[matching].tolist() if counted else ()
            self._count_label(model, LABEL_OUTCOMES[code], int(np.count_nonzero(matching)), seconds)


def _shown(label: Label) -> str:
    """A label for an error message; long texts are cut."""
    return str(label) if isinstance(label, int) else repr(label[:40])
