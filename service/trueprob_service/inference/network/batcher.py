"""Batches concurrent requests for one network, without adding delay.

There is one bounded queue and one worker thread, which owns the session. Requests that arrive
while a batch runs form the next one; an idle worker starts with a single request at once. The
queue is bounded in rows: a request that does not fit is refused at once, with a time to retry
after. If a batch fails, its requests are run one by one, so that only the faulty one fails. Rows of
a cancelled request are not run. A batch has rows of one shape: a request of another length of text
begins the next one.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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
from trueprob_service.inference.network.tensors import Tensors, joined, row_shapes

__all__ = ["BatchNetwork", "Batcher"]

_log = logging.getLogger(__name__)
_SMOOTHING: Final = 0.2  # weight of the last batch in the average time per row
_MAX_RETRY_SECONDS: Final = 60


class BatchNetwork(Protocol):
    """A network that runs a batch; called in one thread only."""

    def run(self, rows: Any) -> NDArray[np.float32]:  # an array or `NamedTensors`
        """Logits of shape (n, k) for a batch."""


@dataclass(eq=False)
class _Request:
    rows: Tensors
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[NDArray[np.float32]]
    queued_at: float = field(default_factory=time.perf_counter)
    cancelled: bool = False

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
    ) -> None:
        self._max_batch_rows, self._queue_rows = max_batch_rows, queue_rows
        self._observe, self._name = observe, name
        self._waiting: deque[_Request] = deque()
        self._waiting_rows = 0
        self._seconds_a_row = 0.0
        self._changed = threading.Condition()
        self._closed = False
        self._failure: Exception | None = None
        loaded = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(load, loaded), name=f"network {name}", daemon=True
        )
        self._thread.start()
        loaded.wait()
        if self._failure is not None:
            raise self._failure

    async def run(self, rows: Tensors) -> NDArray[np.float32]:
        """Logits of shape (n, k) for the rows of a request.

        Raises `BodyTooLarge` for more rows than the queue holds, `Overloaded` if it is full now,
        `InvalidRequest` for rows that the network cannot take, and `InferenceFailed` if it fails.
        """
        n = len(rows)
        if n > self._queue_rows:
            raise BodyTooLarge(f"got {n} rows, at most {self._queue_rows} fit into the queue")
        loop = asyncio.get_running_loop()
        request = _Request(rows, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise ModelUnavailable(f"the network {self._name} is being stopped")
            if self._waiting_rows + n > self._queue_rows:
                raise Overloaded(
                    f"{self._waiting_rows} rows wait for {self._name}, "
                    f"at most {self._queue_rows} may wait",
                    retry_after_seconds=self._retry_after_seconds(),
                )
            self._waiting.append(request)
            self._waiting_rows += n
            self._changed.notify()
        try:
            return await request.answer
        except asyncio.CancelledError:
            self._cancel(request)
            raise

    def close(self) -> None:
        """Refuse the requests that wait and stop the thread after the running batch."""
        with self._changed:
            self._closed = True
            refused, self._waiting = self._waiting, deque()
            self._waiting_rows = 0
            self._changed.notify()
        for request in refused:
            request.resolve(ModelUnavailable(f"the network {self._name} was stopped"))
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=30)

    def _cancel(self, request: _Request) -> None:
        with self._changed:
            request.cancelled = True
            if request in self._waiting:
                self._waiting.remove(request)
                self._waiting_rows -= len(request.rows)

    def _work(self, load: Callable[[], BatchNetwork], loaded: threading.Event) -> None:
        try:
            network = load()
        except Exception as error:  # noqa: BLE001 - raised by the constructor
            self._failure = error
            return
        finally:
            loaded.set()
        while batch := self._next_batch():
            started = time.perf_counter()
            self._run_batch(network, batch)
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

    def _next_batch(self) -> list[_Request]:
        """Whole requests up to the row limit, at least one; empty when closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
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
            return batch

    def _run_batch(self, network: BatchNetwork, batch: Sequence[_Request]) -> None:
        if len(batch) > 1:
            try:
                logits = network.run(joined([request.rows for request in batch]))
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
            try:
                request.resolve(self._run_alone(network, request))
            except InvalidRequest as error:
                request.resolve(error)
            except InferenceFailed as error:
                _log.error("%s: %s", self._name, error.detail)
                request.resolve(error)
            except Exception as error:  # noqa: BLE001 - one bad request must not end the worker
                _log.exception("%s raised", self._name)
                request.resolve(InferenceFailed(f"{type(error).__name__}"))

    def _run_alone(self, network: BatchNetwork, request: _Request) -> NDArray[np.float32]:
        rows, step = request.rows, self._max_batch_rows
        blocks: list[NDArray[np.float32]] = []
        for start in range(0, len(rows), step):
            if blocks and request.cancelled:
                break
            blocks.append(network.run(rows[start : start + step]))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)

    def _retry_after_seconds(self) -> int:
        """Estimated time to run the rows that wait, from the time per row of recent batches."""
        seconds = math.ceil(self._waiting_rows * self._seconds_a_row)
        return min(max(seconds, 1), _MAX_RETRY_SECONDS)
