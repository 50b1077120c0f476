"""MNIST-style idx files: a folder with ``train-images-idx3-ubyte`` and its three companions.

An idx file is two zero bytes, the type (8 for uint8), the number of dimensions, each dimension as a
big-endian 32-bit integer, and the values. Files may be compressed (``.gz``).
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.data.stored import Stored
from trueprob_trainer.errors import BadInput

UINT8 = 8


def read_idx(path: Path, *, image_size: int = 0) -> Stored:
    """Read a folder of idx files.

    Returns: with a test set where there are files ``t10k-…`` or ``test-…``. Raises `BadInput`:
    files are missing or damaged.
    """
    if image_size:
        raise BadInput(f"image_size must be 0 for idx files, got {image_size}")
    parts = [_part(path, ("train",))]
    if _found(path, ("t10k", "test"), "images") is not None:
        parts.append(_part(path, ("t10k", "test")))
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    n_classes = int(labels.max(initial=-1)) + 1
    given = np.arange(len(labels)) >= len(parts[0][1]) if len(parts) == 2 else None
    return Stored(path, images, labels, tuple(map(str, range(n_classes))), given)


def _part(path: Path, prefixes: tuple[str, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    files = [_found(path, prefixes, what) for what in ("images", "labels")]
    if files[0] is None or files[1] is None:
        raise BadInput(
            f"{path.name} must hold {prefixes[0]}-images-idx3-ubyte and "
            f"{prefixes[0]}-labels-idx1-ubyte, plain or .gz"
        )
    images, labels = _idx_array(files[0]), _idx_array(files[1]).astype(np.int64)
    return (images[..., np.newaxis] if images.ndim == 3 else images), labels


def _found(path: Path, prefixes: tuple[str, ...], what: str) -> Path | None:
    for prefix in prefixes:
        matches = sorted(path.glob(f"{prefix}-{what}[-.]idx[134]-ubyte*"))
        if matches:
            return matches[0]
    return None


def _idx_array(file: Path) -> NDArray[np.uint8]:
    content = file.read_bytes()
    if file.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as problem:
            raise BadInput(f"{file.name} is a damaged .gz file") from problem
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UINT8:
        raise BadInput(f"{file.name} must be an idx file of uint8")
    n_dimensions = content[3]
    shape = np.frombuffer(content[: 4 + 4 * n_dimensions], dtype=">i4", offset=4).astype(int)
    values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * n_dimensions)
    if len(shape) != n_dimensions or int(np.prod(shape)) != len(values):
        sides = "x".join(map(str, shape))
        raise BadInput(f"{file.name} must hold {sides} values, has {len(values)}")
    return values.reshape(shape)
