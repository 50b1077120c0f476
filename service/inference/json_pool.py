"""Large JSON bodies are parsed in other processes: the parser holds the interpreter's lock.

17 MB take it 0.1 s, in which nothing else here would be answered, not even ``/v2/health/live``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import LifoQueue
from typing import Any, Final, TypeVar

from numpy.typing import NDArray

from service.errors import Overloaded
from service.inference import wire_json, wire_oip
from service.inference.json_worker import JsonWorker
from service.inference.simd_rows import simd_rows
from service.inference.simd_tensors import simd_request

__all__ = ["LARGE_BYTES", "SIMD_BYTES", "JsonPool"]

Decoded = TypeVar("Decoded")

LARGE_BYTES: Final = 1_000_000  # up to 18 ms of parsing; sending it elsewhere costs less
SIMD_BYTES: Final = 4_000_000  # plain rows of numbers: some 8 ms
# Bodies that may wait for each process; they are in memory already.
_WAITING_EACH: Final = 8


class JsonPool:
    """Parses JSON bodies, small ones on the spot.

    Parameters
    ----------
    workers : int
        Child processes, started one by one as they are needed; 0 parses everything here.
    worker : callable, optional
        Makes a `JsonWorker`.
    """

    def __init__(self, workers: int, *, worker: Callable[[], JsonWorker] = JsonWorker) -> None:
        self._workers = [worker() for _ in range(workers)]
        self._threads = ThreadPoolExecutor(max(workers, 1), "trueprob-json")
        self._in_progress = 0
        # The last one used is taken first: a second process starts only when two are needed.
        self._idle: LifoQueue[JsonWorker] = LifoQueue()
        for each in reversed(self._workers):
            self._idle.put(each)

    async def decode(self, body: bytes) -> tuple[str, NDArray[Any] | list[bytes]]:
        """`wire_json.decode`, without holding up other requests.

        Raises
        ------
        Overloaded
            Too many bodies wait already.
        ServiceError
            As `JsonWorker.decode`.
        """
        if len(body) <= LARGE_BYTES or not self._workers:
            return wire_json.decode(body)
        if len(body) <= SIMD_BYTES:
            found = simd_rows(body, wire_json.ARRAYS)
            if found is not None:
                return found
        return await self._elsewhere(lambda worker: worker.decode(body))

    async def decode_inference(
        self, body: bytes, header_length: int | None
    ) -> wire_oip.InferenceRequest:
        """`wire_oip.decode`, without holding up other requests: as large as its JSON part is.

        Raises
        ------
        Overloaded
            Too many bodies wait already.
        ServiceError
            As `JsonWorker.decode_inference`.
        """
        json_bytes = len(body) if header_length is None else header_length
        if json_bytes <= LARGE_BYTES or not self._workers:
            return wire_oip.decode(body, header_length)
        if json_bytes <= SIMD_BYTES and (read := simd_request(body[:json_bytes])) is not None:
            return wire_oip.decode(body, header_length, read=read)
        return await self._elsewhere(lambda worker: worker.decode_inference(body, header_length))

    def close(self) -> None:
        """End the processes; what they were parsing is answered 503."""
        for worker in self._workers:
            worker.close()
        self._threads.shutdown()

    async def _elsewhere(self, decode: Callable[[JsonWorker], Decoded]) -> Decoded:
        most = len(self._workers) * (1 + _WAITING_EACH)
        if self._in_progress >= most:
            raise Overloaded(f"{most} large JSON bodies are being parsed or wait for it")
        self._in_progress += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._with_a_worker, decode)
        finally:
            self._in_progress -= 1

    def _with_a_worker(self, decode: Callable[[JsonWorker], Decoded]) -> Decoded:
        worker = self._idle.get()  # never waits: there are as many threads as workers
        try:
            return decode(worker)
        finally:
            self._idle.put(worker)
