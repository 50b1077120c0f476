"""Starts and ends shadows.

A model has at most one candidate in shadow, which clients start, and one predecessor, which a
promotion starts (`trueprob_service.control.models.promotion`). Both are calibrators of the live
version. A shadow ends when the evidence decides, when it is removed or replaced, and when another
pair goes live.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from trueprob.calibrators import loads_calibrator
from trueprob_service.control.models.catalogue import Catalogue
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.promotions import CalibratorRow, PromotionRow
from trueprob_service.control.store.shadows import ShadowRow
from trueprob_service.errors import (
    CalibratorNotFound,
    Conflict,
    InvalidRequest,
    ModelNotFound,
    ShadowNotFound,
)
from trueprob_service.settings import Settings

__all__ = ["POLICIES", "Shadows", "start_shadow"]

POLICIES: Final = ("act", "tell")


class Shadows:
    """Candidates that clients start, and shadows that they read and remove."""

    def __init__(
        self, store: Store, catalogue: Catalogue, *, settings: Settings, clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._settings = settings
        self._clock = clock

    def put(
        self, model: str, calibrator: str, *, policy: str | None, by: str | None
    ) -> tuple[ShadowRow, bool]:
        """Let a calibrator shadow the live pair; replaces an earlier shadow.

        Returns the shadow, and False if it already ran under the same policy. Raises `Conflict` if
        the calibrator is live, belongs to another version, or is held and the policy is `act`.
        """
        chosen = self._settings.shadow_policy if policy is None else policy
        if chosen not in POLICIES:
            raise InvalidRequest(f"policy must be one of {', '.join(POLICIES)}, got {chosen!r}")
        with self._store.write() as transaction:
            transaction.models.lock(model)
            live = _live(transaction, model)
            row = transaction.calibrators.get(model, live.version, calibrator)
            if row is None:
                others = transaction.calibrators.versions_with(model, calibrator)
                if others:
                    raise Conflict(
                        f"calibrator {calibrator!r} belongs to version {others[0]}, "
                        f"the live version is {live.version}"
                    )
                raise CalibratorNotFound(f"model {model!r} has no calibrator {calibrator!r}")
            if calibrator == live.calibrator:
                raise Conflict(f"calibrator {calibrator!r} is live: it cannot shadow itself")
            held = transaction.fits.hold_on(row)
            if held is not None and policy == "act":
                raise Conflict(
                    f"calibrator {calibrator!r} is held and does not act on its own: {held}; use "
                    "the policy 'tell'"
                )
            chosen = chosen if held is None else "tell"
            before = transaction.shadows.running(model, "candidate")
            if before is not None and (before.calibrator, before.policy) == (calibrator, chosen):
                return before, False
            started = start_shadow(
                transaction,
                live,
                row,
                "candidate",
                policy=chosen,
                alpha=self._settings.shadow_alpha,
                by=by,
                now=self._clock(),
            )
            transaction.audit.add(
                "shadow.start",
                model,
                now=started.started_at,
                revision=live.revision,
                detail={"calibrator": calibrator, "policy": chosen},
            )
        self._catalogue.shadow(model, live.revision, "candidate", row)
        return started, True

    def remove(self, model: str, role: str) -> None:
        """End the running shadow of a role."""
        with self._store.write() as transaction:
            transaction.models.lock(model)
            live = _live(transaction, model)
            now = self._clock()
            if not transaction.shadows.end(model, role, "removed", now=now):
                raise ShadowNotFound(f"no {role} shadows model {model!r}")
            transaction.audit.add(
                "shadow.end", model, now=now, revision=live.revision, detail={"role": role}
            )
        self._catalogue.shadow(model, live.revision, role, None)

    def newest(self, model: str, role: str) -> ShadowRow:
        """The newest shadow of a role, running or ended."""
        with self._store.read() as transaction:
            _live(transaction, model)
            row = transaction.shadows.newest(model, role)
        if row is None:
            raise ShadowNotFound(f"no {role} ever shadowed model {model!r}")
        return row


def start_shadow(
    transaction: Transaction,
    live: PromotionRow,
    row: CalibratorRow,
    role: str,
    *,
    policy: str,
    alpha: float,
    by: str | None,
    now: float,
) -> ShadowRow:
    """Start a shadow, replacing the earlier one. The caller holds the model's lock."""
    transaction.shadows.end(live.model, role, "removed", now=now)
    incumbent = transaction.calibrators.get(live.model, live.version, live.calibrator)
    documents = [row.document, *([] if incumbent is None else [incumbent.document])]
    keeping = [loads_calibrator(document).preserves_prediction for document in documents]
    transaction.shadows.start(
        live.model,
        live.revision,
        role,
        version=live.version,
        calibrator_id=row.calibrator,
        policy=policy,
        alpha=alpha,
        changes_prediction=not all(keeping),
        by=by,
        now=now,
    )
    started = transaction.shadows.running(live.model, role)
    if started is None:
        raise LookupError(f"the shadow of model {live.model} was not stored")
    return started


def _live(transaction: Transaction, model: str) -> PromotionRow:
    live = transaction.promotions.live(model)
    if live is None:
        raise ModelNotFound(f"there is no model named {model!r}")
    return live
