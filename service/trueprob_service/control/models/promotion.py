"""Promotions and rollbacks, each in one transaction that raises the model's revision.

The revision that the client saw (If-Match) is compared under the model's lock, so of two changes
based on the same revision exactly one succeeds. After the commit the pair is deployed; the data
plane ignores a revision older than the one that it has.

A rollback without a revision undoes one promotion. ``restores`` of a rollback names the promotion
whose pair it restored, so the next rollback continues from there and never undoes a rollback.

The calibrator that was live before a promotion becomes the predecessor in shadow, if it has the
same version. Labels compare the two (`trueprob_service.control.labels.shadow_scoring`), and
`revert` goes back when they prove the predecessor better.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trueprob_service.control.models.catalogue import Catalogue, current_calibrator
from trueprob_service.control.models.shadows import start_shadow
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.promotions import CalibratorRow, PromotionRow
from trueprob_service.edge.auth import SERVICE
from trueprob_service.errors import (
    CalibratorNotFound,
    Conflict,
    ModelNotFound,
    PromotionNotFound,
    StaleRevision,
    VersionNotFound,
)
from trueprob_service.receipts.columns import ROLES
from trueprob_service.settings import Settings

__all__ = ["PromotedPair", "Promotions", "lock_live_pair", "raise_revision", "revert"]


@dataclass(frozen=True)
class PromotedPair:
    """A pair that has just gone live."""

    promotion: PromotionRow
    calibrator: CalibratorRow
    predecessor: CalibratorRow | None  # in shadow from now on

    def deploy(self, catalogue: Catalogue) -> None:
        """Deploy it in this process; called after the commit."""
        catalogue.deploy(
            self.calibrator, revision=self.promotion.revision, predecessor=self.predecessor
        )


def raise_revision(
    transaction: Transaction,
    live: PromotionRow,  # the live pair until now
    row: CalibratorRow,  # the calibrator that goes live, with its version
    *,
    settings: Settings,
    cause: str,  # as in `PromotionRow`
    by: str | None,  # id of the API key
    now: float,
    restores: int | None = None,  # of a rollback: the revision whose pair it restores
    fit: int | None = None,  # the fit that promotes
) -> PromotedPair:
    """Store a promotion as the next revision. The caller read ``live`` under the model's lock."""
    for role in ROLES:
        transaction.shadows.end(row.model, role, "superseded", now=now)
    promotion = PromotionRow(
        model=row.model,
        revision=live.revision + 1,
        version=row.version,
        calibrator=row.calibrator,
        cause=cause,
        restores=restores,
        fit=fit,
        promoted_by=by,
        promoted_at=now,
    )
    transaction.promotions.append(promotion)
    transaction.events.add(
        "calibrator.promoted",
        row.model,
        {
            "version": row.version,
            "calibrator": row.calibrator,
            "revision": promotion.revision,
            "cause": cause,
            "by": by,
            "before": {"version": live.version, "calibrator": live.calibrator},
        },
        now=now,
    )
    transaction.audit.add(
        {"rollback": "pair.rollback", "reverted": "pair.revert"}.get(cause, "pair.promote"),
        row.model,
        now=now,
        revision=promotion.revision,
        # Labels decide these, whoever sent the last one.
        actor=SERVICE if cause in ("shadow", "reverted") else None,
        detail={
            "version": row.version,
            "calibrator": row.calibrator,
            "cause": cause,
            "restores": restores,
            "fit": fit,
            "by": by,
        },
    )
    predecessor = None
    # Whoever goes back, or insists on a calibrator that labels sent back, has decided.
    watched = settings.rollback_labels > 0 and restores is None and not row.reverted
    if watched and live.version == row.version and live.calibrator != row.calibrator:
        predecessor = transaction.calibrators.get(live.model, live.version, live.calibrator)
    if predecessor is not None:
        start_shadow(
            transaction,
            promotion,
            predecessor,
            "predecessor",
            policy=settings.shadow_policy,
            alpha=settings.shadow_alpha,
            by=None,
            now=now,
        )
    return PromotedPair(promotion, row, predecessor)


