"""NumPy bodies: one array (``application/x-npy``), or several by name (``application/x-npz``).

The shape in a header must agree with the length of the body before anything is allocated. Pickled
(object) arrays are refused unread. The format is that of NumPy Enhancement Proposal 1.

An ``.npz`` request has one array of rows and may have ``ids``. In an ``.npz`` answer, text is
NumPy's fixed-width unicode and a single value is an array without dimensions, so that
``numpy.load(file, allow_pickle=False)`` reads all of it. A field that would be null in JSON is left
out.
"""

from __future__ import annotations

import io
import math
import tokenize
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from trueprob.arrays.files import read_arrays
from trueprob_service.errors import BadRequest, InvalidRequest
from trueprob_service.receipts.identified import checked_ids

__all__ = [
    "MEDIA_TYPE",
    "NPZ_MEDIA_TYPE",
    "SHARED_BYTES",
    "decode",
    "decode_npz",
    "encode",
    "encode_npz",
]

MEDIA_TYPE: Final = "application/x-npy"
NPZ_MEDIA_TYPE: Final = "application/x-npz"
SHARED_BYTES: Final = 1 << 20  # a larger body is received into one preallocated buffer
_OWN_BYTES: Final = 1 << 16  # a larger array is sent without a copy
# The header of a plain array is far shorter; NumPy itself allows 10 000 in untrusted files.
_MAX_HEADER_BYTES: Final = 1000
_PREAMBLE_BYTES: Final = 12  # magic string, version, length of the header


def decode(body: bytes | memoryview, *, name: str) -> NDArray[Any]:
    """Read the array of an ``.npy`` body as a view, in the body's own dtype and order.

    Raises `BadRequest` if the body is not an ``.npy`` file or its length does not fit the header,
    and `InvalidRequest` if the elements are not numbers. `name` is for the messages.
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


def decode_npz(
    body: bytes,
    names: Sequence[str],  # of arrays of rows, of which there must be one
    *,
    max_bytes: int,  # of the file, and of the arrays in it
) -> tuple[str, NDArray[Any], list[str] | None]:
    """Read an ``.npz`` body: the name and the array of its rows, and the ids of the rows.

    Raises `InvalidInput` for a damaged or unsafe file, and `InvalidRequest` for other arrays.
    """
    arrays = read_arrays(body, max_bytes=max_bytes, name="the body")
    given = arrays.pop("ids", None)
    if len(arrays) != 1 or not set(arrays) <= set(names):
        raise InvalidRequest(
            f"the .npz must have exactly one of {', '.join(names)}, and may have ids, got "
            f"{', '.join(name[:40] for name in arrays) or 'none'}"
        )
    ((name, rows),) = arrays.items()
    if rows.dtype.kind not in "fiu":
        raise InvalidRequest(f"{name}: expected numbers, got dtype {rows.dtype}")
    return name, rows, None if given is None else _ids(given)


def _ids(array: NDArray[Any]) -> list[str]:
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        raise InvalidRequest(
            "ids must be one text or integer for each row, got an array of shape "
            f"{array.shape} of {array.dtype}"
        )
    values = array.tolist()
    if array.dtype.kind == "S":
        try:
            values = [value.decode() for value in values]
        except UnicodeDecodeError:
            raise InvalidRequest("ids must be UTF-8") from None
    return checked_ids(values)


def encode(array: NDArray[Any]) -> bytes | tuple[bytes, memoryview]:
    """Write an ``.npy`` body (format 1.0); a large one as its header and the array's own memory.

    A copy holds the interpreter's lock and stops the event loop: 32 MB three times takes 50 ms.
    """
    array = np.ascontiguousarray(array)
    header = _written_header(array.dtype, array.shape)
    if array.nbytes > _OWN_BYTES:
        return header, array.reshape(-1).view(np.uint8).data
    return header + array.tobytes()


def encode_npz(fields: Mapping[str, Any], *, top: int | None = None) -> bytes:
    """Write an uncompressed ``.npz`` archive; values that are None are left out.

    `top` is the number of columns of ``top_classes``, which a list without rows does not show.
    """
    stream = io.BytesIO()
    arrays: dict[str, Any] = {
        name: np.asarray(value) for name, value in fields.items() if value is not None
    }
    for name, value in fields.items():
        if isinstance(value, list) and not value:  # texts of no rows
            arrays[name] = np.empty((0, top or 0) if name == "top_classes" else 0, np.str_)
    np.savez(stream, **arrays)
    return stream.getvalue()


def _header_bytes(preamble: bytes) -> int:
    """End of the header according to the preamble, at most that of the longest accepted header."""
    digits = 2 if preamble[6:7] == b"\x01" else 4
    length = int.from_bytes(preamble[8 : 8 + digits], "little")
    return min(8 + digits + length, _MAX_HEADER_BYTES + _PREAMBLE_BYTES)


# NumPy parses a header as Python source, in 30 µs; most requests of a client have the same one.
@lru_cache(maxsize=256)
def _header(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    stream = io.BytesIO(text)
    version = npy_format.read_magic(stream)
    read_header = {
        (1, 0): npy_format.read_array_header_1_0,
        (2, 0): npy_format.read_array_header_2_0,
    }
    if version not in read_header:
        raise ValueError("unknown version of the format")
    return read_header[version](stream, max_header_size=_MAX_HEADER_BYTES)


@lru_cache(maxsize=256)
def _written_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    described = npy_format.header_data_from_array_1_0(np.broadcast_to(np.zeros((), dtype), shape))
    npy_format.write_array_header_1_0(stream, {**described, "fortran_order": False})
    return stream.getvalue()
