"""``application/x-npy``: one array a body, in NumPy's own format.

The header is believed only as far as the body's length confirms it, and nothing is allocated
before that. Pickled (object) arrays are refused unread.

References
----------
NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import io
import math
import tokenize
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from trueprob_service.errors import BadRequest, InvalidRequest

__all__ = ["MEDIA_TYPE", "SHARED_BYTES", "decode", "encode"]

MEDIA_TYPE: Final = "application/x-npy"
SHARED_BYTES: Final = 1 << 20  # above, a body is read to where it will stay
_OWN_BYTES: Final = 1 << 16  # above, an array is sent from where it is
# A header describes one small array: NumPy's own limit for untrusted headers is 10 000.
_MAX_HEADER_BYTES: Final = 1000
_PREAMBLE_BYTES: Final = 12  # magic string, version, length of the header


def decode(body: bytes | memoryview, *, name: str) -> NDArray[Any]:
    """The array in an ``.npy`` body, without a copy.

    Returns: Read-only, of the body's own numeric dtype and order. Raises `BadRequest`: not an
    ``.npy`` file, or truncated, or longer than its header says. Raises `InvalidRequest`: the
    elements are not numbers.
    """
    if not body:
        raise BadRequest(f"{name}: expected an .npy array, got an empty body")
    view = memoryview(body)
    start = _header_bytes(bytes(view[:_PREAMBLE_BYTES]))
    try:
        shape, fortran_order, dtype = _header(bytes(view[:start]))
    except (ValueError, SyntaxError, tokenize.TokenError, TypeError, MemoryError, RecursionError):
        raise BadRequest(f"{name}: the body is not an .npy array (format 1.0 or 2.0)") from None
    if dtype.hasobject or dtype.kind not in "fiu":
        raise InvalidRequest(f"{name}: expected numbers, got dtype {dtype}")
    expected = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or len(body) - start != expected:
        raise BadRequest(
            f"{name}: the header says shape {shape} of {dtype}, {expected} bytes, "
            f"but {len(body) - start} bytes follow"
        )
    flat = np.frombuffer(body, dtype, offset=start)
    return flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)


def encode(array: NDArray[Any]) -> bytes | tuple[bytes, memoryview]:
    """An ``.npy`` body (format 1.0) for an array; a large one as its header and its own memory.

    Copies hold the interpreter's lock, and so the loop: 32 MB three times is 50 ms.
    """
    array = np.ascontiguousarray(array)
    header = _written_header(array.dtype, array.shape)
    if array.nbytes > _OWN_BYTES:
        return header, array.reshape(-1).view(np.uint8).data
    return header + array.tobytes()


def _header_bytes(preamble: bytes) -> int:
    """Where a header ends, or would have to; no further than any that is read."""
    digits = 2 if preamble[6:7] == b"\x01" else 4
    length = int.from_bytes(preamble[8 : 8 + digits], "little")
    return min(8 + digits + length, _MAX_HEADER_BYTES + _PREAMBLE_BYTES)


# NumPy reads a header as Python source, in 30 µs; a client's requests mostly have the same one.
@lru_cache(maxsize=256)
def _header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream = io.BytesIO(text)
    version = npy.read_magic(stream)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    if version not in read_header:
        raise ValueError("an unknown version of the format")
    return read_header[version](stream, max_header_size=_MAX_HEADER_BYTES)


@lru_cache(maxsize=256)
def _written_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    described = npy.header_data_from_array_1_0(np.broadcast_to(np.zeros((), dtype), shape))
    npy.write_array_header_1_0(stream, {**described, "fortran_order": False})
    return stream.getvalue()
