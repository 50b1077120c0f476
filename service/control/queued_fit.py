"""The row of a fit that was asked for, by a client or by the refit policy."""

from __future__ import annotations

from service.control.store import Transaction
from service.control.wish import Wish
from service.inference.deployment import ServedVersion
from service.settings import Settings

__all__ = ["queue_fit"]


def queue_fit(
    transaction: Transaction,
    served: ServedVersion,
    digest: str,
    wish: Wish,
    *,
    settings: Settings,
    now: float,
) -> int:
    """Queue a fit of a stored set; its id. The caller holds the model's lock."""
    return transaction.fits.add(
        served.model,
        served.version,
        calibration_set=digest,
        method=wish.chosen_method(settings),
        promote=wish.promote,
        allow_prediction_change=wish.change_allowed(settings),
        created_by=wish.by,
        now=now,
        trigger=wish.trigger,
    )
