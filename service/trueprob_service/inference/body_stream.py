"""Request bodies as they come in; their limit is held by the middleware that `receive` is from."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from starlette.requests import ClientDisconnect

from trueprob_service.errors import BadRequest
from trueprob_service.inference.connection import Receive
from trueprob_service.inference.request import PredictionRequest
from trueprob_service.inference.wire import npy as wire_npy

__all__ = ["read_body", "read_whole"]


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
