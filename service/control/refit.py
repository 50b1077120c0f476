"""Fits, one after another: queued in the database, run in a process of their own.

What a fit needs is in its row and in the stored set, so one that was interrupted is simply run
again at the next start. Its outcome, the calibrator and the promotion are one transaction.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from service.control.artifacts import Artifacts
from service.control.fit_process import FitRunner
from service.control.fit_worker import Fitted, Job
from service.control.models import Catalogue, answering
from service.control.promotion import raise_revision
from service.control.store import Store, Transaction
from service.control.store.calibrators import CalibratorRow
from service.control.store.fits import FitRow
from service.control.store.promotions import PromotionRow
from service.errors import DatabaseUnavailable

__all__ = ["Refits"]

_LOG: Final = logging.getLogger(__name__)
# A set that takes the whole service down with it must not do so at every start for ever.
_MAX_ATTEMPTS: Final = 3
_RETRY_SECONDS: Final = 2.0


class Refits:
    """The queue's one worker.

    Parameters
    ----------
    store : Store
    catalogue : Catalogue
    artifacts : Artifacts
        Where the sets lie.
    runner : FitRunner
        Runs the jobs.
    clock : callable
        Seconds since 1970 UTC.
    """

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        artifacts: Artifacts,
        *,
        runner: FitRunner,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._artifacts = artifacts
        self._runner = runner
        self._clock = clock
        self._waiting: queue.SimpleQueue[tuple[int, Future[None]] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="trueprob-refits", daemon=True)

    def start(self) -> None:
        """Begin to work, first on what was interrupted."""
        with self._store.read() as transaction:
            unfinished = transaction.fits.unfinished()
        for fit_id in unfinished:
            self.submit(fit_id)
        self._thread.start()

    def submit(self, fit_id: int) -> Future[None]:
        """Let a queued fit be run; done when it has ended, however it did."""
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # nobody who waits can cancel it
        self._waiting.put((fit_id, done))
        return done

    def close(self) -> None:
        """Stop; fits that run or wait are left to the next start."""
        self._closing.set()
        self._waiting.put(None)
        self._runner.close()
        if self._thread.is_alive():
            self._thread.join()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            fit_id, done = item
            # Once closing, whoever waits is let go; the fit's row stays as it is.
            while not self._closing.is_set() and not self._ended(fit_id):
                self._closing.wait(_RETRY_SECONDS)
            done.set_result(None)

    def _ended(self, fit_id: int) -> bool:
        """Run a fit; False when it should be tried again."""
        try:
            return self._run(fit_id)
        except DatabaseUnavailable:
            _LOG.warning("fit %d waits for the database", fit_id)
            return False
        except Exception:  # noqa: BLE001 - the next fit has nothing to do with it
            _LOG.exception("fit %d was not finished", fit_id)
            self._fail(fit_id)
            return True

    def _fail(self, fit_id: int) -> None:
        sentence = "the fit could not be finished; the log says more"
        with contextlib.suppress(DatabaseUnavailable), self._store.write() as transaction:
            transaction.fits.end(fit_id, "failed", now=self._clock(), error=sentence)

    def _run(self, fit_id: int) -> bool:
        with self._store.write() as transaction:
            if not transaction.fits.begin(fit_id, now=self._clock()):
                return True
            fit = transaction.fits.by_id(fit_id)
            if fit is None:
                return True
            if fit.attempts > _MAX_ATTEMPTS:
                sentence = f"the service ended {_MAX_ATTEMPTS} times during this fit"
                transaction.fits.end(fit_id, "failed", now=self._clock(), error=sentence)
                return True
            incumbent = _incumbent(transaction, fit)
            job = self._job(transaction, fit, incumbent)
        fitted = self._runner.run(job)
        if fitted is None:
            return False
        self._finish(fit_id, incumbent, fitted)
        return True

    def _job(self, transaction: Transaction, fit: FitRow, incumbent: CalibratorRow) -> Job:
        version = transaction.models.version(fit.model, fit.version)
        if version is None:
            raise LookupError(f"version {fit.version} of {fit.model} is not registered")
        seen = b""
        if incumbent.calibration_set is not None:
            seen = transaction.calibration_sets.row_digests(fit.model, incumbent.calibration_set)
        return Job(
            path=self._artifacts.path(fit.calibration_set),
            n_classes=len(version.class_names),
            method=fit.method,
            incumbent=incumbent.document,
            seen_row_digests=seen,
            created_at=self._clock(),
        )

    def _finish(self, fit_id: int, incumbent: CalibratorRow, fitted: Fitted) -> None:
        now, live_row, revision = self._clock(), None, None
        with self._store.write() as transaction:
            fit = transaction.fits.by_id(fit_id)
            if fit is None:
                return
            transaction.models.lock(fit.model)  # first in the order of locks
            fit = transaction.fits.by_id(fit_id, lock=True)
            if fit is None or fit.state != "running":
                return
            if fitted.error is not None:
                transaction.fits.end(fit_id, "failed", now=now, error=fitted.error)
                return
            transaction.calibrators.add(
                fit.model,
                fit.version,
                calibrator_id=fitted.calibrator,
                kind=fitted.kind,
                document=fitted.document,
                origin="fit",
                admitted=fitted.admitted,
                calibration_set=fit.calibration_set,
                now=now,
            )
            candidate = transaction.calibrators.get(fit.model, fit.version, fitted.calibrator)
            live = transaction.promotions.live(fit.model)
            if candidate is None or live is None:
                raise LookupError(f"model {fit.model} lost its live pair during a fit")
            wanted = fit.promote == "always" or (fit.promote == "auto" and fitted.admitted)
            obstacle = self._obstacle(fit, live, incumbent) if wanted else None
            if wanted and obstacle is None:
                promotion = raise_revision(
                    transaction,
                    live,
                    candidate,
                    cause="admitted" if fitted.admitted else "forced",
                    by=fit.created_by,
                    now=now,
                    fit=fit_id,
                )
                live_row, revision = candidate, promotion.revision
            transaction.fits.end(
                fit_id,
                "done",
                now=now,
                seconds=fitted.seconds,
                verdict={
                    "admitted": fitted.admitted,
                    "reasons": [*fitted.reasons, *([obstacle] if obstacle else [])],
                },
                scores=fitted.scores,
                calibrator=fitted.calibrator,
                admitted=fitted.admitted,
                promoted=revision is not None,
                revision=revision,
            )
        if live_row is not None:
            self._catalogue.deploy(live_row, revision=revision)

    def _obstacle(self, fit: FitRow, live: PromotionRow, incumbent: CalibratorRow) -> str | None:
        """Why a candidate that should be promoted is not, in a sentence."""
        if self._catalogue.find(fit.model, fit.version) is None:
            return f"Not promoted: version {fit.version} is not available here."
        if fit.promote == "always":
            return None
        if live.version != fit.version:
            return f"Not promoted: version {fit.version} is not the live one."
        if live.calibrator != incumbent.calibrator:
            return "Not promoted: another calibrator went live while this one was fitted."
        return None


def _incumbent(transaction: Transaction, fit: FitRow) -> CalibratorRow:
    version = transaction.models.version(fit.model, fit.version)
    if version is None:
        raise LookupError(f"version {fit.version} of {fit.model} is not registered")
    return answering(transaction, version)
