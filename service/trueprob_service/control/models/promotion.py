"""Making a pair live and going back, each in one transaction that raises the revision.

After the commit the data plane is told; it ignores a revision older than the one that it has.

Going back without a revision undoes step by step: ``restores`` of a rollback names the promotion
whose pair it put back, so the next undo starts from there and never undoes a rollback.
"""

from __future__ import annotations

from collections.abc import Callable

from trueprob_service.control.models.catalogue import Catalogue, answering
from trueprob_service.control.revision import locked, raise_revision
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.calibrators import CalibratorRow
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.errors import CalibratorNotFound, Conflict, PromotionNotFound, VersionNotFound

__all__ = ["Promotions"]


class Promotions:
    """Changes of the live pair that a client asks for."""

    def __init__(self, store: Store, catalogue: Catalogue, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._catalogue = catalogue
        self._clock = clock

    def promote(
        self,
        model: str,
        calibrator: str,
        *,
        version: int | None,  # the calibrator's version; None for the live one
        expected: int,  # the live revision that the client saw
        force: bool,  # promote what was not admitted; the history says so
        by: str | None,  # id of the API key
    ) -> PromotionRow:
        """Make a calibrator live, together with its version.

        Raises `Conflict`: the calibrator belongs to another version, was not admitted, or its
        version is not available.
        """
        with self._store.write() as transaction:
            live = locked(transaction, model, expected)
            wanted = live.version if version is None else version
            row = transaction.calibrators.get(model, wanted, calibrator)
            if row is None:
                others = transaction.calibrators.versions_with(model, calibrator)
                if others:
                    raise Conflict(
                        f"calibrator {calibrator!r} belongs to version {others[0]}, "
                        f"the request is for version {wanted}"
                    )
                raise CalibratorNotFound(f"model {model!r} has no calibrator {calibrator!r}")
            if not (row.admitted or force):
                raise Conflict(
                    f"calibrator {calibrator!r} was not admitted: there was no evidence that it "
                    "improves; ?force=true promotes it all the same"
                )
            promotion = self._raise(transaction, live, row, cause=_cause(row), by=by)
        self._catalogue.deploy(row, revision=promotion.revision)
        return promotion

    def promote_version(
        self, model: str, version: int, *, expected: int, by: str | None
    ) -> PromotionRow:
        """Make a version live with the calibrator that it answers with.

        Raises `Conflict`: the version is not available here.
        """
        with self._store.write() as transaction:
            live = locked(transaction, model, expected)
            known = transaction.models.version(model, version)
            if known is None:
                raise VersionNotFound(f"model {model!r} has no version {version}")
            if live.version == version:
                return live
            row = answering(transaction, known)
            promotion = self._raise(transaction, live, row, cause=_cause(row), by=by)
        self._catalogue.deploy(row, revision=promotion.revision)
        return promotion

    def rollback(
        self, model: str, *, revision: int | None, expected: int, by: str | None
    ) -> PromotionRow:
        """Put an earlier pair back.

        Raises `Conflict`: nothing is left to undo, or the pair's version is not available.
        """
        with self._store.write() as transaction:
            live = locked(transaction, model, expected)
            if revision is None:
                undone = live.restores or live.revision
                target = transaction.promotions.get(model, undone - 1)
                if target is None:
                    raise Conflict(f"model {model!r} has no promotion left to undo")
            else:
                target = transaction.promotions.get(model, revision)
                if target is None:
                    raise PromotionNotFound(f"model {model!r} has no revision {revision}")
            row = transaction.calibrators.get(model, target.version, target.calibrator)
            if row is None:
                raise CalibratorNotFound(f"calibrator {target.calibrator!r} is gone")
            promotion = self._raise(
                transaction,
                live,
                row,
                cause="rollback",
                restores=target.restores or target.revision,
                by=by,
            )
        self._catalogue.deploy(row, revision=promotion.revision)
        return promotion

    def _raise(
        self,
        transaction: Transaction,
        live: PromotionRow,
        row: CalibratorRow,
        *,
        cause: str,
        by: str | None,
        restores: int | None = None,
    ) -> PromotionRow:
        self._catalogue.served(row.model, row.version)
        return raise_revision(
            transaction, live, row, cause=cause, by=by, restores=restores, now=self._clock()
        )


def _cause(row: CalibratorRow) -> str:
    if row.origin == "factory":
        return "factory"
    return "admitted" if row.admitted else "forced"
