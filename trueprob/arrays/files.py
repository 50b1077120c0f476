"""Reader of `.npz` and `.npy` files from untrusted sources.

The zip directory and the NumPy headers of all arrays are read first. Sizes that are too large or
contradict each other, object arrays, and encrypted or nested members are refused before any data is
decompressed. Nothing is unpickled.
"""

from __future__ import annotations

import ast
import io
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidInput

__all__ = ["UNNAMED", "ArrayHeader", "is_lfs_pointer", "read_array_headers", "read_arrays"]

LFS: Final = b"version https://git-lfs.github.com/spec/"
MAGIC: Final = b"\x93NUMPY"
UNNAMED: Final = "arr_0"  # the name of a lone .npy array, as numpy.savez would call it
MAX_MEMBERS: Final = 64  # a calibration set has at most 5 arrays; benchmark files have more
MAX_RATIO: Final = 1_033  # deflate cannot do better than 1032:1
MAX_NAME: Final = 100
# Numbers and strings; no objects, records, dates or complex numbers.
DTYPE: Final = re.compile(r"[<>|=]?[biufUS][1-9][0-9]{0,8}")
LENGTH_BYTES: Final = {(1, 0): 2, (2, 0): 4, (3, 0): 4}  # of the header's length, by NPY version
MAX_HEADER: Final = 10_000  # NumPy's own limit
PIECE: Final = 1 << 20
DAMAGE: Final = (  # what zipfile raises for damaged archives; found by flipping every byte
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    RuntimeError,
    ValueError,
)


def read_arrays(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    max_bytes: int | None = None,
    name: str = "file",
    narrow: Container[str] = (),
) -> dict[str, NDArray[np.generic]]:
    """Read all arrays of an `.npz` or `.npy` file; the content says which it is.

    Parameters
    ----------
    source : path, bytes or binary file
    max_bytes : int, optional
        Limit on the file, and on all arrays together after decompression. Declared sizes are
        checked before anything is decompressed or allocated.
    name : str
        The caller's name of the file, for error messages.
    narrow : container of str, optional
        Arrays whose numbers of more than 32 bits are cast to float32 while they are read, so that
        memory never holds the wide ones. What is finite and beyond float32 becomes NaN.

    Returns
    -------
    dict of str to ndarray
        A lone `.npy` array is called ``arr_0``.

    Raises
    ------
    InvalidInput
        The file is of another type, damaged, too large or unsafe.
    """
    with _opened(source, max_bytes, name) as file:
        magic = _start(file, max_bytes, name)
        if magic.startswith(MAGIC):
            header = _header_of_npy(file, name)
            return {UNNAMED: _read_array(file, header, name, UNNAMED, UNNAMED in narrow)}
        return _read_archive(file, max_bytes, name, narrow)


def read_array_headers(
    source: str | os.PathLike[str] | BinaryIO, *, max_bytes: int | None = None, name: str = "file"
) -> dict[str, ArrayHeader]:
    """Headers of all arrays of an `.npz` or `.npy` file; no array is decompressed.

    Parameters, names of the result and errors are those of `read_arrays`.
    """
    with _opened(source, max_bytes, name) as file:
        magic = _start(file, max_bytes, name)
        if magic.startswith(MAGIC):
            return {UNNAMED: _header_of_npy(file, name)}
        with _archive(file, max_bytes, name) as (_, _, headers):
            return headers


def is_lfs_pointer(start: bytes) -> bool:
    """Whether a file that begins so stands for one that Git LFS has not downloaded."""
    return start.startswith(LFS)


@contextmanager
def _opened(
    source: str | os.PathLike[str] | bytes | BinaryIO, max_bytes: int | None, name: str
) -> Iterator[BinaryIO]:
    """The source as a file that can seek."""
    if isinstance(source, str | os.PathLike):
        try:
            with Path(source).open("rb") as file:
                yield file
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise InvalidInput(f"{name} cannot be read: {reason}", field=name) from None
    elif isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    elif not source.seekable():
        yield io.BytesIO(source.read() if max_bytes is None else source.read(max_bytes + 1))
    else:
        yield source


