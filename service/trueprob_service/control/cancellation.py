"""Giving a fit up: its row ends here and now, and whoever runs it finds out."""

from __future__ import annotations

from trueprob_service.control.store import Store
from trueprob_service.errors import Conflict, FitNotFound

__all__ = ["cancel_fit"]


def cancel_fit(store: Store, model: str, fit_id: int, *, by: str | None, now: float) -> None:
    """Let a fit that waits or runs end; one that was cancelled before stays as it is.

    Raises `Conflict`: it has ended otherwise.
    """
    with store.write() as transaction:
        transaction.models.lock(model)  # first in the order of locks
        fit = transaction.fits.by_id(fit_id, lock=True)
        if fit is None or fit.model != model:
            raise FitNotFound(f"model {model!r} has no fit {str(fit_id)!r}")
        if fit.state in ("done", "failed"):
            raise Conflict(f"fit {fit_id} is {fit.state} already")
        if fit.state != "cancelled":
            sentence = "cancelled" if by is None else f"cancelled by {by}"
            transaction.fits.end(fit_id, "cancelled", now=now, error=sentence)
