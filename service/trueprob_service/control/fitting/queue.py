"""What a fit reads and writes: claimed for one process, ended once.

A claim is a lease. The process that runs a fit extends it while it does; when that process dies the
lease ends, and any other may claim the fit. Should the first one live after all (its clock stood
still, say), it finds at the end that the fit is not its own, and stores nothing.

Giving a fit up: its row ends here and now, and whoever runs it finds out.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trueprob_service.control.fitting.outcome import FitEnding
from trueprob_service.control.fitting.set_files import Artifacts
from trueprob_service.control.fitting.worker import Fitted, FittedBefore, Job
from trueprob_service.control.models.catalogue import Catalogue, current_calibrator
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.fits import FitRow
from trueprob_service.control.store.promotions import CalibratorRow
from trueprob_service.errors import Conflict, DatabaseUnavailable, FitNotFound, Unavailable

__all__ = ["LEASE_SECONDS", "Begun", "FitQueue", "cancel_fit"]


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


_LOG: Final = logging.getLogger(__name__)
# Extended every sixth of it. Short enough that a fit whose process was killed does not wait long;
# a process that lives and could not extend it in time costs a second run, no more.
LEASE_SECONDS: Final = 15.0
# A set that takes the whole service down with it must not do so at every start for ever.
_MAX_ATTEMPTS: Final = 3
# So long, fits that came in elsewhere are left to who has their rows and their version.
_PATIENCE_SECONDS: Final = 3600.0


@dataclass(frozen=True)
class Begun:
    """A fit that this process has claimed."""

    fit_id: int
    incumbent: CalibratorRow  # what the candidate is judged against
    revision: int | None  # what was live of the model then
    calibration_set: str
    job: Job


class FitQueue:
    """The fits of the database as one process sees them."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        artifacts: Artifacts,  # where the sets lie
        *,
        ending: FitEnding,  # says what becomes of what was fitted
        clock: Callable[[], float],
    ) -> None:
        self._ending = ending
        self._store = store
        self._catalogue = catalogue
        self._artifacts = artifacts
        self._clock = clock
        self._owner = uuid.uuid4().hex

    def claim(self, own: Collection[int]) -> Begun | None:
        """The oldest fit that may be run here and now, from now on this process's."""
        now = self._clock()
        with self._store.read() as transaction:
            waiting = transaction.fits.waiting(owner=self._owner, now=now)
        ids = [fit.id for fit in waiting if fit.id in own or self._suits(fit, now)]
        while ids:
            with self._store.write() as transaction:
                fit = transaction.fits.claim(
                    ids, owner=self._owner, now=now, lease_until=now + LEASE_SECONDS
                )
                if fit is None:
                    return None
                begun = self._begin(transaction, fit)
            if begun is not None:
                return begun
            ids.remove(fit.id)
        return None

    def fetch(self, begun: Begun) -> None:
        """Bring the rows of a fit to this host, where they are elsewhere."""
        if self._artifacts.find(begun.calibration_set) is None:
            raise Unavailable("the rows of this fit are not to be found")

    def renew(self, begun: Begun, *, progress: float) -> bool:
        """Go on holding a fit; False when it was cancelled, or is another process's."""
        until = self._clock() + LEASE_SECONDS
        with self._store.write() as transaction:
            return transaction.fits.renew(
                begun.fit_id, owner=self._owner, lease_until=until, progress=progress
            )

    def release(self, begun: Begun) -> None:
        """Leave a fit that was not finished to whoever claims it next."""
        with contextlib.suppress(DatabaseUnavailable), self._store.write() as transaction:
            transaction.fits.release(begun.fit_id, owner=self._owner)

    def fail(self, begun: Begun, sentence: str) -> None:
        """Give a fit up."""
        with contextlib.suppress(DatabaseUnavailable), self._store.write() as transaction:
            fit = transaction.fits.by_id(begun.fit_id, lock=True)
            if fit is not None and fit.owner == self._owner and fit.state == "running":
                self._give_up(transaction, fit, sentence)

    def ended(self, fit_ids: Collection[int]) -> set[int]:
        """Those of these fits that have ended, whoever ran them."""
        if not fit_ids:
            return set()
        with self._store.read() as transaction:
            return transaction.fits.ended(fit_ids)

    def finish(self, begun: Begun, fitted: Fitted) -> None:
        """Store what came of a fit, if it is still this process's to end.

        Raises `DatabaseUnavailable`: nothing is stored; it can be tried again.
        """
        fit_id, now = begun.fit_id, self._clock()
        with self._store.write() as transaction:
            fit = transaction.fits.by_id(fit_id)
            if fit is None:
                return
            transaction.models.lock(fit.model)  # first in the order of locks
            fit = transaction.fits.by_id(fit_id, lock=True)
            if fit is None or fit.state != "running" or fit.owner != self._owner:
                _LOG.warning("fit %d was taken over by another process", fit_id)
                return
            if fitted.error is not None:
                transaction.fits.end(fit_id, "failed", now=now, error=fitted.error)
                return
            settled = self._ending.settle(
                transaction, fit, begun.incumbent, fitted, judged_revision=begun.revision, now=now
            )
        self._ending.take_over(settled)

    def _suits(self, fit: FitRow, now: float) -> bool:
        here = self._catalogue.find(fit.model, fit.version) is not None
        has_rows = here and self._artifacts.exists(fit.calibration_set)
        return has_rows or now - fit.created_at > _PATIENCE_SECONDS

    def _begin(self, transaction: Transaction, fit: FitRow) -> Begun | None:
        if fit.attempts > _MAX_ATTEMPTS:
            sentence = f"the service ended {_MAX_ATTEMPTS} times during this fit"
            self._give_up(transaction, fit, sentence)
            return None
        try:
            return self._claimed(transaction, fit)
        except LookupError:
            _LOG.exception("fit %d cannot be begun", fit.id)
            self._give_up(transaction, fit, "the fit could not be begun; the log says more")
            return None

    def _give_up(self, transaction: Transaction, fit: FitRow, sentence: str) -> None:
        transaction.fits.end(fit.id, "failed", now=self._clock(), error=sentence)

    def _claimed(self, transaction: Transaction, fit: FitRow) -> Begun:
        version = transaction.models.version(fit.model, fit.version)
        if version is None:
            raise LookupError(f"version {fit.version} of {fit.model} is not registered")
        incumbent, seen = current_calibrator(transaction, version), b""
        if incumbent.calibration_set is not None:
            seen = transaction.calibration_sets.row_digests(fit.model, incumbent.calibration_set)
        job = Job(
            path=self._artifacts.path(fit.calibration_set),
            n_classes=len(version.class_names),
            method=fit.method,
            incumbent=incumbent.document,
            seen_row_digests=seen,
            created_at=self._clock(),
            allow_prediction_change=fit.allow_prediction_change,
            reference=self._reference(transaction, fit),
            before=_fitted_before(transaction, fit),
        )
        live = transaction.promotions.live(fit.model)
        revision = None if live is None else live.revision
        return Begun(fit.id, incumbent, revision, fit.calibration_set, job)

    def _reference(self, transaction: Transaction, fit: FitRow) -> Path | None:
        """The set that somebody pinned, of a fit that nobody asked for."""
        if fit.trigger is None:
            return None
        pinned = transaction.calibration_sets.get(fit.model, self._ending.reference)
        return None if pinned is None else self._artifacts.path(pinned.digest)


def _fitted_before(transaction: Transaction, fit: FitRow) -> FittedBefore | None:
    """Rows that were fitted in this way before are judged only."""
    found = transaction.earlier_fits.fitted(fit)
    return None if found is None else FittedBefore(found[0], tuple(found[1]))
