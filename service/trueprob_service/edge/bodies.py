"""Request bodies: their size limits, their inflation, and reading them into memory or a file.

`BodyLimits` has the limit of each route. `limited` and `inflated` wrap ``receive()``, so that
routes never get a larger body and never see its Content-Encoding; `read_body` and `spool_body` read
such a body.

`Inflater` accepts gzip, deflate and zstd. It yields pieces of at most `PIECE_BYTES`, so a body of a
few kilobytes that inflates to gigabytes costs no more than its limit and one piece. Several gzip
members (RFC 1952, 2.2) or zstd frames in a row are one body. ``deflate`` means the zlib format of
RFC 1950, as in RFC 9110.
"""

from __future__ import annotations

import asyncio
import re
import sys
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio.to_thread
from starlette.exceptions import HTTPException
from starlette.requests import Request

from trueprob_service.errors import (
    BadRequest,
    BodyTooLarge,
    Overloaded,
    UnsupportedEncoding,
    UnsupportedMediaType,
)

__all__ = [
    "CODINGS",
    "CONTROL_BYTES",
    "LABELS_BYTES",
    "PIECE_BYTES",
    "TEXT_SHARE",
    "BodyLimit",
    "BodyLimits",
    "BodyTooLargeWhileReading",
    "DamagedWhileReading",
    "InflatedBytes",
    "InflatedShare",
    "Inflater",
    "OverloadedWhileReading",
    "coding_of",
    "inflated",
    "limited",
    "media_type",
    "read_body",
    "spool_body",
    "upload_limit",
]

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

CODINGS: Final = ("gzip", "deflate", "zstd")
LABELS_BYTES: Final = 32 << 20  # 100 000 labels of predictions take about 11 MB
CONTROL_BYTES: Final = 64 << 10
TEXT_TYPES: Final = ("application/json", "text/csv")
TEXT_SHARE: Final = 4  # JSON takes up to 17 times its length, so as much as 4 of these limits
PIECE_BYTES: Final = 1 << 18  # about a millisecond of inflating
# zlib copies its unused input at every step, so it gets little at a time.
_SLICE_BYTES: Final = 1 << 16
# Even an empty member costs microseconds. bgzip writes one member for each 64 kB.
_MAX_MEMBERS: Final = 10_000
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
_ZSTD_WINDOW_LOG: Final = 23  # 8 MiB, the largest window that RFC 9659 allows
# Chunks are collected before a thread writes them: switching threads costs more than the copy.
_WRITE_BYTES: Final = 1 << 20

_UPLOAD: Final = re.compile(r"/v1/models/[^/]+/calibration-sets(/.*)?")
_LABELS: Final = re.compile(r"/v1/models/[^/]+/labels")
_PREDICTION: Final = re.compile(r"/v1/models/[^/]+/probabilities")
_INFERENCE: Final = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer")

_NO_TEXT: Final = "send the rows as .npz, which may be larger, or append them part by part"
_FEWER_LABELS: Final = "send fewer labels per request"
_FEWER_ROWS: Final = "send fewer rows per request"
_FEWER_PICTURES: Final = "send fewer pictures per request"
_NO_JSON: Final = (
    "send rows as .npy (Content-Type application/x-npy) or fewer per request, "
    "pictures as multipart/form-data or fewer per request"
)
_BINARY_TENSORS: Final = "send tensors as binary data, or fewer rows per request"
_SHORTER: Final = (
    "send a shorter document; add a model with many class names to the model repository"
)


@dataclass(frozen=True)
class BodyLimit:
    """Limit of one request's body."""

    max_bytes: int  # bytes, both as sent and inflated
    remedy: str = ""  # what a client can do about it, as the end of a sentence
    in_file: bool = False  # whether the body is written to a file as it arrives

    def refusal(self, fault: str) -> str:
        """The error message: the fault, then the remedy."""
        return f"{fault}: {self.remedy}" if self.remedy else fault


