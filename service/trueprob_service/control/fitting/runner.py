"""Fits, one after another in each process: claimed from the database, run in a child of their own.

What a fit needs is in its row and in the stored set, so one that was interrupted is simply run
again, by this process or by another one. Its outcome, the calibrator and the promotion are one
transaction.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Final

from trueprob_service.control.fitting.process import FitRunner
from trueprob_service.control.fitting.queue import LEASE_SECONDS, Begun, FitQueue
from trueprob_service.control.fitting.worker import Fitted
from trueprob_service.errors import DatabaseUnavailable, Unavailable

__all__ = ["Refits"]

_LOG: Final = logging.getLogger(__name__)
_RENEW_SECONDS: Final = LEASE_SECONDS / 6
_RETRY_SECONDS: Final = 2.0


class Refits:
    """The worker of this process."""

    def __init__(
        self, queue: FitQueue, runner: FitRunner, *, seconds: float, deadline_seconds: float
    ) -> None:
        self._queue = queue
        self._runner = runner
        self._seconds = seconds
        self._deadline_seconds = deadline_seconds
        self._awaited: dict[int, Future[None]] = {}
        self._changing = threading.Lock()
        self._wake = threading.Event()
        self._look = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="trueprob-refits", daemon=True)

    def start(self) -> None:
        """Begin to work, first on what was interrupted."""
        self._thread.start()

    def submit(self, fit_id: int) -> Future[None]:
        """Let a queued fit be run; done when it has ended, however it did and whoever ran it."""
        with self._changing:
            done = self._awaited.get(fit_id)
            if done is None:
                done = self._awaited[fit_id] = Future()
                done.set_running_or_notify_cancel()  # nobody who waits can cancel it
        self._wake.set()
        return done

    def cancelled(self) -> None:
        """Look now whether the running fit is still wanted."""
        self._look.set()
        self._wake.set()

    def close(self) -> None:
        """Stop; fits that run or wait are left to the next start, or to another process."""
        self._closing.set()
        self._wake.set()
        self._runner.close()
        if self._thread.is_alive():
            self._thread.join()
        # Whoever waits is let go; the fit's row stays as it is.
        self._settle(self._own())

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            if not self._did_something():
                self._wake.wait(self._seconds)

    def _did_something(self) -> bool:
        try:
            begun = self._queue.claim(self._own())
            more = begun is not None and self._run(begun)
            self._settle(self._queue.ended(self._own()))
        except DatabaseUnavailable:
            _LOG.warning("fits wait for the database")
            return False
        except Exception:  # noqa: BLE001 - the next fit has nothing to do with it
            _LOG.exception("the queue of fits could not be worked on")
            return False
        return more

    def _run(self, begun: Begun) -> bool:
        """Run a claimed fit; False when it was not finished."""
        given_up = threading.Event()
        try:
            with self._held(begun, given_up):
                self._queue.fetch(begun)
                fitted = self._runner.run(begun.job)
                if fitted is not None:
                    self._store(begun, fitted)
        except Unavailable as away:
            self._queue.fail(begun, away.detail)
            return True
        except Exception:  # noqa: BLE001 - whatever it was, this fit must not be begun for ever
            _LOG.exception("fit %d was not finished", begun.fit_id)
            self._queue.fail(begun, "the fit could not be finished; the log says more")
            return True
        if fitted is None:
            self._queue.release(begun)
        return fitted is not None or given_up.is_set()

    def _store(self, begun: Begun, fitted: Fitted) -> None:
        """Store an outcome, as soon as the database takes it."""
        while True:
            try:
                self._queue.finish(begun, fitted)
            except DatabaseUnavailable:
                _LOG.warning("fit %d waits for the database", begun.fit_id)
                if self._closing.wait(_RETRY_SECONDS):
                    return
            else:
                return

    @contextlib.contextmanager
    def _held(self, begun: Begun, given_up: threading.Event) -> Iterator[None]:
        """Extend the lease while the block runs, and hear of fits that end elsewhere.

        The job is given up when the fit was cancelled, belongs to another process now, or has
        taken too long.
        """
        done = threading.Event()
        deadline = time.monotonic() + self._deadline_seconds

        def renew() -> None:
            while not done.is_set():
                self._look.wait(min(self._seconds, _RENEW_SECONDS, self._deadline_seconds))
                self._look.clear()
                if done.is_set():
                    return
                with contextlib.suppress(DatabaseUnavailable):  # it may be back in time
                    if time.monotonic() > deadline:
                        limit = f"the fit took longer than {self._deadline_seconds:g} s"
                        self._queue.fail(begun, limit)
                    if not self._queue.renew(begun, progress=self._runner.progress):
                        given_up.set()
                        self._runner.cancel(begun.job)
                    self._settle(self._queue.ended(self._own()))

        thread = threading.Thread(target=renew, name="trueprob-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            self._look.set()
            thread.join()
            self._look.clear()

    def _own(self) -> set[int]:
        with self._changing:
            return set(self._awaited)

    def _settle(self, ended: set[int]) -> None:
        with self._changing:
            done = [self._awaited.pop(fit_id) for fit_id in ended if fit_id in self._awaited]
        for future in done:
            future.set_result(None)
