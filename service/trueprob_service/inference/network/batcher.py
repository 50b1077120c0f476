"""Batches concurrent image requests for one network, without adding delay.

One bounded queue, one worker thread that owns the session. While a batch runs the next one
gathers; an idle worker takes a single image at once. The queue is bounded in rows: what does not
fit is refused at once and told when to come back. A batch that fails is run again request by
request, so that only the culprit fails. Rows of a client that gave up are not run.
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

from trueprob_service.errors import BodyTooLarge, InferenceFailed, ModelUnavailable, Overloaded

__all__ = ["Batcher", "RunsBatches"]

_log = logging.getLogger(__name__)
_RECENT: Final = 0.2  # share of the last batch in the running time of a row
_MOST_RETRY_SECONDS: Final = 60


class RunsBatches(Protocol):
    """What a batcher needs of a network."""

    def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Logits of shape (n, k) for a batch."""


@dataclass(eq=False)
class _Request:
    images: NDArray[Any]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[NDArray[np.float32]]
    queued_at: float = field(default_factory=time.perf_counter)
    given_up: bool = False

    def resolve(self, logits: NDArray[np.float32] | Exception) -> None:
        """Hand over the outcome, in the loop that waits for it."""

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
    """A network behind a bounded queue."""

    def __init__(
        self,
        load: Callable[[], RunsBatches],
        *,
        max_batch_rows: int,
        queue_rows: int,  # rows that may wait
        observe: Callable[..., None],  # `(rows=, seconds=, delays=, waiting=)` after each batch
        name: str,  # for the thread and the messages
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

    async def run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Logits of a request's images.

        Raises `BodyTooLarge`: more images than may ever wait. Raises `Overloaded`: the queue is
        full now. Raises `InferenceFailed`: the network raised on these images.
        """
        n = len(images)
        if n > self._queue_rows:
            raise BodyTooLarge(f"got {n} images, at most {self._queue_rows} fit into the queue")
        loop = asyncio.get_running_loop()
        request = _Request(images, loop, loop.create_future())
        with self._changed:
            if self._closed:
                raise ModelUnavailable(f"the network {self._name} is being stopped")
            if self._waiting_rows + n > self._queue_rows:
                raise Overloaded(
                    f"{self._waiting_rows} images wait for {self._name}, "
                    f"at most {self._queue_rows} may",
                    retry_after_seconds=self._retry_after_seconds(),
                )
            self._waiting.append(request)
            self._waiting_rows += n
            self._changed.notify()
        try:
            return await request.answer
        except asyncio.CancelledError:
            self._give_up(request)
            raise

    def close(self) -> None:
        """Refuse what waits and end the thread after the batch that runs."""
        with self._changed:
            self._closed = True
            abandoned, self._waiting = self._waiting, deque()
            self._waiting_rows = 0
            self._changed.notify()
        for request in abandoned:
            request.resolve(ModelUnavailable(f"the network {self._name} was stopped"))
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=30)

    def _give_up(self, request: _Request) -> None:
        with self._changed:
            request.given_up = True
            if request in self._waiting:
                self._waiting.remove(request)
                self._waiting_rows -= len(request.images)

    def _work(self, load: Callable[[], RunsBatches], loaded: threading.Event) -> None:
        try:
            network = load()
        except Exception as error:  # noqa: BLE001 - handed to the constructor, which raises it
            self._failure = error
            return
        finally:
            loaded.set()
        while batch := self._next_batch():
            started = time.perf_counter()
            self._run_batch(network, batch)
            seconds = time.perf_counter() - started
            rows = sum(len(request.images) for request in batch)
            self._seconds_a_row += _RECENT * (seconds / rows - self._seconds_a_row)
            try:
                self._observe(
                    rows=rows,
                    seconds=seconds,
                    delays=[started - request.queued_at for request in batch],
                    waiting=self._waiting_rows,
                )
            except Exception:  # noqa: BLE001 - a thread that ends here would leave clients waiting
                _log.exception("%s: a batch could not be counted", self._name)

    def _next_batch(self) -> list[_Request]:
        """Whole requests up to the limit, at least one; empty when closed."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            batch: list[_Request] = []
            rows = 0
            while self._waiting:
                n = len(self._waiting[0].images)
                if batch and rows + n > self._max_batch_rows:
                    break
                batch.append(self._waiting.popleft())
                rows += n
            self._waiting_rows -= rows
            return batch

    def _run_batch(self, network: RunsBatches, batch: Sequence[_Request]) -> None:
        if len(batch) > 1:
            try:
                logits = network.run(np.concatenate([r.images for r in batch]))
            except Exception:  # noqa: BLE001 - whose fault it was is found by running each alone
                _log.warning("a batch of %d requests failed: running each alone", len(batch))
            else:
                start = 0
                for request in batch:
                    request.resolve(logits[start : start + len(request.images)])
                    start += len(request.images)
                return
        for request in batch:
            if request.given_up:
                continue
            try:
                request.resolve(self._run_parts(network, request))
            except InferenceFailed as error:
                _log.error("%s: %s", self._name, error.detail)
                request.resolve(error)
            except Exception as error:  # noqa: BLE001 - one bad request must not end the worker
                _log.exception("%s raised", self._name)
                request.resolve(InferenceFailed(f"{type(error).__name__}"))

    def _run_parts(self, network: RunsBatches, request: _Request) -> NDArray[np.float32]:
        images, step = request.images, self._max_batch_rows
        parts: list[NDArray[np.float32]] = []
        for start in range(0, len(images), step):
            if parts and request.given_up:
                break
            parts.append(network.run(images[start : start + step]))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _retry_after_seconds(self) -> int:
        """When the rows that wait will have been run, as far as the last batches tell."""
        seconds = math.ceil(self._waiting_rows * self._seconds_a_row)
        return min(max(seconds, 1), _MOST_RETRY_SECONDS)
