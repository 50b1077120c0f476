"""The live revision of a model: compared with what a client saw, and raised by one.

The revision that the client saw (If-Match) is compared inside the transaction, under the model's
lock: of two changes based on the same revision exactly one happens.
"""

from __future__ import annotations

from trueprob_service.control.store import Transaction
from trueprob_service.control.store.calibrators import CalibratorRow
from trueprob_service.control.store.promotions import PromotionRow
from trueprob_service.errors import ModelNotFound, StaleRevision

__all__ = ["locked", "raise_revision"]


def raise_revision(
    transaction: Transaction,
    live: PromotionRow,  # what is live until now
    row: CalibratorRow,  # what is live from now on, with its version
    *,
    cause: str,  # `factory`, `admitted`, `forced`, `shadow` or `rollback`
    by: str | None,  # id of the API key
    now: float,
    restores: int | None = None,  # of a rollback: the revision whose pair it puts back
    fit: int | None = None,  # the fit that promotes
) -> PromotionRow:
    """Append the next revision. The caller holds the model's lock and read ``live`` under it."""
    transaction.shadows.end(row.model, "superseded", now=now)
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
    return promotion


def locked(transaction: Transaction, model: str, expected: int) -> PromotionRow:
    """Lock a model and compare its live revision with the one that the client saw."""
    transaction.models.lock(model)
    live = transaction.promotions.live(model)
    if live is None:
        raise ModelNotFound(f"there is no model named {model!r}")
    if live.revision != expected:
        raise StaleRevision(f"the live revision is {live.revision}, If-Match says {expected}")
    return live
