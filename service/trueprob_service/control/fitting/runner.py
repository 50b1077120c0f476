"""The thread that claims queued fits and runs them one after another.

Everything that a fit needs is in its row and in the stored set. So an interrupted fit is simply run
again, by this process or another. Its result, the calibrator and the promotion are stored in one
transaction.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import replace
from typing import Any, Final

from trueprob_service.control.fitting.process import JobRunner
from trueprob_service.control.fitting.queue import LEASE_SECONDS, ClaimedFit, FitQueue
from trueprob_service.control.fitting.worker import JobResult
from trueprob_service.errors import DatabaseUnavailable, Unavailable
from trueprob_service.logs import REQUEST, TRACEPARENT

__all__ = ["FitRunner"]

_LOG: Final = logging.getLogger(__name__)
_RENEW_SECONDS: Final = LEASE_SECONDS / 6
_RETRY_SECONDS: Final = 2.0
_MOST_REQUESTS: Final = 1_000


class FitRunner:
    """Runs the queued fits in a thread of this process."""

    def __init__(
        self,
        queue: FitQueue,
        jobs: JobRunner,
        *,
        seconds: float,  # between two polls of the database
        deadline_seconds: float,  # a fit that takes longer fails
    ) -> None:
        self._queue = queue
        self._jobs = jobs
        self._seconds = seconds
        self._deadline_seconds = deadline_seconds
        self._awaited: dict[int, Future[None]] = {}
        # Fits that were requested from this process → what the log knows of the requests.
        self._requests: dict[int, tuple[Mapping[str, Any], str]] = {}
        self._changing = threading.Lock()
        self._wake = threading.Event()
        self._check = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="trueprob-fits", daemon=True)

    def start(self) -> None:
        """Start the thread; it runs interrupted fits first."""
        self._thread.start()

    def remember(self, fit_id: int) -> None:
        """Keep what the log knows of the request for a fit, before its row is committed."""
        with self._changing:
            self._requests.setdefault(fit_id, (REQUEST.get(), TRACEPARENT.get()))
            if len(self._requests) > _MOST_REQUESTS:  # fits that other processes ran
                del self._requests[next(iter(self._requests))]

    def submit(self, fit_id: int) -> Future[None]:
        """Wake the thread for a queued fit; the future completes when it ends in any process."""
        with self._changing:
            done = self._awaited.get(fit_id)
            if done is None:
                done = self._awaited[fit_id] = Future()
                done.set_running_or_notify_cancel()  # so that callers cannot cancel it
        self._wake.set()
        return done

    def check_cancelled(self) -> None:
        """Check now whether the running fit was cancelled, instead of at the next poll."""
        self._check.set()
        self._wake.set()

    def close(self) -> None:
        """Stop. Unfinished fits are run after the next start, or by another process."""
        self._closing.set()
        self._wake.set()
        self._jobs.close()
        if self._thread.is_alive():
            self._thread.join()
        # Callers stop waiting; the rows of their fits stay as they are.
        self._complete(self._submitted())

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            if not self._run_next():
                self._wake.wait(self._seconds)

    def _run_next(self) -> bool:
        """Run the next fit, if any; True when there may be more to do."""
        try:
            claimed = self._queue.claim(self._submitted())
            more = claimed is not None and copy_context().run(self._run_as_requested, claimed)
            self._complete(self._queue.ended(self._submitted()))
        except DatabaseUnavailable:
            _LOG.warning("fits wait for the database")
            return False
        except Exception:  # noqa: BLE001 - an error must not stop the thread
            _LOG.exception("the next fit could not be claimed")
            return False
        return more

    def _run_as_requested(self, claimed: ClaimedFit) -> bool:
        """`_run` with the log lines and the trace of the request that asked for the fit."""
        with self._changing:
            request, traceparent = self._requests.get(claimed.fit_id, ({}, ""))
        REQUEST.set(request)
        TRACEPARENT.set(traceparent)
        job = replace(claimed.job, request=request, traceparent=traceparent)
        return self._run(replace(claimed, job=job))

    def _run(self, claimed: ClaimedFit) -> bool:
        """Run a claimed fit; False if it was not finished."""
        lost = threading.Event()
        try:
            with self._renewing(claimed, lost):
                self._queue.fetch(claimed)
                result = self._jobs.run(claimed.job)
                if result is not None:
                    self._store(claimed, result)
        except Unavailable as error:
            self._queue.fail(claimed, error.detail)
            return True
        except Exception:  # noqa: BLE001 - a failing fit must not be claimed for ever
            _LOG.exception("fit %d was not finished", claimed.fit_id)
            self._queue.fail(claimed, "the fit could not be finished; see the log")
            return True
        if result is None:
            self._queue.release(claimed)
        return result is not None or lost.is_set()

    def _store(self, claimed: ClaimedFit, result: JobResult) -> None:
        """Store a result, and retry while the database is unavailable."""
        while True:
            try:
                self._queue.finish(claimed, result)
            except DatabaseUnavailable:
                _LOG.warning("fit %d waits for the database", claimed.fit_id)
                if self._closing.wait(_RETRY_SECONDS):
                    return
            else:
                return

    @contextlib.contextmanager
    def _renewing(self, claimed: ClaimedFit, lost: threading.Event) -> Iterator[None]:
        """Renew the lease while the block runs, and notice fits that end in other processes.

        The job is cancelled, and `lost` is set, when the fit was cancelled, was claimed by another
        process, or has exceeded its deadline.
        """
        done = threading.Event()
        deadline = time.monotonic() + self._deadline_seconds

        def renew() -> None:
            while not done.is_set():
                self._check.wait(min(self._seconds, _RENEW_SECONDS, self._deadline_seconds))
                self._check.clear()
                if done.is_set():
                    return
                with contextlib.suppress(DatabaseUnavailable):  # it may be available again in time
                    if time.monotonic() > deadline:
                        limit = f"the fit took longer than {self._deadline_seconds:g} s"
                        self._queue.fail(claimed, limit)
                    if not self._queue.renew(claimed, progress=self._jobs.progress):
                        lost.set()
                        self._jobs.cancel(claimed.job)
                    self._complete(self._queue.ended(self._submitted()))

        thread = threading.Thread(target=renew, name="trueprob-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            self._check.set()
            thread.join()
            self._check.clear()

    def _submitted(self) -> set[int]:
        with self._changing:
            return set(self._awaited)

    def _complete(self, ended: set[int]) -> None:
        """Complete the futures of fits that have ended."""
        with self._changing:
            done = [self._awaited.pop(fit_id) for fit_id in ended if fit_id in self._awaited]
            for fit_id in ended:
                self._requests.pop(fit_id, None)
        for future in done:
            future.set_result(None)
