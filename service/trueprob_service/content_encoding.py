"""Inflating request bodies: gzip, deflate and zstd, piece by piece and under a limit.

No piece is larger than `PIECE_BYTES`, so a body of a few kilobytes that stands for gigabytes costs
its limit and one piece. Several members one after another (RFC 1952, 2.2) are one body, and so are
several zstd frames. ``deflate`` is what RFC 9110 means by it: the zlib format of RFC 1950.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator
from typing import Final

from trueprob_service.errors import BadRequest, BodyTooLarge, UnsupportedEncoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["CODINGS", "PIECE_BYTES", "Inflater", "coding_of"]

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
