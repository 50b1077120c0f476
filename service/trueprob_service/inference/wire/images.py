"""Pictures of a request body: PNG, JPEG or WebP files to the uint8 batch of a network.

A body is one picture, a JSON list of base64 strings, or ``multipart/form-data`` with one part named
``image`` for each picture (RFC 7578).

The manifest's ``input.preprocessing`` says how a picture is prepared: ``mode`` (Pillow's ``L`` or
``RGB``), ``resize`` (height, width) and ``resample`` (``box``, ``bilinear``, the default, or
``bicubic``). With ``crop`` (height, width), ``resize`` is one number: the shorter side is resized
to it and the centre is cut out, to the same pixels as torchvision's Resize and CenterCrop.
The declared size of a picture is checked before its pixels are decoded.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from trueprob_service.errors import BadRequest, BodyTooLarge, InvalidRequest, ModelUnavailable

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = [
    "MEDIA_TYPES",
    "MULTIPART_MEDIA_TYPE",
    "PART_NAME",
    "Preprocessing",
    "pictures_from_base64",
    "pictures_from_multipart",
]

MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/webp")
MULTIPART_MEDIA_TYPE: Final = "multipart/form-data"
PART_NAME: Final = "image"
_FORMATS: Final = ("PNG", "JPEG", "WEBP")
_RESAMPLE: Final[Mapping[str, Image.Resampling]] = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_HEADERS_OF_A_PART: Final = 8
_HEADER_BYTES: Final = 4096
# Pillow warns above one limit for the whole process; the service refuses above a setting.
Image.MAX_IMAGE_PIXELS = None


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

    @classmethod
    def from_manifest(cls, preprocessing: Mapping[str, Any]) -> Preprocessing:
        """Read a manifest's ``input.preprocessing``; `ModelUnavailable` if it is not supported."""
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
        """Decode and prepare picture files: uint8 of shape (n, height, width, channels).

        Raises `BadRequest` for bytes that are not a picture or a damaged one, and `BodyTooLarge`
        for a picture of more than `max_pixels` (declared width times height).
        """
        batch = np.empty((len(pictures), *self.shape), np.uint8)
        for i, picture in enumerate(pictures):
            batch[i] = self._decode_one(picture, f"images[{i}]", max_pixels)
        return batch

    def prepare(self, images: NDArray[Any], *, name: str = "images") -> NDArray[np.uint8]:
        """Check that a decoded batch is uint8 of shape (n, height, width, channels) with n >= 1."""
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
                    # Pillow would clip 16-bit samples at 255.
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
                f"side has {self.shorter_side}, at most {max_pixels} are allowed"
            )
        if converted.size != (width, height):
            converted = converted.resize((width, height), _RESAMPLE[self.resample])
        if (width, height) != (self.width, self.height):
            left, top = round((width - self.width) / 2), round((height - self.height) / 2)
            converted = converted.crop((left, top, left + self.width, top + self.height))
        return np.asarray(converted, np.uint8).reshape(self.shape)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing, before the centre is cut out."""
        side = self.shorter_side
        if side is None:
            return self.width, self.height
        if width <= height:
            return side, int(side * height / width)
        return int(side * width / height), side


def pictures_from_base64(values: object) -> list[bytes]:
    """Picture files, at least one, from the base64 strings of a JSON body's ``images``."""
    if not isinstance(values, list) or not values:
        raise InvalidRequest("images must be a list of base64 strings with at least one")
    pictures = []
    for i, text in enumerate(values):
        if not isinstance(text, str):
            raise InvalidRequest(f"images[{i}] must be a base64 string")
        try:
            pictures.append(base64.b64decode(text, validate=True))
        except (binascii.Error, ValueError):
            raise InvalidRequest(f"images[{i}] is not valid base64") from None
    return pictures


def pictures_from_multipart(body: bytes, content_type: str, *, max_parts: int) -> list[bytes]:
    """Picture files, at least one, from the parts of a form.

    Raises `BadRequest` if the body is damaged or truncated, `InvalidRequest` if a part has another
    name or there is none, and `BodyTooLarge` if there are too many parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise BadRequest("Content-Type multipart/form-data must have a boundary")
    form = _FormReader(max_parts)
    try:
        MultipartParser(
            boundary,
            form.callbacks(),
            max_header_count=_HEADERS_OF_A_PART,
            max_header_size=_HEADER_BYTES,
        ).write(body)
    except FormParserError:
        raise BadRequest("the body is not multipart/form-data with this boundary") from None
    if not form.ended:
        raise BadRequest("the body is truncated: its last boundary is missing")
    if not form.pictures:
        raise InvalidRequest(f"expected at least one part named {PART_NAME}, got none")
    return form.pictures


class _FormReader:
    """Collects the pictures of a form in the callbacks of `MultipartParser`."""

    def __init__(self, max_parts: int) -> None:
        self.pictures: list[bytes] = []
        self.ended = False
        self._max_parts = max_parts
        self._headers: list[tuple[bytearray, bytearray]] = []
        self._content: list[bytes] = []

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": lambda: self._headers.append((bytearray(), bytearray())),
            "on_header_field": lambda data, start, end: self._header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._header(1, data[start:end]),
            "on_headers_finished": self._check_name,
            "on_part_data": lambda data, start, end: self._content.append(data[start:end]),
            "on_part_end": lambda: self.pictures.append(b"".join(self._content)),
            "on_end": self._end,
        }

    def _begin(self) -> None:
        if len(self.pictures) == self._max_parts:
            raise BodyTooLarge(f"the body has more than {self._max_parts} parts")
        self._headers, self._content = [], []

    def _header(self, which: int, data: bytes) -> None:
        self._headers[-1][which].extend(data)

    def _check_name(self) -> None:
        dispositions = [
            bytes(value)
            for field, value in self._headers
            if field.lower() == b"content-disposition"
        ]
        options = parse_options_header(dispositions[0])[1] if dispositions else {}
        name = options.get(b"name", b"").decode("latin-1")
        if name != PART_NAME:
            raise InvalidRequest(
                f"unknown part {name[:40]!r}: expected parts named {PART_NAME} only"
            )

    def _end(self) -> None:
        self.ended = True
