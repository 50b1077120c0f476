"""Readers of ``.npz`` files, idx files and folders of pictures.

``.npz``: ``images`` of shape (n, height, width[, channels]), uint8, and ``labels``. Instead of
``images`` there may be encoded pictures: ``jpeg``, all files one after the other, and ``offsets``,
n + 1 positions in it. Two parts have the prefixes ``train_`` and ``test_``. ``class_names`` is
optional.

idx, the format of MNIST: a folder with ``train-images-idx3-ubyte`` and its three companions, plain
or ``.gz``. An idx file is two zero bytes, the type (8 for uint8), the number of dimensions, each
dimension as a big-endian 32-bit integer, and the values.

Folders: ``ROOT/CLASS/picture`` or ``ROOT/{train,test}/CLASS/picture``. Classes are numbered in the
order of their names. Files that begin with a dot are left out.
"""

import gzip
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.data.decoding import decode
from trueprob_trainer.data.stored import StoredRows
from trueprob_trainer.errors import BadInput

UINT8 = 8  # type code of an idx file

# ----- npz -----


def read_npz(path: Path, *, image_size: int = 0) -> StoredRows:
    """Read an ``.npz`` file."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, zipfile.BadZipFile) as problem:
        raise BadInput(f"{path.name} cannot be read as .npz without pickles") from problem
    parts = ("train_", "test_") if "train_labels" in arrays else ("",)
    encoded: list[NDArray[np.uint8]] | None = None
    if parts[0] + "jpeg" in arrays:
        encoded = [row for part in parts for row in _encoded(path.name, arrays, part)]
        images = decode(encoded, source=path.name, image_size=image_size)
    else:
        images = np.concatenate([_images(path.name, arrays, part) for part in parts])
    labels = [_array(path.name, arrays, part + "labels").astype(np.int64) for part in parts]
    joined = np.concatenate(labels)
    if "class_names" in arrays:
        names = tuple(str(name) for name in arrays["class_names"])
    else:
        names = tuple(str(label) for label in range(int(joined.max(initial=-1)) + 1))
    given_test = None
    if len(parts) == 2:
        given_test = np.repeat([False, True], [len(part) for part in labels])
    return StoredRows(path, images, joined, names, given_test, encoded)


def _array(name: str, arrays: dict[str, NDArray[Any]], key: str) -> NDArray[Any]:
    if key not in arrays:
        raise BadInput(f"{name} must hold an array {key}, it has {', '.join(sorted(arrays))}")
    array = arrays[key]
    if array.dtype.kind not in "iu" or array.ndim == 0:
        raise BadInput(f"{name}: {key} must be an array of integers, got {array.dtype}")
    return array


def _images(name: str, arrays: dict[str, NDArray[Any]], part: str) -> NDArray[np.uint8]:
    images = _array(name, arrays, part + "images")
    if images.dtype != np.uint8:
        raise BadInput(f"{name}: {part}images must be uint8, got {images.dtype}")
    return images[..., np.newaxis] if images.ndim == 3 else images


def _encoded(name: str, arrays: dict[str, NDArray[Any]], part: str) -> list[NDArray[np.uint8]]:
    content = _array(name, arrays, part + "jpeg")
    offsets = _array(name, arrays, part + "offsets").astype(np.int64)
    if content.dtype != np.uint8 or content.ndim != 1:
        raise BadInput(f"{name}: {part}jpeg must have shape (m,) and be uint8")
    is_complete = offsets.ndim == 1 and len(offsets) > 1 and offsets[-1] == len(content)
    if not is_complete or offsets[0] != 0 or np.any(np.diff(offsets) <= 0):
        raise BadInput(f"{name}: {part}offsets must rise from 0 to {len(content)}")
    return np.split(content, offsets[1:-1])


# ----- idx -----


def read_idx(path: Path, *, image_size: int = 0) -> StoredRows:
    """Read a folder of idx files; files ``t10k-…`` or ``test-…`` are its test set."""
    if image_size:
        raise BadInput(f"image_size must be 0 for idx files, got {image_size}")
    parts = [_idx_part(path, ("train",))]
    if _find(path, ("t10k", "test"), "images") is not None:
        parts.append(_idx_part(path, ("t10k", "test")))
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    n_classes = int(labels.max(initial=-1)) + 1
    given_test = np.arange(len(labels)) >= len(parts[0][1]) if len(parts) == 2 else None
    return StoredRows(path, images, labels, tuple(map(str, range(n_classes))), given_test)


def _idx_part(path: Path, prefixes: tuple[str, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    files = [_find(path, prefixes, what) for what in ("images", "labels")]
    if files[0] is None or files[1] is None:
        raise BadInput(
            f"{path.name} must hold {prefixes[0]}-images-idx3-ubyte and "
            f"{prefixes[0]}-labels-idx1-ubyte, plain or .gz"
        )
    images, labels = _idx_array(files[0]), _idx_array(files[1]).astype(np.int64)
    return (images[..., np.newaxis] if images.ndim == 3 else images), labels


def _find(path: Path, prefixes: tuple[str, ...], what: str) -> Path | None:
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


# ----- Folders -----


def read_folder(path: Path, *, image_size: int = 0) -> StoredRows:
    """Read a folder of pictures; a folder ``test`` beside ``train`` is its test set."""
    if not path.is_dir():
        raise BadInput(f"{path.name} must be a folder of folders of images")
    parts = [path]
    if (path / "train").is_dir():
        parts = [path / name for name in ("train", "test") if (path / name).is_dir()]
    class_names = _folders(parts[0])
    for part in parts[1:]:
        if set(_folders(part)) - set(class_names):
            raise BadInput(f"{path.name}: {part.name} has classes that train does not have")
    encoded, labels, is_test, names = [], [], [], []
    for part in parts:
        for label, name in enumerate(class_names):
            for file in sorted((part / name).glob("*")):
                if file.is_file() and not file.name.startswith("."):
                    encoded.append(np.fromfile(file, dtype=np.uint8))
                    names.append(file.relative_to(path).as_posix())
                    labels.append(label)
                    is_test.append(part is not parts[0])
    images = decode(encoded, source=path.name, names=names, image_size=image_size)
    given_test = np.array(is_test) if len(parts) == 2 else None
    return StoredRows(
        path, images, np.array(labels, dtype=np.int64), class_names, given_test, encoded
    )


def _folders(path: Path) -> tuple[str, ...]:
    return tuple(sorted(p.name for p in path.iterdir() if p.is_dir() and p.name[0] != "."))
