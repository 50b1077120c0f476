"""Judges labels by their receipts and by the promotions and class lists that these name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from trueprob_service.control.store import Transaction
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.errors import ModelNotFound
from trueprob_service.inference.deployment import ServedVersion
from trueprob_service.receipts.columns import ReceiptColumns, number
from trueprob_service.receipts.receipt import digest64

__all__ = [
    "NO_CLASS",
    "ClassList",
    "JudgedLabels",
    "Label",
    "OutcomeCode",
    "PromotionHistories",
    "PromotionHistory",
]

Label = int | str  # class index or class name
NO_CLASS = -1


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
    """Outcomes and classes of labels, before duplicates and caps are looked at."""

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
        ours = receipts.genuine & (receipts.model == self.model)
        revision, version, class_list = receipts.revision, receipts.version, receipts.class_list
        for promotion in self.promotions.values():
            classes = self.classes[promotion.version]
            meant = ours & (revision == promotion.revision) & (version == promotion.version)
            meant &= class_list == classes.digest
            outcome[meant] = OutcomeCode.ACCEPTED
            label[meant] = classes.resolve(_at(labels, meant))
            unknown &= ~meant
        label[unknown] = self.classes[self.live.version].resolve(_at(labels, unknown))
        accepted = outcome == OutcomeCode.ACCEPTED
        outcome[accepted & (label == NO_CLASS)] = OutcomeCode.UNKNOWN_CLASS
        outcome[accepted & (now - receipts.issued_at > ttl_seconds)] = OutcomeCode.EXPIRED
        outcome[~ours] = OutcomeCode.FOREIGN
        outcome[~receipts.genuine] = OutcomeCode.FORGED
        return JudgedLabels(outcome, label)


def _at(labels: Sequence[Label], chosen: NDArray[np.bool_]) -> Sequence[Label]:
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
        """Lock the model, and read the history that these receipts need."""
        model_id, live = transaction.models.lock(model), transaction.promotions.live(model)
        if model_id is None or live is None:
            raise ModelNotFound(f"there is no model named {model!r}")
        ours = number(digest64(model))
        revisions = np.unique(receipts.revision[receipts.genuine & (receipts.model == ours)])
        promotions = {
            revision: promotion
            for revision in revisions.tolist()
            if (promotion := self._promotion(transaction, model, model_id, revision)) is not None
        }
        classes = {
            each.version: self._class_list(transaction, model, model_id, each.version)
            for each in (live, *promotions.values())
        }
        return PromotionHistory(ours, model_id, live, promotions, classes)

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
