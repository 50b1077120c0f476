"""Decodes pictures into one array: in memory, or in a mapped temporary file if it is large.

`trueprob.pictures` decodes them, for the service too: what a network is trained on and what it is
served with are the same pixels.
"""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trueprob.pictures.decoding import PictureTooLarge, UnreadablePicture, read_picture
from trueprob.pictures.preprocessing import Preprocessing
from trueprob_trainer.errors import BadInput

IN_MEMORY_BYTES = 8 << 30  # of decoded pictures; a larger array is a mapped temporary file
MAX_PIXELS = 1 << 28  # of one picture


def decode(
    encoded: Sequence[NDArray[np.uint8]],  # the bytes of one file each
    *,
    source: str,  # name for error messages
    names: Sequence[str] = (),  # of the pictures, if they have any; paths within the source
    image_size: int = 0,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> NDArray[np.uint8]:
    """Decode pictures that Pillow can read; one channel if the first is grey, else three."""
    if not len(encoded):
        raise BadInput(f"{source}: there are no images")

    def name(row: int) -> str:
        return f"{source}/{names[row]}" if names else f"{source}: image {row}"

    def read(row: int, mode: str | None) -> Image.Image:
        content = encoded[row].tobytes()
        try:
            return read_picture(content, mode, name="it", max_pixels=MAX_PIXELS)
        except (UnreadablePicture, PictureTooLarge) as problem:
            raise BadInput(f"{name(row)} cannot be decoded: {problem.message}") from problem

    first = read(0, None)
    width, height = (image_size, image_size) if image_size else first.size
    prepared = Preprocessing(first.mode, height, width)
    images = _empty((len(encoded), *prepared.shape), in_memory_bytes)

    def fill(row: int) -> None:
        picture = read(row, first.mode)
        if picture.size != (width, height) and not image_size:
            raise BadInput(
                f"{name(row)} has {picture.size[0]}x{picture.size[1]} pixels, the "
                f"first {width}x{height}: set image_size to resize them"
            )
        images[row] = prepared.prepare(picture, name=name(row), max_pixels=MAX_PIXELS)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:  # Pillow releases the GIL
        for _ in threads.map(fill, range(len(encoded)), chunksize=64):
            pass
    return images


def _empty(shape: tuple[int, ...], in_memory_bytes: int) -> NDArray[np.uint8]:
    if int(np.prod(shape)) <= in_memory_bytes:
        return np.empty(shape, dtype=np.uint8)
    with tempfile.TemporaryFile() as file:  # the mapping keeps it open
        return np.memmap(file, dtype=np.uint8, mode="w+", shape=shape)
