"""Reading request bodies under a limit, to memory or to a file; nothing is read past it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import anyio.to_thread
from starlette.requests import Request

from trueprob_service.edge.body_limits import BodyLimit
from trueprob_service.errors import BadRequest, BodyTooLarge, UnsupportedMediaType

__all__ = ["media_type", "part_file", "read_body", "spool_body"]

# Chunks are gathered before a worker thread writes them: a hop costs more than the copy.
_WRITE_BYTES: Final = 1 << 20


def media_type(request: Request) -> str:
    """The Content-Type without parameters, in lower case; empty when there is none.

    Raises `UnsupportedMediaType`: the body is compressed still: the edge of the service inflates
    what it knows.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding must be identity, got {encoding!r}")
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, *, limit: BodyLimit) -> bytes:
    """The whole body.

    Raises `BodyTooLarge`: it, or the Content-Length that announces it, has more bytes than the
    limit says.
    """
    chunks = [chunk async for chunk in _limited(request, limit)]
    return b"".join(chunks)


async def spool_body(
    request: Request, path: Path, *, limit: int, expected: str = "a calibration set"
) -> int:
    """Write the body to a file as it arrives.

    Returns: bytes written. Raises `BadRequest`: there are none.
    """
    total = 0
    with path.open("xb") as file:
        waiting = bytearray()
        async for chunk in _limited(request, BodyLimit(limit)):
            waiting += chunk
            total += len(chunk)
            if len(waiting) >= _WRITE_BYTES:
                await anyio.to_thread.run_sync(file.write, bytes(waiting))
                waiting.clear()
        await anyio.to_thread.run_sync(file.write, bytes(waiting))
    if total == 0:
        raise BadRequest(f"the body is empty: expected {expected}")
    return total


@contextlib.contextmanager
def part_file(folder: Path) -> Iterator[Path]:
    """A name of its own in a folder; whatever is there when the block ends is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{secrets.token_hex(16)}.part"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


async def _limited(request: Request, limit: BodyLimit) -> AsyncIterator[bytes]:
    announced = request.headers.get("content-length")
    if announced is not None:
        if not (announced.isascii() and announced.isdigit()):
            raise BadRequest("Content-Length must be a number of bytes")
        if int(announced) > limit.most:
            raise BodyTooLarge(
                limit.refusal(
                    f"the body must have at most {limit.most} bytes, got {int(announced)}"
                )
            )
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit.most:
            raise BodyTooLarge(
                limit.refusal(f"the body must have at most {limit.most} bytes, got more")
            )
        yield chunk