def revert(
    transaction: Transaction,
    live: PromotionRow,  # its calibrator is worse than its predecessor
    predecessor: CalibratorRow,
    *,
    settings: Settings,
    now: float,
) -> PromotedPair:
    """Go back to the predecessor; from now on only force promotes the calibrator again."""
    transaction.calibrators.revert(live.model, live.version, live.calibrator)
    before = transaction.promotions.get(live.model, live.revision - 1)
    if before is None:
        raise LookupError(f"revision {live.revision} of model {live.model} has no predecessor")
    return raise_revision(
        transaction,
        live,
        predecessor,
        settings=settings,
        cause="reverted",
        by=None,
        restores=before.restores or before.revision,
        now=now,
    )


def lock_live_pair(transaction: Transaction, model: str, expected: int) -> PromotionRow:
    """Lock a model and return its live pair; raises if the client saw another revision."""
    transaction.models.lock(model)
    live = transaction.promotions.live(model)
    if live is None:
        raise ModelNotFound(f"there is no model named {model!r}")
    if live.revision != expected:
        raise StaleRevision(f"the live revision is {live.revision}, If-Match says {expected}")
    return live


class Promotions:
    """Changes of the live pair that clients request."""

    def __init__(
        self, store: Store, catalogue: Catalogue, *, settings: Settings, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._settings = settings
        self._clock = clock

    def promote(
        self,
        model: str,
        calibrator: str,
        *,
        version: int | None,  # the calibrator's version; None for the live one
        expected: int,  # the live revision that the client saw
        force: bool,  # promote a calibrator that was not admitted; the history records it
        by: str | None,  # id of the API key
    ) -> PromotionRow:
        """Make a calibrator live, together with its version.

        Raises `Conflict` if the calibrator belongs to another version, is held, was not admitted or
        was reverted, or if its version is not available.
        """
        with self._store.write() as transaction:
            live = lock_live_pair(transaction, model, expected)
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
            held = transaction.fits.hold_on(row)
            if held is not None and not force:
                raise Conflict(
                    f"calibrator {calibrator!r} is held: {held}; ?force=true promotes it anyway"
                )
            if not (row.admitted or force):
                why = (
                    "went live before, and labels proved it worse than its predecessor"
                    if row.reverted
                    else "was not admitted: there was no evidence that it improves"
                )
                raise Conflict(f"calibrator {calibrator!r} {why}; ?force=true promotes it anyway")
            cause = _cause(row) if held is None else "forced"
            pair = self._raise(transaction, live, row, cause=cause, by=by)
        pair.deploy(self._catalogue)
        return pair.promotion

    def promote_version(
        self, model: str, version: int, *, expected: int, by: str | None
    ) -> PromotionRow:
        """Make a version live, with its `current_calibrator`.

        Raises `Conflict` if the version is not available here.
        """
        with self._store.write() as transaction:
            live = lock_live_pair(transaction, model, expected)
            known = transaction.models.version(model, version)
            if known is None:
                raise VersionNotFound(f"model {model!r} has no version {version}")
            if live.version == version:
                return live
            row = current_calibrator(transaction, known)
            pair = self._raise(transaction, live, row, cause=_cause(row), by=by)
        pair.deploy(self._catalogue)
        return pair.promotion

    def rollback(
        self, model: str, *, revision: int | None, expected: int, by: str | None
    ) -> PromotionRow:
        """Make the pair of an earlier revision live; None undoes the last promotion.

        Raises `Conflict` if nothing is left to undo, or the pair's version is not available.
        """
        with self._store.write() as transaction:
            live = lock_live_pair(transaction, model, expected)
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
                raise CalibratorNotFound(f"calibrator {target.calibrator!r} no longer exists")
            pair = self._raise(
                transaction,
                live,
                row,
                cause="rollback",
                restores=target.restores or target.revision,
                by=by,
            )
        pair.deploy(self._catalogue)
        return pair.promotion

    def _raise(
        self,
        transaction: Transaction,
        live: PromotionRow,
        row: CalibratorRow,
        *,
        cause: str,
        by: str | None,
        restores: int | None = None,
    ) -> PromotedPair:
        self._catalogue.served(row.model, row.version)
        return raise_revision(
            transaction,
            live,
            row,
            settings=self._settings,
            cause=cause,
            by=by,
            restores=restores,
            now=self._clock(),
        )


def _cause(row: CalibratorRow) -> str:
    if row.origin == "factory" and not row.reverted:
        return "factory"
    return "admitted" if row.admitted else "forced"
