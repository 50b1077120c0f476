"""Bodies as clients compress them, and what a slow reader makes of them."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def _every_stream(data: bytes) -> bytes:
    inflated = b""
    while data:
        stream = zlib.decompressobj()
        inflated += stream.decompress(data)
        assert stream.eof
        data = stream.unused_data
    return inflated


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, mtime=0),
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": _every_stream,
    "zstd": zstd.decompress,
}
