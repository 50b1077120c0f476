"""The pictures for the image network, and their decoding for the other servers."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 224  # pixels: what a ResNet-18 is fed


def make_picture(seed: int) -> bytes:
    """A JPEG about as large as a photograph: 8 × 8 colours, enlarged, with grain."""
    generator = np.random.default_rng(seed)
    colours = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    smooth = Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    grain = generator.normal(0, 8, (SIDE, SIDE, 1))
    pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def decode(picture: bytes) -> NDArray[np.uint8]:
    """Decode bytes to (224, 224, 3); the pictures have their final size."""
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
