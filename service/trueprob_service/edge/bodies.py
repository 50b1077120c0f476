"""What routes receive: the body under its limit, and inflated when it came compressed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

from trueprob_service.content_encoding import Inflater
from trueprob_service.edge.body_limits import BodyLimit
from trueprob_service.errors import BadRequest, BodyTooLarge

__all__ = ["BodyTooLargeWhileReading", "DamagedWhileReading", "inflated", "limited"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]


class BodyTooLargeWhileReading(BodyTooLarge, HTTPException):
    """Raised inside ``receive()``.

    FastAPI turns what a wrapped ``receive()`` raises into a 400, except an HTTPException.
    """

    def __init__(self, detail: str) -> None:
        HTTPException.__init__(self, 413, detail)
        BodyTooLarge.__init__(self, detail)


class DamagedWhileReading(BadRequest, HTTPException):
    """Raised inside ``receive()``: with its own sentence, where FastAPI would put another."""

    def __init__(self, detail: str) -> None:
        HTTPException.__init__(self, 400, detail)
        BadRequest.__init__(self, detail)


def limited(receive: Receive, limit: BodyLimit) -> Receive:
    """A ``receive()`` that gives no more bytes than a limit says.

    Returns: raises `BodyTooLargeWhileReading`.
    """
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit.most:
            raise BodyTooLargeWhileReading(
                limit.refusal(f"the body has more than {limit.most} bytes, the most that are read")
            )
        return message

    return receive_limited


def inflated(receive: Receive, coding: str, limit: BodyLimit) -> Receive:
    """A ``receive()`` that inflates what it is sent, while it arrives.

    Returns: raises `BodyTooLargeWhileReading` and `DamagedWhileReading`.
    """
    inflater = Inflater(coding, limit=limit.most)
    pieces: Iterator[bytes] = iter(())
    more, ended = True, False

    async def receive_inflated() -> Message:
        nonlocal pieces, more, ended
        if ended:
            return await receive()
        try:
            while True:
                for piece in pieces:
                    if piece:
                        # Other requests get their turn between two pieces.
                        await asyncio.sleep(0)
                        return {"type": "http.request", "body": piece, "more_body": True}
                if not more:
                    inflater.finish()
                    ended = True
                    return {"type": "http.request", "body": b"", "more_body": False}
                message = await receive()
                if message["type"] != "http.request":
                    return message
                more = message.get("more_body", False)
                pieces = inflater.feed(message.get("body", b""))
        except BodyTooLarge as error:
            raise BodyTooLargeWhileReading(limit.refusal(error.detail)) from None
        except BadRequest as error:
            raise DamagedWhileReading(error.detail) from None

    return receive_inflated
