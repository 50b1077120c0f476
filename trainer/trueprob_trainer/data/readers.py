"""``.npz`` files: images as arrays, or as the bytes of encoded pictures with offsets.

Arrays, for each part: ``images`` of shape (n, height, width[, channels]), uint8; or ``jpeg``, all
files one after the other, and ``offsets`` of n + 1 places in it; and ``labels``. Parts are named
``train_…`` and ``test_…``, or nothing where there is one part. ``class_names`` is optional.
"""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.data.decoding import decode
from trueprob_trainer.data.stored import Stored
from trueprob_trainer.errors import BadInput


def read_npz(path: Path, *, image_size: int = 0) -> Stored:
    """Read an ``.npz`` file.

    Raises `BadInput`: not such a file.
    """
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
    given = None
    if len(parts) == 2:
        given = np.repeat([False, True], [len(part) for part in labels])
    return Stored(path, images, joined, names, given, encoded)


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
    ends_right = offsets.ndim == 1 and len(offsets) > 1 and offsets[-1] == len(content)
    if not ends_right or offsets[0] != 0 or np.any(np.diff(offsets) <= 0):
        raise BadInput(f"{name}: {part}offsets must rise from 0 to {len(content)}")
    return np.split(content, offsets[1:-1])
