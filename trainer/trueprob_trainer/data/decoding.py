"""Decodes pictures into one array: in memory, or in a mapped temporary file if it is large."""

import io
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from trueprob_trainer.errors import BadInput

IN_MEMORY_BYTES = 8 << 30  # of decoded pictures; a larger array is a mapped temporary file


def decode(
    encoded: Sequence[NDArray[np.uint8]],  # the bytes of one file each
    *,
    source: str,  # name for error messages
    image_size: int = 0,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> NDArray[np.uint8]:
    """Decode pictures that Pillow can read; one channel if the first is grey, else three."""
    if not len(encoded):
        raise BadInput(f"{source}: there are no images")
    first = _opened(encoded[0], source, 0)
    mode = "L" if first.mode in ("1", "L", "LA", "I;16") else "RGB"
    width, height = (image_size, image_size) if image_size else first.size
    shape = (len(encoded), height, width, 1 if mode == "L" else 3)
    images = _empty(shape, in_memory_bytes)

    def fill(row: int) -> None:
        picture = _opened(encoded[row], source, row)
        if picture.size != (width, height):
            if not image_size:
                raise BadInput(
                    f"{source}: image {row} has {picture.size[0]}x{picture.size[1]} pixels, the "
                    f"first {width}x{height}: set image_size to resize them"
                )
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        images[row] = np.asarray(picture.convert(mode)).reshape(shape[1:])

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # Pillow releases the GIL
        for _ in threads.map(fill, range(len(encoded)), chunksize=64):
            pass
    return images


def _empty(shape: tuple[int, ...], in_memory_bytes: int) -> NDArray[np.uint8]:
    if int(np.prod(shape)) <= in_memory_bytes:
        return np.empty(shape, dtype=np.uint8)
    with tempfile.TemporaryFile() as file:  # the mapping keeps it open
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)


def _opened(content: NDArray[np.uint8], source: str, row: int) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(content.tobytes()))
        picture.load()
    except (UnidentifiedImageError, OSError, ValueError) as problem:
        raise BadInput(f"{source}: image {row} cannot be decoded") from problem
    return picture
