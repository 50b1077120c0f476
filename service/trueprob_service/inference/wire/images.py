"""PNG, JPEG and WebP bytes to the uint8 batch that a network takes.

What is done to a picture is what the manifest's ``input.preprocessing`` names: ``mode`` (Pillow's
``L`` or ``RGB``) and ``resize`` (height, width), with ``resample`` (``box``, ``bilinear``, the
default, or ``bicubic``). With ``crop`` (height, width), ``resize`` is one number: the shorter side
is brought to it, then the middle cut out, to the pixel as torchvision's Resize and CenterCrop do.
A picture's declared size is checked before its pixels are decoded.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from trueprob_service.errors import BadRequest, BodyTooLarge, InvalidRequest, ModelUnavailable

__all__ = ["MEDIA_TYPES", "Preprocessing"]

MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")
_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_RESAMPLE: Final[Mapping[str, Image.Resampling]] = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# Pillow's own limit is a process-wide number that warns; ours is a setting that refuses.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Preprocessing:
    """How one model wants its pictures."""

    mode: str  # `L` (one channel) or `RGB` (three)
    height: int  # pixels, of what the network takes
    width: int  # pixels, of what the network takes
    resample: str = "bilinear"
    # pixels that the shorter side is brought to before the middle is cut out; None: the whole
    # picture is brought to height and width
    shorter_side: int | None = None

    @classmethod
    def from_manifest(cls, preprocessing: Mapping[str, Any]) -> Preprocessing:
        """Read a manifest's ``input.preprocessing``.

        Raises `ModelUnavailable`: it asks for something that this service does not do.
        """
        mode, resize = preprocessing.get("mode"), preprocessing.get("resize")
        resample = preprocessing.get("resample", "bilinear")
        cropped = "crop" in preprocessing
        size = preprocessing["crop"] if cropped else resize
        if (
            mode not in ("L", "RGB")
            or not isinstance(size, list | tuple)
            or len(size) != 2
            or not all(type(side) is int and side >= 1 for side in size)
            or (cropped and (type(resize) is not int or resize < max(size)))
            or resample not in _RESAMPLE
            or not set(preprocessing) <= {"mode", "resize", "crop", "resample"}
        ):
            raise ModelUnavailable(
                "input.preprocessing must have mode (L or RGB), resize ([height, width], or one "
                "number of at least both sides of crop, [height, width]) and perhaps resample "
                f"({', '.join(_RESAMPLE)}), got {dict(preprocessing)}"
            )
        return cls(mode, size[0], size[1], resample, resize if cropped else None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one prepared picture."""
        return self.height, self.width, 1 if self.mode == "L" else 3

    def decode(self, pictures: list[bytes], *, max_pixels: int) -> NDArray[np.uint8]:
        """Decode and prepare encoded pictures.

        Raises `BadRequest`: bytes that are no picture, or a damaged one. Raises `BodyTooLarge`:
        more pixels than the limit.
        """
        batch = np.empty((len(pictures), *self.shape), np.uint8)
        for i, picture in enumerate(pictures):
            batch[i] = self._decode_one(picture, f"images[{i}]", max_pixels)
        return batch

    def prepare(self, images: NDArray[Any], *, name: str = "images") -> NDArray[np.uint8]:
        """Check a batch that is already decoded.

        Raises `InvalidRequest`: not uint8 of shape (n, height, width, channels) with n at least 1.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self.shape or len(images) == 0:
            expected = ", ".join(str(side) for side in self.shape)
            raise InvalidRequest(
                f"{name} must be uint8 of shape (n, {expected}), "
                f"got {images.dtype} of shape {images.shape}"
            )
        return images

    def _decode_one(self, picture: bytes, name: str, max_pixels: int) -> NDArray[np.uint8]:
        if not picture:
            raise BadRequest(f"{name}: expected a PNG, JPEG or WebP picture, got no bytes")
        try:
            with Image.open(io.BytesIO(picture), formats=_FORMATS) as image:
                pixels = image.width * image.height
                if pixels > max_pixels:
                    raise BodyTooLarge(
                        f"{name} is {image.width} × {image.height} = {pixels} pixels, "
                        f"at most {max_pixels} are decoded"
                    )
                if image.mode.startswith(("I", "F")):
                    # Pillow clips 16-bit samples at 255 when it converts: a wrong number.
                    raise InvalidRequest(f"{name} has more than 8 bits a sample")
                converted = image.convert(self.mode)
        except UnidentifiedImageError:
            raise BadRequest(f"{name} is not a PNG, JPEG or WebP picture") from None
        except (OSError, ValueError, SyntaxError, EOFError):
            raise BadRequest(f"{name} is damaged or truncated") from None
        width, height = self._resized(converted.width, converted.height)
        if width * height > max(max_pixels, self.width * self.height):
            raise BodyTooLarge(
                f"{name} would be {width} × {height} = {width * height} pixels when its shorter "
                f"side has {self.shorter_side}, at most {max_pixels} are made"
            )
        if converted.size != (width, height):
            converted = converted.resize((width, height), _RESAMPLE[self.resample])
        if (width, height) != (self.width, self.height):
            left, top = round((width - self.width) / 2), round((height - self.height) / 2)
            converted = converted.crop((left, top, left + self.width, top + self.height))
        return np.asarray(converted, np.uint8).reshape(self.shape)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height before the middle is cut out."""
        side = self.shorter_side
        if side is None:
            return self.width, self.height
        if width <= height:
            return side, int(side * height / width)
        return int(side * width / height), side
