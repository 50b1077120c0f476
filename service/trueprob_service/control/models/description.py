"""Describes models, their calibrators and their promotions for the API, from the database.

The versions that this process cannot serve are included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from trueprob_service.control.models.catalogue import Catalogue, current_calibrator
from trueprob_service.control.schemas.labels import CalibrationVerdict
from trueprob_service.control.schemas.lists import Items, Page, split
from trueprob_service.control.schemas.live import CalibratorSummary, PromotionSummary
from trueprob_service.control.schemas.models import (
    ModelDescription,
    UnavailableVersion,
    VersionSummary,
)
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.models import ModelRow
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.errors import CalibratorNotFound, ModelNotFound

__all__ = ["Descriptions"]


class Descriptions:
    """Describes one model, or a page of all models."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        # reads the verdicts on the live pairs of models
        verdicts: Callable[[Transaction, Iterable[str]], Mapping[str, CalibrationVerdict]],
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._verdicts = verdicts

    def describe(self, model: str) -> ModelDescription:
        """The description of one model."""
        with self._store.read() as transaction:
            row = transaction.models.get(model)
            if row is not None:
                return self._describe(transaction, row, self._verdicts(transaction, [model]))
        if model in self._refused():
            return self._describe_unavailable(model)
        raise ModelNotFound(f"there is no model named {model!r}")

    def page(
        self,
        page: Page,
        *,
        visible: str | None = None,  # regular expression for the names that are shown
    ) -> Items[ModelDescription]:
        """A page of all models; models that never had a usable version come last."""
        with self._store.read() as transaction:
            rows, cursor = split(
                transaction.models.page(before=page.before, limit=page.limit + 1, pattern=visible),
                page,
                lambda row: row.id,
            )
            verdicts = self._verdicts(transaction, [row.name for row in rows])
            items = [self._describe(transaction, row, verdicts) for row in rows]
            if cursor is None:
                known = {row.name for row in transaction.models.all()}
                items += [
                    self._describe_unavailable(name)
                    for name in self._refused() - known
                    if visible is None or re.fullmatch(visible, name)
                ]
        return Items(items=items, next=cursor)

    def _refused(self) -> set[str]:
        return {model for model, _ in self._catalogue.unavailable}

    def _describe(
        self, transaction: Transaction, row: ModelRow, verdicts: Mapping[str, CalibrationVerdict]
    ) -> ModelDescription:
        live = transaction.promotions.live(row.name)
        versions = transaction.models.versions(row.name)
        by_version = {version.version: version for version in versions}
        names = () if live is None else by_version[live.version].class_names
        return ModelDescription(
            model=row.name,
            version=None if live is None else live.version,
            calibrator=None if live is None else live.calibrator,
            revision=None if live is None else live.revision,
            n_classes=None if live is None else len(names),
            class_names=list(names),
            declared=row.declared,
            versions=[
                VersionSummary(
                    version=version.version,
                    live=live is not None and version.version == live.version,
                    calibrator=current_calibrator(transaction, version).calibrator,
                    n_classes=len(version.class_names),
                    network=self._has_network(version.model, version.version),
                )
                for version in reversed(versions)
                if self._catalogue.find(version.model, version.version) is not None
            ],
            unavailable=self._unavailable(row.name),
            verdict=None if live is None else verdicts[row.name],
        )

    def _describe_unavailable(self, model: str) -> ModelDescription:
        return ModelDescription(
            model=model,
            version=None,
            calibrator=None,
            revision=None,
            n_classes=None,
            class_names=[],
            declared=False,
            versions=[],
            unavailable=self._unavailable(model),
            verdict=None,
        )

    def _unavailable(self, model: str) -> list[UnavailableVersion]:
        return [
            UnavailableVersion(version=version, reason=reason)
            for (name, version), reason in self._catalogue.unavailable.items()
            if name == model
        ]

    def _has_network(self, model: str, version: int) -> bool:
        served = self._catalogue.find(model, version)
        return (
            served is not None
            and served.manifest is not None
            and "model.onnx" in served.manifest.files
        )

    def promotions(self, model: str, page: Page) -> Items[PromotionSummary]:
        """A page of the model's promotions."""
        with self._store.read() as transaction:
            _live(transaction, model)
            rows, cursor = split(
                transaction.promotions.page(model, before=page.before, limit=page.limit + 1),
                page,
                lambda row: row.revision,
            )
        return Items(items=[PromotionSummary.from_row(row) for row in rows], next=cursor)

    def calibrators(
        self,
        model: str,
        page: Page,
        *,
        version: int | None,  # None for all versions
    ) -> Items[CalibratorSummary]:
        """A page of the model's calibrators."""
        with self._store.read() as transaction:
            live = _live(transaction, model)
            rows, cursor = split(
                transaction.calibrators.page(
                    model, version=version, before=page.before, limit=page.limit + 1
                ),
                page,
                lambda row: row.id,
            )
        return Items(
            items=[CalibratorSummary.from_row(row, live=live) for row in rows], next=cursor
        )

    def calibrator_document(self, model: str, calibrator: str, *, version: int | None) -> str:
        """The text of a calibrator's `calibrator.json`.

        Without a version: that of the live version, else of the newest version that has it.
        """
        with self._store.read() as transaction:
            live = _live(transaction, model)
            if version is not None:
                versions = [version]
            else:
                others = transaction.calibrators.versions_with(model, calibrator)
                versions = [live.version, *others]
            found = (transaction.calibrators.get(model, each, calibrator) for each in versions)
            row = next((row for row in found if row is not None), None)
        if row is None:
            raise CalibratorNotFound(f"model {model!r} has no calibrator {calibrator!r}")
        return row.document


def _live(transaction: Transaction, model: str) -> PromotionRow:
    live = transaction.promotions.live(model)
    if live is None:
        raise ModelNotFound(f"there is no model named {model!r}")
    return live
