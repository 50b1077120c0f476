"""What routes receive: the body under its limit, and inflated when it came compressed.

Inflating request bodies: gzip, deflate and zstd, piece by piece and under a limit.

No piece is larger than `PIECE_BYTES`, so a body of a few kilobytes that stands for gigabytes costs
its limit and one piece. Several members one after another (RFC 1952, 2.2) are one body, and so are
several zstd frames. ``deflate`` is what RFC 9110 means by it: the zlib format of RFC 1950.

How large the body of each route may be, and what to do where that is too little.
"""

from __future__ import annotations

import asyncio
import re
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.exceptions import HTTPException

from trueprob_service.errors import BadRequest, BodyTooLarge, UnsupportedEncoding

__all__ = [
    "CODINGS",
    "CONTROL_BYTES",
    "LABELS_BYTES",
    "PIECE_BYTES",
    "BodyLimit",
    "BodyLimits",
    "BodyTooLargeWhileReading",
    "DamagedWhileReading",
    "Inflater",
    "coding_of",
    "inflated",
    "limited",
]


LABELS_BYTES: Final = 32 << 20  # 100 000 labels of predictions take some 11 MB
CONTROL_BYTES: Final = 64 << 10

_UPLOAD: Final = re.compile(r"/v1/models/[^/]+/(calibration-sets(/.*)?|versions)")
_LABELS: Final = re.compile(r"/v1/models/[^/]+/labels")
_PREDICTION: Final = re.compile(r"/v1/models/[^/]+/probabilities")
_INFERENCE: Final = re.compile(r"/v2/models/[^/]+(/versions/[^/]+)?/infer")

_FEWER_LABELS: Final = "send fewer labels a request"
_FEWER_ROWS: Final = "send fewer rows a request"
_FEWER_PICTURES: Final = "send fewer pictures a request"
_NO_JSON: Final = (
    "send rows as .npy (Content-Type application/x-npy) or fewer a request, "
    "pictures as multipart/form-data or fewer a request"
)
_BINARY_TENSORS: Final = "send tensors as binary data, or fewer rows a request"
_SHORTER: Final = (
    "send a shorter document; a model with many class names is a version in the model repository"
)


@dataclass(frozen=True)
class BodyLimit:
    """Of one route."""

    most: int  # bytes, as sent and as what they inflate to
    # what a client can do, as the end of a sentence; empty where there is nothing to say
    remedy: str = ""

    def refusal(self, fault: str) -> str:
        """A sentence for the client: the fault, then the remedy."""
        return f"{fault}: {self.remedy}" if self.remedy else fault


class BodyLimits:
    """The limits of all routes."""

    def __init__(self, max_body_bytes: int, max_upload_bytes: int) -> None:
        self._body = max_body_bytes
        self._upload = BodyLimit(max_upload_bytes)
        self._control = BodyLimit(min(CONTROL_BYTES, max_body_bytes), _SHORTER)
        self.labels = BodyLimit(min(LABELS_BYTES, max_body_bytes), _FEWER_LABELS)
        self.smallest = min(self._control.most, max_upload_bytes)

    def of(self, path: str, content_type: str) -> BodyLimit:
        """The limit of a request."""
        if _PREDICTION.fullmatch(path):
            return BodyLimit(self._body, _prediction_remedy(content_type))
        if _INFERENCE.fullmatch(path):
            return BodyLimit(self._body, _BINARY_TENSORS)
        if _LABELS.fullmatch(path):
            return self.labels
        return self._upload if _UPLOAD.fullmatch(path) else self._control


def _prediction_remedy(content_type: str) -> str:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type == "application/x-npy":
        return _FEWER_ROWS
    if media_type.startswith(("image/", "multipart/")):
        return _FEWER_PICTURES
    return _NO_JSON


if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


CODINGS: Final = ("gzip", "deflate", "zstd")
PIECE_BYTES: Final = 1 << 18  # about a millisecond of inflating
# What zlib has not used yet is copied at every step: it is given little at a time.
_SLICE_BYTES: Final = 1 << 16
# A member costs microseconds however short it is; bgzip writes one for each 64 kB.
_MAX_MEMBERS: Final = 10_000
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}
_ZSTD_WINDOW_LOG: Final = 23  # 8 MiB, the largest that RFC 9659 lets a sender use


def coding_of(header: str) -> str | None:
    """What a Content-Encoding header asks for.

    Returns: one of `CODINGS`, None when the body is as it is. Raises `UnsupportedEncoding`:
    another coding, or several.
    """
    coding = header.strip().lower()
    if coding in ("", "identity"):
        return None
    coding = "gzip" if coding == "x-gzip" else coding
    if coding not in CODINGS:
        raise UnsupportedEncoding(
            f"Content-Encoding {coding[:40]} is not read here: "
            f"expected one of {', '.join(CODINGS)} or none",
            accepted=CODINGS,
        )
    return coding


class Inflater:
    """Inflates one body."""

    def __init__(self, coding: str, *, limit: int) -> None:
        self._coding = coding
        self._limit = limit
        self._member: zlib._Decompress | zstd.ZstdDecompressor | None = None
        self._members = 0
        self._total = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes of the body inflate to.

        Returns: at most `PIECE_BYTES`; may be empty. Raises `BadRequest`: the stream is corrupt.
        Raises `BodyTooLarge`: it inflates to more than the limit.
        """
        for start in range(0, len(data), _SLICE_BYTES):
            rest, pending = data[start : start + _SLICE_BYTES], False
            while rest or pending:
                piece, rest, pending = self._step(rest)
                self._total += len(piece)
                if self._total > self._limit:
                    raise BodyTooLarge(
                        f"the body inflates to more than {self._limit} bytes, "
                        "the most that are read"
                    )
                yield piece

    def finish(self) -> None:
        """Hold that the stream has ended where the body did.

        Raises `BadRequest`: the stream is truncated.
        """
        if self._member is not None or self._members == 0:
            raise BadRequest(f"the body is a truncated {self._coding} stream")

    def _step(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """A piece, the bytes that were not used, and whether more comes without further bytes."""
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