def _size(file: BinaryIO) -> int:
    """Bytes from the position of the file to its end."""
    start = file.tell()
    size = file.seek(0, os.SEEK_END) - start
    file.seek(start)
    return size


def _start(file: BinaryIO, max_bytes: int | None, name: str) -> bytes:
    """The first bytes of a file of a known type, whose position stays."""
    _require_size(_size(file), max_bytes, name)
    start = file.tell()
    magic = file.read(len(LFS))
    file.seek(start)
    if is_lfs_pointer(magic):
        raise InvalidInput(
            f"{name} is a Git LFS pointer, not the file itself: run `git lfs pull`", field=name
        )
    if not magic.startswith((MAGIC, b"PK\x03\x04", b"PK\x05\x06")):
        raise InvalidInput(
            f"{name} must be a NumPy .npz or .npy file, got something else", field=name
        )
    return magic


def _header_of_npy(file: BinaryIO, name: str) -> ArrayHeader:
    return ArrayHeader.read(file, _size(file), name, UNNAMED)


def _read_archive(
    file: BinaryIO, max_bytes: int | None, name: str, narrow: Container[str]
) -> dict[str, NDArray[np.generic]]:
    result = {}
    with _archive(file, max_bytes, name) as (archive, members, headers):
        for array, header in headers.items():
            with archive.open(members[array]) as stream:
                stream.read(header.size)
                result[array] = _read_array(stream, header, name, array, array in narrow)
    return result


@contextmanager
def _archive(
    file: BinaryIO, max_bytes: int | None, name: str
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo], dict[str, ArrayHeader]]]:
    """An archive, its members and their checked headers, by name of the array."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            arrays = [_array_name(member, name) for member in members]
            if len(members) > MAX_MEMBERS:
                raise InvalidInput(
                    f"{name} must hold at most {MAX_MEMBERS} arrays, got {len(members)}",
                    field=name,
                )
            if len(set(arrays)) < len(arrays):
                raise InvalidInput(f"{name} holds two arrays of the same name", field=name)
            _require_size(sum(member.file_size for member in members), max_bytes, name)
            headers = {}
            for array, member in zip(arrays, members, strict=True):
                with archive.open(member) as stream:
                    headers[array] = ArrayHeader.read(stream, member.file_size, name, array)
            yield archive, dict(zip(arrays, members, strict=True)), headers
    except InvalidInput:
        raise
    except DAMAGE:
        raise InvalidInput(f"{name} is a damaged .npz file", field=name) from None


def _array_name(member: zipfile.ZipInfo, name: str) -> str:
    array = member.filename.removesuffix(".npy")
    if array == member.filename or not array.isidentifier() or len(array) > MAX_NAME:
        raise InvalidInput(
            f"{name} must hold .npy arrays only, one member is something else", field=name
        )
    if member.flag_bits & 0x1:
        raise InvalidInput(f"{name} must not be encrypted, {array} is", field=name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidInput(
            f"{name} must be stored or deflated, {array} is compressed in another way", field=name
        )
    stored = member.compress_type == zipfile.ZIP_STORED
    most = member.compress_size if stored else member.compress_size * MAX_RATIO
    if member.file_size > most:
        raise InvalidInput(f"{name} declares more data for {array} than it can hold", field=name)
    return array


@dataclass(frozen=True)
class ArrayHeader:
    """The checked header of an array."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[np.generic]
    size: int  # of the header, in bytes

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    @classmethod
    def read(cls, stream: IO[bytes], size: int, name: str, array: str) -> ArrayHeader:
        """The header of an array of `size` bytes, header included."""
        shape, fortran, descr, header_size = _read_header(stream, name, array)
        if "O" in descr:
            raise InvalidInput(
                f"{name} holds {array} as pickled objects, expected numbers or strings", field=name
            )
        if DTYPE.fullmatch(descr) is None:
            raise InvalidInput(
                f"{name} holds {array} with a type other than numbers or strings", field=name
            )
        try:
            dtype = np.dtype(descr)
        except (TypeError, ValueError):
            raise InvalidInput(f"{name} holds {array} with a damaged header", field=name) from None
        if len(shape) > 8 or dtype.itemsize == 0:
            raise InvalidInput(f"{name} holds {array} with an impossible shape", field=name)
        expected = math.prod(shape) * dtype.itemsize
        actual = size - header_size
        if expected != actual:
            raise InvalidInput(
                f"{name} holds {actual} bytes for {array}, its header says {expected}", field=name
            )
        return cls(shape, fortran, dtype, header_size)


