"""Reads request bodies into memory or a file, and stops at a limit."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import anyio.to_thread
from starlette.requests import Request

from trueprob_service.edge.bodies import BodyLimit
from trueprob_service.errors import BadRequest, BodyTooLarge, UnsupportedMediaType

__all__ = ["media_type", "part_file", "read_body", "spool_body"]

# Chunks are collected before a thread writes them: switching threads costs more than the copy.
_WRITE_BYTES: Final = 1 << 20


def media_type(request: Request) -> str:
    """The Content-Type without parameters, in lower case; empty when there is none.

    Raises `UnsupportedMediaType` if the body is compressed. The middleware has already inflated
    every encoding that it supports and removed the header.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding != "identity":
        raise UnsupportedMediaType(f"Content-Encoding must be identity, got {encoding!r}")
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, *, limit: BodyLimit) -> bytes:
    """The whole body.

    Raises `BodyTooLarge` if the body or its Content-Length exceeds the limit.
    """
    chunks = [chunk async for chunk in _limited(request, limit)]
    return b"".join(chunks)


async def spool_body(
    request: Request,
    path: Path,  # must not exist
    *,
    limit: int,  # bytes
    expected: str = "a calibration set",  # for the error message
) -> int:
    """Write the body to a file as it arrives; returns the number of bytes.

    Raises `BadRequest` if the body is empty, and `BodyTooLarge` as `read_body` does.
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
    """A path in a folder that nothing else uses; the file is removed when the block ends."""
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
