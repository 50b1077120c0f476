"""Rows of numbers out of JSON text without a Python object for each of them.

Ten times as fast as lists are, and in a tenth of their memory; only of plain bodies. Whatever is
unusual or wrong is left to the slow reader, which finds the words for it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sized
from typing import Any, Final, cast

import numpy as np
import simdjson
from numpy.typing import NDArray

from trueprob_service.edge.json_blocks import (
    BLOCK_BYTES,
    elements_in_blocks,
    numbers_in_blocks,
    skip_space,
)

__all__ = [
    "BYTE_ORDER_MARK", "MIN_BYTES", "matrix_in_blocks", "numbers", "parser_for", "simd_rows",
]  # fmt: skip

# Below this the slow reader is as fast: 150 numbers or so.
MIN_BYTES: Final = 1 << 10
# A parser keeps what its largest body needed, some four times the body.
_KEPT_BYTES: Final = 4 << 20
# Whole numbers above are not all exact in float64, which they go through here.
_EXACT: Final = 2.0**53
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"  # simdjson skips it, JSON does not allow it

_parsers = threading.local()


def simd_rows(body: bytes, names: tuple[str, ...]) -> tuple[str, NDArray[np.float64]] | None:
    """The one array of a body ``{"name": [[…], …]}``."""
    if body.startswith(BYTE_ORDER_MARK):
        return None
    try:
        document = parser_for(len(body)).parse(body)
        if not isinstance(document, simdjson.Object) or len(document) != 1:
            return None
        (name,) = document
        if name not in names:
            return None
        values = _matrix(document[name], body)
    except (ValueError, TypeError, RuntimeError):
        return None
    return None if values is None else (name, values)


def matrix_in_blocks(
    text: bytes, start: int, *, block_bytes: int = BLOCK_BYTES
) -> tuple[NDArray[np.float64], int] | None:
    """The rows of a list in JSON text, parsed some at a time."""

    def parse(block: bytes) -> NDArray[np.float64] | None:
        # Its own brackets are two more.
        return _rows(block) if len(block) <= block_bytes + 2 else _long_row(block, block_bytes)

    blocks, stop = elements_in_blocks(text, start, b"]", parse, block_bytes=block_bytes)
    if blocks is None or len({block.shape[1] for block in blocks}) != 1:
        return None
    return np.concatenate(blocks), stop


def numbers(block: bytes) -> NDArray[np.int64] | NDArray[np.float64] | None:
    """The numbers of a JSON list of nothing else; whole ones, if all are and fit, as integers."""
    try:
        values = parser_for(len(block)).parse(block)
        if not isinstance(values, simdjson.Array) or block.count(b"[") != 1:
            return None
        try:
            return np.frombuffer(values.as_buffer(of_type="i"), np.int64)
        except (ValueError, TypeError):
            return np.frombuffer(values.as_buffer(of_type="d"), np.float64)
    except (ValueError, TypeError, RuntimeError):
        return None


def _rows(block: bytes) -> NDArray[np.float64] | None:
    try:
        return _matrix(parser_for(len(block)).parse(block), block)
    except (ValueError, TypeError, RuntimeError):
        return None


def _long_row(block: bytes, block_bytes: int) -> NDArray[np.float64] | None:
    start = skip_space(block, 1) + 1
    if block[start - 1 : start] != b"[":
        return None
    parts, stop = numbers_in_blocks(block, start, numbers, block_bytes=block_bytes)
    if parts is None or stop != len(block) - 1:
        return None
    row = np.concatenate(parts).astype(np.float64, copy=False)
    return row[np.newaxis] if _exact(row) else None


def _matrix(rows: Any, text: bytes) -> NDArray[np.float64] | None:
    if not isinstance(rows, simdjson.Array) or not len(rows):
        return None
    widths = {len(row) for row in cast("Iterable[Sized]", rows)}
    flat = np.frombuffer(rows.as_buffer(of_type="d"), np.float64)
    n = len(rows)
    # Rows within rows come out flat as well; no other bracket can be in a text without strings.
    if len(widths) != 1 or flat.size != n * widths.pop() or text.count(b"[") != n + 1:
        return None
    return flat.reshape(n, -1) if _exact(flat) else None


def _exact(values: NDArray[np.float64]) -> bool:
    return not values.size or max(values.max(), -values.min()) < _EXACT


def parser_for(size: int) -> Any:
    """A parser for so many bytes: this thread's own, or one to be thrown away."""
    if size > _KEPT_BYTES:
        return simdjson.Parser()
    parser = getattr(_parsers, "parser", None)
    if parser is None:
        parser = _parsers.parser = simdjson.Parser()
    return parser
