"""How pictures become the pixels of a network, as a manifest's ``input.preprocessing`` says.

``mode`` is ``L`` (grey) or ``RGB``; ``resize`` the height and width, ``resample`` the method
(``box``, ``bilinear``, the default, or ``bicubic``). With ``crop`` (height and width, or one number
for both), ``resize`` is one number: the shorter side is resized to it and the centre is cut out, to
the same pixels as torchvision's Resize and CenterCrop. ``background`` is the colour behind
transparent pixels: one number from 0 to 255 or one for each channel, white by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidDocument
from trueprob.pictures.decoding import WHITE, PictureTooLarge, read_picture

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["RESAMPLE", "Preprocessing"]

RESAMPLE: Final = ("box", "bilinear", "bicubic")
_KEYS: Final = frozenset(("mode", "resize", "crop", "resample", "background"))


@dataclass(frozen=True)
class Preprocessing:
    """How the pictures of one model are prepared."""

    mode: str  # `L` (one channel) or `RGB` (three)
    height: int  # of the prepared picture, in pixels
    width: int
    resample: str = "bilinear"
    # length of the shorter side, in pixels, before the centre is cut out; None: no crop, the whole
    # picture is resized to height and width
    shorter_side: int | None = None
    background: tuple[int, int, int] = WHITE  # RGB

    @classmethod
    def from_manifest(cls, preprocessing: Mapping[str, Any]) -> Preprocessing:
        """Read a manifest's ``input.preprocessing``; `InvalidDocument` if it is not supported."""
        mode, resize = preprocessing.get("mode"), preprocessing.get("resize")
        resample = preprocessing.get("resample", "bilinear")
        cropped = "crop" in preprocessing
        size = preprocessing["crop"] if cropped else resize
        if cropped and type(size) is int:
            size = (size, size)
        if (
            mode not in ("L", "RGB")
            or not isinstance(size, list | tuple)
            or len(size) != 2
            or not all(type(side) is int and side >= 1 for side in size)
            or (cropped and (type(resize) is not int or resize < max(size)))
            or resample not in RESAMPLE
            or not set(preprocessing) <= _KEYS
        ):
            raise InvalidDocument(
                "input.preprocessing must have mode (L or RGB), resize ([height, width], or one "
                "number of at least both sides of crop, [height, width]) and perhaps resample "
                f"({', '.join(RESAMPLE)}) and background, got {dict(preprocessing)}"
            )
        colour = _background(preprocessing.get("background", 255), 1 if mode == "L" else 3)
        return cls(mode, size[0], size[1], resample, resize if cropped else None, colour)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one prepared picture."""
        return self.height, self.width, 1 if self.mode == "L" else 3

    def decode(
        self, content: bytes, *, name: str, max_pixels: int, formats: tuple[str, ...] | None = None
    ) -> NDArray[np.uint8]:
        """Decode and prepare a picture file: uint8 of shape (height, width, channels).

        Raises what `read_picture` raises, and `PictureTooLarge` if the picture would have more than
        `max_pixels` after its shorter side is resized.
        """
        image = read_picture(
            content,
            self.mode,
            max_pixels=max_pixels,
            name=name,
            formats=formats,
            background=self.background,
        )
        return self.prepare(image, name=name, max_pixels=max_pixels)

    def prepare(self, image: Image.Image, *, name: str, max_pixels: int) -> NDArray[np.uint8]:
        """Resize a decoded picture and cut out its centre."""
        from PIL import Image

        width, height = self._resized(image.width, image.height)
        if width * height > max(max_pixels, self.width * self.height):
            raise PictureTooLarge(
                f"{name} would be {width} × {height} = {width * height} pixels when its shorter "
                f"side has {self.shorter_side}, at most {max_pixels} are allowed",
                field=name,
            )
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling[self.resample.upper()])
        if (width, height) != (self.width, self.height):
            left, top = round((width - self.width) / 2), round((height - self.height) / 2)
            image = image.crop((left, top, left + self.width, top + self.height))
        return np.asarray(image, np.uint8).reshape(self.shape)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing, before the centre is cut out."""
        side = self.shorter_side
        if side is None:
            return self.width, self.height
        if width <= height:
            return side, int(side * height / width)
        return int(side * width / height), side


def _background(value: Any, channels: int) -> tuple[int, int, int]:
    levels: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if len(levels) not in (1, channels) or not all(
        type(level) is int and 0 <= level <= 255 for level in levels
    ):
        expected = "one whole number from 0 to 255" + (" or 3" if channels == 3 else "")
        raise InvalidDocument(f"input.preprocessing.background must be {expected}, got {value!r}")
    red, green, blue = (levels * 3)[:3]
    return red, green, blue
