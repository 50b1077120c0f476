"""The body of a prediction request as logits, through the network when it holds pictures.

Request bodies as they come in; their limit is held by the middleware that `receive` is from.

Stopping work for a client that went away; a server tells so through ``receive`` only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect

from trueprob.arrays.logits import (
    as_logits,
    logits_from_log_probabilities,
    logits_from_probabilities,
)
from trueprob_service.errors import (
    BadRequest,
    BodyTooLarge,
    InvalidRequest,
    ModelUnavailable,
    UnsupportedMediaType,
)
from trueprob_service.inference.deployment import Deployment
from trueprob_service.inference.network.input import NetworkInput
from trueprob_service.inference.request import PredictionRequest
from trueprob_service.inference.wire import images as wire_images
from trueprob_service.inference.wire import images as wire_multipart
from trueprob_service.inference.wire import json_rows as wire_json
from trueprob_service.inference.wire import npy as wire_npy
from trueprob_service.inference.wire.json_bodies import JsonBodies

__all__ = [
    "INLINE_ARRAY_ELEMENTS",
    "INLINE_ELEMENTS",
    "BodyReader",
    "Receive",
    "checked_logits",
    "read_body",
    "read_whole",
    "run_network",
    "while_connected",
]


Result = TypeVar("Result")
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


async def while_connected(work: Coroutine[Any, Any, Result], receive: Receive | None) -> Result:
    """Await work, or cancel it when the client goes away."""
    if receive is None:
        return await work
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(
    request: PredictionRequest, headers: Iterable[tuple[bytes, bytes]], receive: Receive
) -> bytes | memoryview:
    """The body of a prediction; a large array of a declared size where it will stay."""
    if request.media_type == wire_npy.MEDIA_TYPE:
        declared = dict(headers).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > wire_npy.SHARED_BYTES:
            return await _read_into(receive, int(declared))
    return await read_whole(receive)


async def _read_into(receive: Receive, size: int) -> memoryview:
    """A body of a declared size, each piece put in place as it comes.

    Joined at the end instead, the loop would stand still for one long copy.
    """
    body = np.empty(size, np.uint8).data
    filled = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        if len(piece) > size - filled:
            raise BadRequest(f"the body is longer than its Content-Length of {size} bytes")
        body[filled : filled + len(piece)] = piece
        filled += len(piece)
        if not message.get("more_body", False):
            return body[:filled]


async def read_whole(receive: Receive) -> bytes:
    """The whole body."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


# Above this many elements arithmetic is long enough to be worth a thread: about a millisecond.
INLINE_ELEMENTS: Final = 20_000
# As binary arrays there is no text to write: 0.45 ms at 256 × 1000, 2 ms where classes are few.
INLINE_ARRAY_ELEMENTS: Final = 1 << 18
# Logits are only looked at, in 0.2 µs a thousand; a thread costs 50 µs before it begins.
_INLINE_CHECK: Final = 1_000_000


@dataclass(frozen=True)
class BodyReader:
    """Reads what a prediction may be asked with."""

    json_bodies: JsonBodies
    max_pixels: int  # limit of one picture
    max_images: int  # limit of a request

    async def logits(
        self,
        request: PredictionRequest,
        body: bytes | memoryview,  # the latter of `.npy` only
        deployment: Deployment,
        receive: Receive | None = None,
    ) -> tuple[NDArray[np.float32], bool, bool]:
        """Logits of a request's body."""
        media_type = request.media_type
        if media_type == wire_npy.MEDIA_TYPE:
            array = wire_npy.decode(body, name=request.array_input)
            n_classes = deployment.served.n_classes
            return await checked_logits(request.array_input, array, n_classes), False, False
        body = bytes(body)
        if media_type == wire_json.MEDIA_TYPE:
            name, values = await self.json_bodies.decode(body)
            if isinstance(values, list):
                return await self._run_pictures(values, deployment, receive), True, True
            return await checked_logits(name, values, deployment.served.n_classes), True, False
        if media_type in wire_images.MEDIA_TYPES:
            return await self._run_pictures([body], deployment, receive), False, True
        if media_type == wire_multipart.MEDIA_TYPE:
            pictures = wire_multipart.decode(body, request.content_type, max_parts=self.max_images)
            return await self._run_pictures(pictures, deployment, receive), False, True
        known = (wire_json.MEDIA_TYPE, wire_npy.MEDIA_TYPE, *wire_images.MEDIA_TYPES)
        raise UnsupportedMediaType(
            f"Content-Type {media_type} is not read here: expected {', '.join(known)} "
            f"or {wire_multipart.MEDIA_TYPE}"
        )

    async def _run_pictures(
        self, pictures: list[bytes], deployment: Deployment, receive: Receive | None
    ) -> NDArray[np.float32]:
        manifest = deployment.served.manifest
        if deployment.network is None or manifest is None or manifest.input is None:
            raise InvalidRequest(
                f"model {deployment.served.model!r} version {deployment.served.version} has no "
                "network here: send logits, probabilities or log_probabilities"
            )
        if len(pictures) > self.max_images:
            raise BodyTooLarge(
                f"images must be at most {self.max_images} a request, got {len(pictures)}"
            )
        taken = NetworkInput.of(manifest.input)
        tensor = await asyncio.to_thread(taken.decode, pictures, max_pixels=self.max_pixels)
        return await run_network(deployment, tensor, receive)


async def run_network(
    deployment: Deployment, tensor: NDArray[Any], receive: Receive | None
) -> NDArray[np.float32]:
    """Logits of the network's own tensor, through the batcher.

    Returns: Finite.
    """
    network = deployment.network
    if network is None:
        raise ModelUnavailable(f"model {deployment.served.model!r} has no network here")
    logits = await while_connected(network.run(tensor), receive)
    if not np.isfinite(logits).all():
        raise ModelUnavailable("the network gave logits that are not finite")
    return logits


async def checked_logits(name: str, values: NDArray[Any], n_classes: int) -> NDArray[np.float32]:
    """What came as logits, probabilities or log-probabilities, as logits; many in a thread."""
    check = _CHECKS[name]
    if values.size <= (_INLINE_CHECK if name == "logits" else INLINE_ELEMENTS):
        return check(values, n_classes=n_classes)
    return await asyncio.to_thread(check, values, n_classes=n_classes)


_CHECKS: Final = {
    "logits": as_logits,
    "probabilities": logits_from_probabilities,
    "log_probabilities": logits_from_log_probabilities,
}
