"""The queue of fits in the database: find or add, claim, renew, finish and cancel them.

A claim is a lease. The process that runs a fit renews the lease while it works. If the process
dies, the lease ends and any other process may claim the fit. If the first process was only paused
(in a frozen container, for example), it finds at the end that it has lost the lease, and stores
nothing.

A repeated request gets the earlier fit. Two requests are the same when version, rows (by digest),
method, permission to change predictions and `promote` are the same. The earlier fit is returned

- while it is queued or running,
- while its calibrator is live with its version, and
- while the live pair that it was judged against is still live.

Otherwise a new fit is added. It reuses the calibrator of the earlier fit and judges it against the
present live pair. A failed, cancelled or superseded fit is never returned. Fits of the refit policy
are identified by their trigger alone.

A new fit supersedes those of the model that wait with the same options on other rows; they end in
the state `superseded`. Fits that promote nothing are requested for their reports and stay. The
number of fits that wait is limited for each model.

Models take turns: of those with waiting fits, the one whose last fit began longest ago is next.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trueprob.fitting.methods import method_for_classes
from trueprob_service.control.fitting.outcome import CandidateOutcomes
from trueprob_service.control.fitting.request import FitRequest
from trueprob_service.control.fitting.set_files import SetFiles
from trueprob_service.control.fitting.worker import CalibratorDocument, Job, JobResult
from trueprob_service.control.models.catalogue import Catalogue, current_calibrator
from trueprob_service.control.store import Store, Transaction
from trueprob_service.control.store.fits import WAITING, FitRow
from trueprob_service.control.store.promotions import CalibratorRow
from trueprob_service.errors import (
    Conflict,
    DatabaseUnavailable,
    FitNotFound,
    Overloaded,
    Unavailable,
)
from trueprob_service.inference.deployment import ServedVersion
from trueprob_service.settings import Settings

__all__ = ["LEASE_SECONDS", "ClaimedFit", "FitQueue", "cancel_fit", "find_or_add_fit"]

_LOG: Final = logging.getLogger(__name__)
# Renewed six times in this time. Short, so that the fit of a killed process does not wait long. If
# a live process fails to renew in time, the fit runs twice, which does no other harm.
LEASE_SECONDS: Final = 15.0
# A set that crashes the whole service must not do so at every start.
_MAX_ATTEMPTS: Final = 3
# A process that lacks the rows or the version leaves the fit to the others for this long.
_PATIENCE_SECONDS: Final = 3600.0
_RETRY_SECONDS: Final = 30  # for clients of a model with too many waiting fits


def find_or_add_fit(
    transaction: Transaction,  # holds the model's lock
    served: ServedVersion,
    digest: str,  # of a stored set
    request: FitRequest,
    *,
    settings: Settings,
    now: float,
) -> int:
    """The id of the fit that a request asks for: an earlier one, or a new one in the queue.

    Raises `Overloaded` if too many fits of the model wait.
    """
    keep, change = request.must_keep(settings), request.change_allowed(settings)
    # By its own name: what `smart` fitted with two classes before is no answer to a fit of today.
    method = method_for_classes(
        request.chosen_method(settings), served.n_classes, keep_prediction=keep
    )
    if request.trigger is None:
        earlier = transaction.earlier_fits.newest(
            served.model,
            served.version,
            digest,
            method=method,
            keep_prediction=keep,
            allow_prediction_change=change,
            promote=request.promote,
        )
        if earlier is not None and _is_current(transaction, earlier):
            return earlier.id
    fit_id = transaction.fits.add(
        served.model,
        served.version,
        calibration_set=digest,
        method=method,
        promote=request.promote,
        keep_prediction=keep,
        allow_prediction_change=change,
        created_by=request.by,
        now=now,
        trigger=request.trigger,
    )
    superseded: list[int] = []
    if request.trigger is None:
        if request.promote != "never":
            superseded = transaction.fits.supersede_like(fit_id, now=now)
        waiting = transaction.fits.n_queued(served.model, before=fit_id)
        if waiting >= settings.max_queued_fits:
            raise Overloaded(  # and nothing of this transaction is kept
                f"{waiting} fits of model {served.model!r} wait, the limit: wait until some have "
                "ended, or cancel some",
                retry_after_seconds=_RETRY_SECONDS,
            )
    detail = {"fit": fit_id, "set": digest, "method": method, "promote": request.promote}
    detail |= {"version": served.version, "trigger": request.trigger}
    transaction.audit.add("fit.start", served.model, now=now, detail=detail)
    for older in superseded:
        detail = {"fit": older, "by": fit_id}
        transaction.audit.add("fit.supersede", served.model, now=now, detail=detail)
    return fit_id


def _is_current(transaction: Transaction, fit: FitRow) -> bool:
    """Whether an earlier fit still answers the same request."""
    if fit.state in WAITING:
        return True
    live = transaction.promotions.live(fit.model)
    if fit.state != "done" or live is None:
        return False
    is_live = (live.version, live.calibrator) == (fit.version, fit.calibrator)
    return is_live or live.revision == fit.judged_revision


def cancel_fit(store: Store, model: str, fit_id: int, *, by: str | None, now: float) -> None:
    """Cancel a queued or running fit; its runner notices and stops.

    A cancelled fit may be cancelled again. One that has ended otherwise raises `Conflict`.
    """
    with store.write() as transaction:
        transaction.models.lock(model)  # first in the order of locks
        fit = transaction.fits.by_id(fit_id, lock=True)
        if fit is None or fit.model != model:
            raise FitNotFound(f"model {model!r} has no fit {str(fit_id)!r}")
        if fit.state in ("done", "failed", "superseded"):
            raise Conflict(f"fit {fit_id} is already {fit.state}")
        if fit.state != "cancelled":
            sentence = "cancelled" if by is None else f"cancelled by {by}"
            transaction.fits.end(fit_id, "cancelled", now=now, error=sentence)
            transaction.audit.add("fit.cancel", model, now=now, detail={"fit": fit_id})


@dataclass(frozen=True)
class ClaimedFit:
    """A fit that this process has claimed."""

    fit_id: int
    incumbent: CalibratorRow  # the candidate is judged against it
    revision: int | None  # the model's live revision at the time of the claim
    calibration_set: str  # digest
    job: Job


class FitQueue:
    """One process's access to the queue."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        set_files: SetFiles,
        *,
        outcomes: CandidateOutcomes,
        clock: Callable[
            [], float
        ],  # seconds since 1970 UTC; clocks of hosts differ by far less than a lease
    ) -> None:
        self._outcomes = outcomes
        self._store = store
        self._catalogue = catalogue
        self._set_files = set_files
        self._clock = clock
        self._owner = uuid.uuid4().hex
        self._turns: dict[str, int] = {}  # number of this process's last claim for each model

    def claim(
        self,
        submitted: Collection[int],  # requested from this process, which therefore has their rows
    ) -> ClaimedFit | None:
        """Claim the next fit that this process can run; None when there is none.

        Of one model that is the oldest.
        """
        now = self._clock()
        with self._store.read() as transaction:
            waiting = transaction.fits.waiting(owner=self._owner, now=now)
            last_starts = transaction.fits.last_starts({fit.model for fit in waiting})
        of_model: dict[str, list[int]] = {}
        for fit in sorted(waiting, key=lambda fit: self._turn(fit, last_starts)):
            if fit.id in submitted or self._can_run(fit, now):
                of_model.setdefault(fit.model, []).append(fit.id)
        for ids in of_model.values():
            while ids:
                with self._store.write() as transaction:
                    found = transaction.fits.claim(
                        ids, owner=self._owner, now=now, lease_until=now + LEASE_SECONDS
                    )
                    if found is None:
                        break
                    claimed = self._prepare_or_fail(transaction, found)
                self._turns[found.model] = max(self._turns.values(), default=0) + 1
                if claimed is not None:
                    return claimed
                ids.remove(found.id)
        return None

    def _turn(self, fit: FitRow, last_starts: dict[str, float]) -> tuple[bool, float, int, int]:
        """Sorts waiting fits: interrupted ones first, then models by their last start."""
        turn = self._turns.get(fit.model, 0)  # for starts in one tick of the clock
        return fit.state != "running", last_starts.get(fit.model, 0.0), turn, fit.id

    def fetch(self, claimed: ClaimedFit) -> None:
        """Copy the rows of a fit to this host if need be; raises `Unavailable` without them."""
        if self._set_files.find(claimed.calibration_set) is None:
            raise Unavailable("the rows of this fit were not found")

    def renew(self, claimed: ClaimedFit, *, progress: float) -> bool:
        """Renew the lease; False when the fit was cancelled or another process has claimed it."""
        until = self._clock() + LEASE_SECONDS
        with self._store.write() as transaction:
            return transaction.fits.renew(
                claimed.fit_id, owner=self._owner, lease_until=until, progress=progress
            )

    def release(self, claimed: ClaimedFit) -> None:
        """Give an unfinished fit back to the queue."""
        with contextlib.suppress(DatabaseUnavailable), self._store.write() as transaction:
            transaction.fits.release(claimed.fit_id, owner=self._owner)

    def fail(self, claimed: ClaimedFit, sentence: str) -> None:
        """End a claimed fit as failed."""
        with contextlib.suppress(DatabaseUnavailable), self._store.write() as transaction:
            fit = transaction.fits.by_id(claimed.fit_id, lock=True)
            if fit is not None and fit.owner == self._owner and fit.state == "running":
                self._end_failed(transaction, fit, sentence)

    def ended(self, fit_ids: Collection[int]) -> set[int]:
        """The fits among these that have ended, in any process."""
        if not fit_ids:
            return set()
        with self._store.read() as transaction:
            return transaction.fits.ended(fit_ids)

    def finish(self, claimed: ClaimedFit, result: JobResult) -> None:
        """Store the result of a fit, unless this process has lost the fit.

        On `DatabaseUnavailable` nothing is stored; the call may be repeated.
        """
        fit_id, now = claimed.fit_id, self._clock()
        with self._store.write() as transaction:
            fit = transaction.fits.by_id(fit_id)
            if fit is None:
                return
            transaction.models.lock(fit.model)  # first in the order of locks
            fit = transaction.fits.by_id(fit_id, lock=True)
            if fit is None or fit.state != "running" or fit.owner != self._owner:
                _LOG.warning("fit %d was cancelled or claimed by another process", fit_id)
                return
            if result.error is not None:
                transaction.fits.end(fit_id, "failed", now=now, error=result.error)
                return
            outcome = self._outcomes.store(
                transaction,
                fit,
                claimed.incumbent,
                result,
                judged_revision=claimed.revision,
                now=now,
            )
        self._outcomes.deploy(outcome)

    def _can_run(self, fit: FitRow, now: float) -> bool:
        here = self._catalogue.find(fit.model, fit.version) is not None
        has_rows = here and self._set_files.exists(fit.calibration_set)
        return has_rows or now - fit.created_at > _PATIENCE_SECONDS

    def _prepare_or_fail(self, transaction: Transaction, fit: FitRow) -> ClaimedFit | None:
        if fit.attempts > _MAX_ATTEMPTS:
            sentence = f"the service or its fitting process ended {_MAX_ATTEMPTS} times during it"
            self._end_failed(transaction, fit, sentence)
            return None
        try:
            return self._prepare(transaction, fit)
        except LookupError:
            _LOG.exception("fit %d cannot be started", fit.id)
            self._end_failed(transaction, fit, "the fit could not be started; see the log")
            return None

    def _end_failed(self, transaction: Transaction, fit: FitRow, sentence: str) -> None:
        transaction.fits.end(fit.id, "failed", now=self._clock(), error=sentence)

    def _prepare(self, transaction: Transaction, fit: FitRow) -> ClaimedFit:
        version = transaction.models.version(fit.model, fit.version)
        if version is None:
            raise LookupError(f"version {fit.version} of {fit.model} is not registered")
        incumbent, seen = current_calibrator(transaction, version), b""
        if incumbent.calibration_set is not None:
            seen = transaction.calibration_sets.row_digests(fit.model, incumbent.calibration_set)
        traffic, usual_gaps = self._catalogue.recent_traffic(fit.model, fit.version)
        job = Job(
            path=self._set_files.path(fit.calibration_set),
            class_names=version.class_names,
            method=fit.method,
            incumbent=incumbent.document,
            seen_row_digests=seen,
            created_at=self._clock(),
            keep_prediction=fit.keep_prediction,
            allow_prediction_change=fit.allow_prediction_change,
            reference=self._reference(transaction, fit),
            earlier=_earlier_calibrator(transaction, fit),
            traffic=traffic,
            usual_gaps=usual_gaps,
            blamed_class=None if fit.allow_prediction_change else _blamed_class(transaction, fit),
        )
        live = transaction.promotions.live(fit.model)
        revision = None if live is None else live.revision
        return ClaimedFit(fit.id, incumbent, revision, fit.calibration_set, job)

    def _reference(self, transaction: Transaction, fit: FitRow) -> Path | None:
        """The pinned reference set; only fits of the refit policy are checked on it."""
        if fit.trigger is None:
            return None
        pinned = transaction.calibration_sets.get(fit.model, self._outcomes.reference)
        version = transaction.models.version(fit.model, fit.version)
        if pinned is None or version is None:
            return None
        if pinned.class_names is not None and tuple(pinned.class_names) != version.class_names:
            raise LookupError(
                f"the reference set has the classes {pinned.class_names}, version {fit.version} "
                f"has {version.class_names}"
            )
        return self._set_files.path(pinned.digest)


def _earlier_calibrator(transaction: Transaction, fit: FitRow) -> CalibratorDocument | None:
    """The calibrator that an earlier fit learned from the same rows by the same method."""
    found = transaction.earlier_fits.fitted(fit)
    if found is None:
        return None
    document, warnings = found
    return CalibratorDocument(document, tuple(warnings))


def _blamed_class(transaction: Transaction, fit: FitRow) -> str | None:
    """The class that is named by the alarms that a refit answers."""
    kind, _, first = (fit.trigger or "").partition(":")
    alarm = transaction.alarms.get(fit.model, int(first)) if kind == "alarm" else None
    if alarm is None:
        return None
    # The trigger names the oldest of them.
    alarms = transaction.alarms.of_promotion(fit.model, alarm.revision)
    named = [each.worst_class for each in alarms if each.id >= alarm.id and each.worst_class]
    return str(named[0]["class_name"]) if named else None
