"""Batches concurrent requests for one network, without adding delay.

There is one bounded queue and one worker thread, which owns the session. Requests that arrive
while a batch runs form the next one; an idle worker starts with a single request at once. The
queue is bounded in rows: a request that does not fit is refused at once, with a time to retry
after. If a batch fails, its requests are run one by one, so that only the faulty one fails. Rows of
a cancelled request are not run. A batch has rows of one shape: a request of another length of text
begins the next one.

A session that does not work is replaced: one whose run outlives the deadline, and one that fails on
these rows and on zeros too. Until another session is loaded, requests of this network are refused.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from trueprob_service.errors import (
    BodyTooLarge,
    InferenceFailed,
    InvalidRequest,
    ModelUnavailable,
    Overloaded,
)
from trueprob_service.inference.network.tensors import NamedTensors, Tensors, joined, row_shapes

__all__ = ["BatchNetwork", "Batcher"]

_log = logging.getLogger(__name__)
_SMOOTHING: Final = 0.2  # weight of the last batch in the average time per row
_MAX_RETRY_SECONDS: Final = 60
_DEADLINE_SECONDS: Final = 60.0
_RELOAD_SECONDS: Final = 30.0  # from a session that could not be loaded to the next attempt
_MOST_ABANDONED: Final = 2  # threads that run on in sessions given up; with more, none is loaded


class BatchNetwork(Protocol):
    """A network that runs a batch; called in one thread only."""

    def run(self, rows: Any) -> NDArray[np.float32]:  # an array or `NamedTensors`
        """Logits of shape (n, k) for a batch."""

    def stop(self) -> None:
        """End the present run if that is possible; called in another thread."""


@dataclass(eq=False)
class _Worker:
    """A thread with its session, and what that runs now."""

    thread: threading.Thread | None = None
    network: BatchNetwork | None = None
    batch: Sequence[_Request] = ()
    since: float | None = None  # when the present run began


@dataclass(eq=False)
class _Request:
    rows: Tensors
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[NDArray[np.float32]]
    queued_at: float = field(default_factory=time.perf_counter)
    cancelled: bool = False
    next_check: asyncio.TimerHandle | None = None

    def resolve(self, logits: NDArray[np.float32] | Exception) -> None:
        """Set the outcome in the event loop that waits for it."""

        def set_outcome() -> None:
            if self.answer.done():
                return
            if isinstance(logits, Exception):
                self.answer.set_exception(logits)
            else:
                self.answer.set_result(logits)

        try:
            self.loop.call_soon_threadsafe(set_outcome)
        except RuntimeError:
            _log.info("a request's event loop closed before its batch was done")


class Batcher:
    """A network with a bounded queue and a thread of its own."""

    def __init__(
        self,
        load: Callable[
            [], BatchNetwork
        ],  # called in the worker thread; the constructor waits for it
        *,
        max_batch_rows: int,
        queue_rows: int,  # most rows that may wait
        observe: Callable[..., None],  # `(rows=, seconds=, delays=, waiting=)` after each batch
        name: str,  # for the thread's name and for messages
        deadline_seconds: float = _DEADLINE_SECONDS,  # of one run of the network
        reload_seconds: float = _RELOAD_SECONDS,
    ) -> None:
        self._max_batch_rows, self._queue_rows = max_batch_rows, queue_rows
        self._observe, self._name = observe, name
        self._load = load
        self._deadline_seconds, self._reload_seconds = deadline_seconds, reload_seconds
        self._waiting: deque[_Request] = deque()
        self._waiting_rows = 0
        self._seconds_a_row = 0.0
        self._changed = threading.Condition()
        self._closed = False
        self._failure: Exception | None = None
        self._abandoned: list[_Worker] = []
        # Why no session runs now, in one sentence; None while one does.
        self.failure: str | None = None
        loaded = threading.Event()
        self._worker = _Worker()
        self._start(self._worker, loaded)
        loaded.wait()
        if self._failure is not None:
            raise self._failure

    async def run(self, rows: Tensors) -> NDArray[np.float32]:
        """Logits of shape (n, k) for the rows of a request.

        Raises `BodyTooLarge` for more rows than the queue holds, `Overloaded` if it is full now,
        `InvalidRequest` for rows that the network cannot take, `ModelUnavailable` while no session
        works, and `InferenceFailed` if it fails on these rows only.
        """
        n = len(rows)
        if n > self._queue_rows:
            raise BodyTooLarge(f"got {n} rows, at most {self._queue_rows} fit into the queue")
        loop = asyncio.get_running_loop()
        request = _Request(rows, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise ModelUnavailable(f"the network {self._name} is being stopped")
            if self.failure is not None:
                raise ModelUnavailable(f"the network {self._name} does not run: {self.failure}")
            if self._waiting_rows + n > self._queue_rows:
                raise Overloaded(
                    f"{self._waiting_rows} rows wait for {self._name}, "
                    f"at most {self._queue_rows} may wait",
                    retry_after_seconds=self._retry_after_seconds(),
                )
            self._waiting.append(request)
            self._waiting_rows += n
            self._changed.notify()
        deadline = loop.call_later(self._deadline_seconds, self._check_deadline, request)
        try:
            return await request.answer
        except asyncio.CancelledError:
            self._cancel(request)
            raise
        finally:
            deadline.cancel()
            if request.next_check is not None:
                request.next_check.cancel()

    def close(self) -> None:
        """Refuse the requests that wait and stop the thread after the running batch."""
        with self._changed:
            self._closed = True
            refused, self._waiting = self._waiting, deque()
            self._waiting_rows = 0
            self._changed.notify()
        for request in refused:
            request.resolve(ModelUnavailable(f"the network {self._name} was stopped"))
        thread = self._worker.thread
        if thread is not None and threading.current_thread() is not thread:
            thread.join(timeout=30)

    def _cancel(self, request: _Request) -> None:
        with self._changed:
            request.cancelled = True
            if request in self._waiting:
                self._waiting.remove(request)
                self._waiting_rows -= len(request.rows)

    # ----- Sessions that do not work -----

    def _check_deadline(self, request: _Request) -> None:
        """Replace the session if its run is too long; called in the loop of a waiting request."""
        if request.answer.done():
            return
        since = self._worker.since
        late = 0.0 if since is None else time.monotonic() - since
        if late >= self._deadline_seconds:
            self._replace(self._worker, f"a run took longer than {self._deadline_seconds:g} s")
        else:
            again = max(0.05, self._deadline_seconds - late)
            request.next_check = request.loop.call_later(again, self._check_deadline, request)

    def _replace(self, worker: _Worker, reason: str) -> None:
        """Give a session up, refuse what waits for it, and load another one."""
        with self._changed:
            if worker is not self._worker or self._closed:
                return
            refused = [*worker.batch, *self._waiting]
            self._waiting.clear()
            self._waiting_rows = 0
            self._abandoned.append(worker)
            self._worker = _Worker()
            self.failure = f"{reason}; its session is being replaced"
            self._changed.notify_all()
        _log.error("%s: %s; its session is replaced", self._name, reason)
        for request in refused:
            request.resolve(ModelUnavailable(f"the network {self._name} does not run: {reason}"))
        if worker.network is not None:
            worker.network.stop()
        self._start(self._worker, None)

    def _start(self, worker: _Worker, loaded: threading.Event | None) -> None:
        worker.thread = threading.Thread(
            target=self._work, args=(worker, loaded), name=f"network {self._name}", daemon=True
        )
        worker.thread.start()

    def _load_again(self) -> BatchNetwork | None:
        """Load a session in place of one that was given up; None if closed meanwhile."""
        while not self._closed:
            self._abandoned = [
                each
                for each in self._abandoned
                if each.thread is not None
                and each.thread.is_alive()
                and each.thread is not threading.current_thread()
            ]
            if len(self._abandoned) <= _MOST_ABANDONED:
                try:
                    return self._load()
                except Exception as error:  # noqa: BLE001 - the next attempt may succeed
                    self.failure = f"its session cannot be loaded again ({type(error).__name__})"
                    _log.error("%s: %s", self._name, self.failure, exc_info=error)
            else:
                self.failure = "too many of its runs do not end; restart the service"
            with self._changed:
                self._changed.wait_for(lambda: self._closed, timeout=self._reload_seconds)
        return None

    # ----- The worker's thread -----

    def _work(self, worker: _Worker, loaded: threading.Event | None) -> None:
        network: BatchNetwork | None = None
        try:
            network = self._load() if loaded is not None else self._load_again()
        except Exception as error:  # noqa: BLE001 - raised by the constructor
            self._failure = error
        finally:
            if loaded is not None:
                loaded.set()
        if network is None:
            return
        worker.network = network
        if loaded is None:
            with self._changed:
                self.failure = None
            _log.warning("%s: another session runs", self._name)
        while batch := self._next_batch(worker):
            started = time.perf_counter()
            self._run_batch(worker, network, batch)
            if worker is not self._worker:
                return  # given up: the rows were answered
            seconds = time.perf_counter() - started
            rows = sum(len(request.rows) for request in batch)
            self._seconds_a_row += _SMOOTHING * (seconds / rows - self._seconds_a_row)
            try:
                self._observe(
                    rows=rows,
                    seconds=seconds,
                    delays=[started - request.queued_at for request in batch],
                    waiting=self._waiting_rows,
                )
            except Exception:  # noqa: BLE001 - without this thread all clients would wait
                _log.exception("%s: the metrics of a batch could not be recorded", self._name)

    def _next_batch(self, worker: _Worker) -> list[_Request]:
        """Whole requests up to the row limit, at least one; empty when closed or given up."""
        with self._changed:
            worker.batch = ()
            while not self._waiting and not self._closed and worker is self._worker:
                self._changed.wait()
            if worker is not self._worker:
                return []
            batch: list[_Request] = []
            rows = 0
            while self._waiting:
                first = self._waiting[0].rows
                n = len(first)
                if batch and (
                    rows + n > self._max_batch_rows
                    or row_shapes(first) != row_shapes(batch[0].rows)
                ):
                    break
                batch.append(self._waiting.popleft())
                rows += n
            self._waiting_rows -= rows
            worker.batch = batch
            return batch

    def _run_batch(self, worker: _Worker, network: BatchNetwork, batch: Sequence[_Request]) -> None:
        if len(batch) > 1:
            try:
                logits = _timed(worker, network, joined([request.rows for request in batch]))
            except Exception:  # noqa: BLE001 - running each alone finds the faulty one
                _log.warning("a batch of %d requests failed: running each alone", len(batch))
            else:
                start = 0
                for request in batch:
                    request.resolve(logits[start : start + len(request.rows)])
                    start += len(request.rows)
                return
        for request in batch:
            if request.cancelled:
                continue
            if worker is not self._worker:
                return  # given up: the others were refused
            try:
                request.resolve(self._run_alone(worker, network, request))
            except InvalidRequest as error:
                request.resolve(error)
            except Exception as error:  # noqa: BLE001 - one bad request must not end the worker
                if worker is self._worker and not self._works(worker, network, request.rows):
                    _log.exception("%s raised", self._name)
                    self._replace(worker, "its session fails on every input")
                    return
                if isinstance(error, InferenceFailed):
                    _log.error("%s: %s", self._name, error.detail)
                    request.resolve(error)
                else:
                    _log.exception("%s raised", self._name)
                    request.resolve(InferenceFailed(f"{type(error).__name__}"))

    def _works(self, worker: _Worker, network: BatchNetwork, rows: Tensors) -> bool:
        """Whether the session answers rows without content, as it did when it was loaded."""
        try:
            _timed(worker, network, _blank(rows[:1]))
        except Exception:  # noqa: BLE001 - that is the answer
            return False
        return True

    def _run_alone(
        self, worker: _Worker, network: BatchNetwork, request: _Request
    ) -> NDArray[np.float32]:
        rows, step = request.rows, self._max_batch_rows
        blocks: list[NDArray[np.float32]] = []
        for start in range(0, len(rows), step):
            if blocks and request.cancelled:
                break
            blocks.append(_timed(worker, network, rows[start : start + step]))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _retry_after_seconds(self) -> int:
        """Estimated time to run the rows that wait, from the time per row of recent batches."""
        seconds = math.ceil(self._waiting_rows * self._seconds_a_row)
        return min(max(seconds, 1), _MAX_RETRY_SECONDS)


def _timed(worker: _Worker, network: BatchNetwork, rows: Any) -> NDArray[np.float32]:
    """Run a network, and note since when."""
    worker.since = time.monotonic()
    try:
        return network.run(rows)
    finally:
        worker.since = None


def _blank(rows: Tensors) -> Tensors:
    """Rows of the same shape that every network takes; of several inputs one may be a mask."""
    if isinstance(rows, NamedTensors):
        return replace(rows, arrays={name: np.ones_like(a) for name, a in rows.arrays.items()})
    return np.zeros_like(rows)