class BodyLimits:
    """Body limits of all routes; `max_upload_bytes` is for calibration sets."""

    def __init__(self, max_body_bytes: int, max_upload_bytes: int) -> None:
        self._body = max_body_bytes
        self._max_upload_bytes = max_upload_bytes
        self._control = BodyLimit(min(CONTROL_BYTES, max_body_bytes), _SHORTER)
        self.labels = BodyLimit(min(LABELS_BYTES, max_body_bytes), _FEWER_LABELS)
        text = upload_limit(max_upload_bytes, "text/csv").max_bytes
        self.smallest = min(self._control.max_bytes, text)

    def limit_for(self, path: str, content_type: str) -> BodyLimit:
        """Limit of a request. The content type decides the remedy."""
        if _PREDICTION.fullmatch(path):
            return BodyLimit(self._body, _prediction_remedy(content_type))
        if _INFERENCE.fullmatch(path):
            return BodyLimit(self._body, _BINARY_TENSORS)
        if _LABELS.fullmatch(path):
            return self.labels
        if _UPLOAD.fullmatch(path):
            return upload_limit(self._max_upload_bytes, content_type)
        return self._control


def upload_limit(max_upload_bytes: int, content_type: str) -> BodyLimit:
    """Limit of a calibration set: numbers in text take several times their length in memory."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind in TEXT_TYPES:
        return BodyLimit(max_upload_bytes // TEXT_SHARE, _NO_TEXT, in_file=True)
    return BodyLimit(max_upload_bytes, in_file=True)


def _prediction_remedy(content_type: str) -> str:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-npy":
        return _FEWER_ROWS
    if media_type.startswith(("image/", "multipart/")):
        return _FEWER_PICTURES
    return _NO_JSON


def coding_of(header: str) -> str | None:
    """Content coding of a Content-Encoding header: one of `CODINGS`, None for a plain body.

    Raises `UnsupportedEncoding` for another coding or several.
    """
    coding = header.strip().lower()
    if coding in ("", "identity"):
        return None
    coding = "gzip" if coding == "x-gzip" else coding
    if coding not in CODINGS:
        raise UnsupportedEncoding(
            f"Content-Encoding {coding[:40]} is not supported: "
            f"expected one of {', '.join(CODINGS)} or none",
            accepted=CODINGS,
        )
    return coding


class Inflater:
    """Inflates one body, piece by piece."""

    def __init__(self, coding: str, *, limit: int) -> None:
        self._coding = coding
        self._limit = limit
        self._member: zlib._Decompress | zstd.ZstdDecompressor | None = None
        self._members = 0
        self._total = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Inflate the next bytes of the body into pieces; some may be empty.

        Raises `BadRequest` if the stream is corrupt and `BodyTooLarge` beyond the limit.
        """
        for start in range(0, len(data), _SLICE_BYTES):
            rest, pending = data[start : start + _SLICE_BYTES], False
            while rest or pending:
                piece, rest, pending = self._step(rest)
                self._total += len(piece)
                if self._total > self._limit:
                    raise BodyTooLarge(
                        f"the body inflates to more than {self._limit} bytes, the limit"
                    )
                yield piece

    def finish(self) -> None:
        """Raise `BadRequest` if the body has ended before the stream did."""
        if self._member is not None or self._members == 0:
            raise BadRequest(f"the body is a truncated {self._coding} stream")

    def _step(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Inflate one piece; returns it, the unused input, and whether more output is pending."""
        member = self._member = self._member or self._next_member()
        try:
            piece = member.decompress(data, PIECE_BYTES)
        except (zlib.error, zstd.ZstdError):
            raise BadRequest(f"the body is not a {self._coding} stream, or a corrupt one") from None
        if member.eof:
            self._member = None
            return piece, member.unused_data, False
        if isinstance(member, zstd.ZstdDecompressor):
            return piece, b"", not member.needs_input
        return piece, member.unconsumed_tail, len(piece) == PIECE_BYTES

    def _next_member(self) -> zlib._Decompress | zstd.ZstdDecompressor:
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise BadRequest(f"the body has more than {_MAX_MEMBERS} {self._coding} members")
        if self._coding == "zstd":
            return zstd.ZstdDecompressor(
                options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
            )
        return zlib.decompressobj(_WINDOW_BITS[self._coding])


class BodyTooLargeWhileReading(BodyTooLarge, HTTPException):
    """`BodyTooLarge` for use inside ``receive()``.

    FastAPI turns whatever ``receive()`` raises into a 400, except an HTTPException.
    """

    def __init__(self, detail: str) -> None:
        HTTPException.__init__(self, 413, detail)
        BodyTooLarge.__init__(self, detail)


class DamagedWhileReading(BadRequest, HTTPException):
    """`BadRequest` for use inside ``receive()``, where FastAPI would replace its message."""

    def __init__(self, detail: str) -> None:
        HTTPException.__init__(self, 400, detail)
        BadRequest.__init__(self, detail)


class OverloadedWhileReading(Overloaded, HTTPException):
    """`Overloaded` for use inside ``receive()``, where FastAPI would make it a 400."""

    def __init__(self, detail: str) -> None:
        HTTPException.__init__(self, 503, detail)
        Overloaded.__init__(self, detail)


def limited(receive: Receive, limit: BodyLimit) -> Receive:
    """Wrap ``receive()`` so that it raises `BodyTooLargeWhileReading` beyond the limit."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit.max_bytes:
            raise BodyTooLargeWhileReading(
                limit.refusal(f"the body has more than {limit.max_bytes} bytes, the limit")
            )
        return message

    return receive_limited


class InflatedBytes:
    """Inflated bytes that requests hold until they are answered; a process has one."""

    def __init__(self, total: int) -> None:
        self._free = total

    def take(self, n_bytes: int) -> None:
        """Count more bytes; raises `OverloadedWhileReading` if too many are held."""
        if n_bytes > self._free:
            raise OverloadedWhileReading("compressed bodies hold too much memory: try again")
        self._free -= n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Count bytes that a request held."""
        self._free += n_bytes


class InflatedShare:
    """What one request has taken of `InflatedBytes`."""

    def __init__(self, held: InflatedBytes) -> None:
        self._held = held
        self._taken = 0

    def take(self, n_bytes: int) -> None:
        """Take more; raises `OverloadedWhileReading`."""
        self._held.take(n_bytes)
        self._taken += n_bytes

    def give_back(self) -> None:
        """The request has ended."""
        self._held.give_back(self._taken)
        self._taken = 0


def inflated(
    receive: Receive,
    coding: str,
    limit: BodyLimit,
    share: InflatedShare | None = None,  # of the bytes in memory; None for a body in a file
) -> Receive:
    """Wrap ``receive()`` so that it inflates the body as it arrives.

    It raises `BodyTooLargeWhileReading`, `DamagedWhileReading` and `OverloadedWhileReading`.
    """
    inflater = Inflater(coding, limit=limit.max_bytes)
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
                        if share is not None:
                            share.take(len(piece))
                        # Let other requests run between two pieces.
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
    """Read the whole body into memory.

    Raises `BodyTooLarge` if the body or its Content-Length exceeds the limit.
    """
    chunks = [chunk async for chunk in _limited(request, limit)]
    return b"".join(chunks)


async def spool_body(
    request: Request,
    path: Path,  # must not exist
    *,
    limit: BodyLimit,
    expected: str = "a calibration set",  # for the error message
) -> int:
    """Write the body to a file as it arrives; returns the number of bytes.

    Raises `BadRequest` if the body is empty, and `BodyTooLarge` as `read_body` does.
    """
    total = 0
    with path.open("xb") as file:
        waiting = bytearray()
        async for chunk in _limited(request, limit):
            waiting += chunk
            total += len(chunk)
            if len(waiting) >= _WRITE_BYTES:
                await anyio.to_thread.run_sync(file.write, bytes(waiting))
                waiting.clear()
        await anyio.to_thread.run_sync(file.write, bytes(waiting))
    if total == 0:
        raise BadRequest(f"the body is empty: expected {expected}")
    return total


async def _limited(request: Request, limit: BodyLimit) -> AsyncIterator[bytes]:
    announced = request.headers.get("content-length")
    if announced is not None:
        if not (announced.isascii() and announced.isdigit()):
            raise BadRequest("Content-Length must be a number of bytes")
        if int(announced) > limit.max_bytes:
            raise BodyTooLarge(
                limit.refusal(
                    f"the body must have at most {limit.max_bytes} bytes, got {int(announced)}"
                )
            )
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > limit.max_bytes:
            raise BodyTooLarge(
                limit.refusal(f"the body must have at most {limit.max_bytes} bytes, got more")
            )
        yield chunk
