"""Digests of numbers, not of files: of a whole calibration set, and of each of its rows.

They cover the canonical content, so that the same numbers have the same digest on every machine
and however they came.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits

__all__ = ["PIECE_BYTES", "content_digest", "row_digests"]

# One copy of 100 MB holds the interpreter's lock for a tenth of a second, and a service's other
# requests wait for it.
PIECE_BYTES: Final = 1 << 20


def content_digest(arrays: Mapping[str, NDArray[Any] | None]) -> str:
    """Digest of a calibration set's arrays.

    Returns: ``sha256:`` and 64 hex digits.
    """
    state = hashlib.sha256(b"trueprob calibration set 1\n")
    for name, array in arrays.items():
        if array is None:
            continue
        if array.dtype.kind == "U":
            parts = [text.encode("utf-8", "surrogatepass") for text in array.tolist()]
            lengths = np.array([len(part) for part in parts], dtype="<i8")
            state.update(f"{name} text {len(parts)}\n".encode())
            state.update(lengths.tobytes())
            state.update(b"".join(parts))
            continue
        state.update(f"{name} {array.dtype.name} {array.shape}\n".encode())
        for piece in _canonical(array):
            state.update(piece)
    return f"sha256:{state.hexdigest()}"


def row_digests(logits: Logits, labels: Labels) -> NDArray[np.uint8]:
    """Digest of each row's logits and label.

    Returns: BLAKE2b.
    """
    n, k = logits.shape
    label_bytes = b"".join(_canonical(labels))
    digests, i = bytearray(), 0
    for piece in _canonical(logits):
        for start in range(0, len(piece), 4 * k):
            state = hashlib.blake2b(piece[start : start + 4 * k], digest_size=16)
            state.update(label_bytes[8 * i : 8 * (i + 1)])
            digests += state.digest()
            i += 1
    return np.frombuffer(bytes(digests), dtype=np.uint8).reshape(n, 16)


def _canonical(array: NDArray[np.generic]) -> Iterator[memoryview]:
    """The bytes of an array, some whole rows at a time."""
    step = max(1, PIECE_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        rows = array[start : start + step]
        if rows.dtype.kind == "f":
            rows = np.add(rows, 0.0)  # −0 and 0 are the same number
        rows = np.ascontiguousarray(rows, dtype=rows.dtype.newbyteorder("<"))
        yield rows.reshape(-1).view(np.uint8).data