def _read_array(
    stream: IO[bytes], header: ArrayHeader, name: str, array: str, narrow: bool
) -> NDArray[np.generic]:
    """The array whose header was read from the stream."""
    if narrow and header.dtype.kind in "iuf" and header.dtype.itemsize > 4:
        flat: NDArray[Any] = np.empty(math.prod(header.shape), np.float32)
        filled, rest = 0, b""
        for piece in _pieces(stream, header, name, array):
            data = rest + piece
            wide = np.frombuffer(data, header.dtype, len(data) // header.dtype.itemsize)
            flat[filled : filled + wide.size] = _narrowed(wide)
            filled, rest = filled + wide.size, data[wide.nbytes :]
    else:
        bytes_ = np.empty(header.nbytes, dtype=np.uint8)
        filled = 0
        for piece in _pieces(stream, header, name, array):
            bytes_[filled : filled + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
            filled += len(piece)
        flat = bytes_.view(header.dtype)
    if isinstance(stream, zipfile.ZipExtFile):
        stream.read(1)  # at the end the checksum is verified
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _pieces(stream: IO[bytes], header: ArrayHeader, name: str, array: str) -> Iterator[bytes]:
    missing = header.nbytes
    while missing:
        piece = stream.read(min(PIECE, missing))
        if not piece:
            raise InvalidInput(f"{name} is cut off within {array}", field=name)
        missing -= len(piece)
        yield piece


def _narrowed(wide: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = wide.astype(np.float32)
    beyond = np.isinf(numbers) & np.isfinite(wide)
    numbers[beyond] = np.nan
    return numbers


def _read_header(
    stream: IO[bytes], name: str, array: str
) -> tuple[tuple[int, ...], bool, str, int]:
    """Shape, whether Fortran-ordered, dtype and length in bytes of an NPY header."""
    # A header is a literal with three entries, and is read as one. NumPy's own reader gives
    # warnings and errors of many kinds for a header that it cannot parse.
    damaged = InvalidInput(f"{name} holds {array} with a damaged header", field=name)
    start = stream.read(8)
    if len(start) < 8 or start[:6] != MAGIC:
        raise damaged
    width = LENGTH_BYTES.get((start[6], start[7]))
    if width is None:
        raise InvalidInput(
            f"{name} holds {array} in NPY version {start[6]}.{start[7]}, expected 1.0 to 3.0",
            field=name,
        )
    length = int.from_bytes(stream.read(width), "little")
    if length > MAX_HEADER:
        raise damaged
    text = stream.read(length)
    if len(text) < length:
        raise damaged
    try:
        header = ast.literal_eval(text.decode("utf-8").strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, OverflowError):
        raise damaged from None
    if not isinstance(header, dict) or set(header) != {"descr", "fortran_order", "shape"}:
        raise damaged
    shape, fortran, descr = header["shape"], header["fortran_order"], header["descr"]
    if not isinstance(shape, tuple) or not isinstance(fortran, bool):
        raise damaged
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in shape):
        raise damaged
    # The dtype of a record is a list; its text says whether it holds objects ("O").
    return shape, fortran, descr if isinstance(descr, str) else repr(descr), 8 + width + length


def _require_size(size: int, max_bytes: int | None, name: str) -> None:
    if max_bytes is not None and size > max_bytes:
        raise InvalidInput(f"{name} must have at most {max_bytes} bytes, got {size}", field=name)
