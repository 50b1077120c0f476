"""JSON bodies of the hot routes, small ones parsed on the event loop and large ones in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from numpy.typing import NDArray

from trueprob_service.errors import Overloaded
from trueprob_service.inference.wire import json_rows, oip

__all__ = ["INLINE_BYTES", "JsonBodies"]

Decoded = TypeVar("Decoded")

INLINE_BYTES: Final = 1 << 18  # half a millisecond; lists, where it has to be those, take 4 ms
# Bodies that are parsed or wait for it; they are in memory already.
_MOST: Final = 16


class JsonBodies:
    """Parses JSON bodies without holding up other requests.

    One thread for the large ones: parsers hold the interpreter, so two would only take turns.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "trueprob-json")
        self._in_progress = 0

    async def decode(self, body: bytes) -> tuple[str, NDArray[Any] | list[bytes]]:
        """`json_rows.decode`.

        Raises `Overloaded`: too many large bodies wait already. Raises `ServiceError`: as
        `json_rows.decode`.
        """
        if len(body) <= INLINE_BYTES:
            return json_rows.decode(body)
        return await self._in_thread(lambda: json_rows.decode(body))

    async def decode_inference(
        self, body: bytes, header_length: int | None
    ) -> oip.InferenceRequest:
        """`oip.decode`; large is what has a large JSON part.

        Raises `Overloaded`: too many large bodies wait already. Raises `ServiceError`: as
        `oip.decode`.
        """
        if (len(body) if header_length is None else header_length) <= INLINE_BYTES:
            return oip.decode(body, header_length)
        return await self._in_thread(lambda: oip.decode(body, header_length))

    def close(self) -> None:
        """End the thread once it has parsed what waits for it."""
        self._thread.shutdown()

    async def _in_thread(self, decode: Callable[[], Decoded]) -> Decoded:
        if self._in_progress >= _MOST:
            raise Overloaded(f"{_MOST} large JSON bodies are being parsed or wait for it")
        self._in_progress += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, decode)
        finally:
            self._in_progress -= 1
