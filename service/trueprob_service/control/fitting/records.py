"""Fits as clients see them: lists them, reads them, cancels them."""

from __future__ import annotations

from collections.abc import Callable

from trueprob_service.control.fitting.queue import cancel_fit
from trueprob_service.control.fitting.runner import FitRunner
from trueprob_service.control.schemas.fits import FitSummary
from trueprob_service.control.schemas.lists import Items, Page, row_id, split
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.fits import FitRow
from trueprob_service.errors import FitNotFound, ModelNotFound

__all__ = ["FitRecords"]

_SHOWN_CHARACTERS = 40  # of an id in an error message


class FitRecords:
    """The fits of every model, by the id that clients have."""

    def __init__(
        self,
        store: Store,
        runner: FitRunner,  # notices that a fit was cancelled
        *,
        clock: Callable[[], float],  # seconds since 1970 UTC
    ) -> None:
        self._store = store
        self._runner = runner
        self._clock = clock

    def page(self, model: str, page: Page) -> Items[FitSummary]:
        """A page of the model's fits."""
        with self._store.read() as transaction:
            if transaction.models.get(model) is None:
                raise ModelNotFound(f"there is no model named {model!r}")
            rows, cursor = split(
                transaction.fits.page(model, before=page.before, limit=page.limit + 1),
                page,
                lambda row: row.id,
            )
            items = [FitSummary.with_times(row, n=_rows(transaction, row)) for row in rows]
        return Items(items=items, next=cursor)

    def get(self, model: str, fit: str) -> FitSummary:
        """A fit with the times at which it was created and finished."""
        with self._store.read() as transaction:
            row = _row(transaction, model, fit)
            return FitSummary.with_times(row, n=_rows(transaction, row))

    def report(self, model: str, fit: str) -> FitSummary:
        """The fit as in the answer to the request that started or cancelled it."""
        with self._store.read() as transaction:
            row = _row(transaction, model, fit)
            return FitSummary.from_row(row, n=_rows(transaction, row))

    def cancel(self, model: str, fit: str, *, by: str | None) -> FitSummary:
        """Cancels a fit that waits or runs; its runner notices and stops.

        Raises `Conflict` if the fit is done or has failed.
        """
        cancel_fit(self._store, model, _number(model, fit), by=by, now=self._clock())
        self._runner.check_cancelled()
        return self.report(model, fit)


def _number(model: str, fit: str) -> int:
    number = row_id(fit)
    if number is None:
        raise FitNotFound(f"model {model!r} has no fit {fit[:_SHOWN_CHARACTERS]!r}")
    return number


def _row(transaction: Transaction, model: str, fit: str) -> FitRow:
    row = transaction.fits.get(model, _number(model, fit))
    if row is None:
        raise FitNotFound(f"model {model!r} has no fit {fit!r}")
    return row


def _rows(transaction: Transaction, fit: FitRow) -> int:
    """Number of rows in the fit's set."""
    found = transaction.calibration_sets.get(fit.model, fit.calibration_set, deleted=True)
    return 0 if found is None else found.n_rows
