"""Where the JSON bodies of hot routes are parsed: small on the event loop, large in one thread.

How they are parsed is in `json_rows` (predictions) and `oip` (Open Inference Protocol). Both parse
a large body in blocks, so that the event loop gets its turn while the thread is parsing.
"""

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

INLINE_BYTES: Final = 1 << 18  # half a millisecond as an array, 4 ms as lists
_MAX_IN_PROGRESS: Final = 16  # large bodies that are parsed or wait, all in memory


class JsonBodies:
    """Parses JSON bodies without blocking other requests.

    One thread is enough for the large ones: parsers hold the interpreter's lock, so two would only
    take turns. Both methods raise `Overloaded` if too many large bodies are in progress.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "trueprob-json")
        self._in_progress = 0

    async def decode(self, body: bytes) -> tuple[str, NDArray[Any] | list[bytes]]:
        """Read a prediction body with `json_rows.decode`."""
        if len(body) <= INLINE_BYTES:
            return json_rows.decode(body)
        return await self._in_thread(lambda: json_rows.decode(body))

    async def decode_inference(self, body: bytes, header_length: int | None) -> oip.OipRequest:
        """Read an inference request with `oip.decode`; only its JSON part counts as large."""
        if (len(body) if header_length is None else header_length) <= INLINE_BYTES:
            return oip.decode(body, header_length)
        return await self._in_thread(lambda: oip.decode(body, header_length))

    def close(self) -> None:
        """Stop the thread after the bodies that wait for it."""
        self._thread.shutdown()

    async def _in_thread(self, decode: Callable[[], Decoded]) -> Decoded:
        if self._in_progress >= _MAX_IN_PROGRESS:
            raise Overloaded(
                f"{_MAX_IN_PROGRESS} large JSON bodies are being parsed or wait to be parsed"
            )
        self._in_progress += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, decode)
        finally:
            self._in_progress -= 1
