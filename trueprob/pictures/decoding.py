"""Decodes the file of a picture into upright, opaque 8-bit pixels: grey (``L``) or ``RGB``.

- The orientation that EXIF, or else XMP, declares is applied. A damaged EXIF block is ignored.
- Transparency (an alpha channel, palette entries, a transparent colour) is composed on a
  background, white by default. Semi-transparent pixels are mixed with it.
- Samples of 16 bits keep their high byte, in grey as in colour. Integers of 32 bits are taken for
  16-bit samples if their range says so. Floating-point samples have no known white: refused.
- Of an animation or a file of several pictures the first one is read.
- Colour profiles are not applied.

The declared size is checked before any pixel is decoded. Truncated files are refused.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.errors import InvalidInput

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["WHITE", "PictureTooLarge", "UnreadablePicture", "read_picture"]

WHITE: Final = (255, 255, 255)
_ORIENTATION: Final = 0x0112  # EXIF 2.32, table 4
_GREY: Final = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "I;16N")
_COLOUR: Final = ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV")
# A transparent grey level counts in samples as stored; Pillow spreads few bits over 0 to 255.
_LEVELS: Final[Mapping[str, int]] = {"1": 255, "L;2": 85, "L;4": 17}
_SPELLINGS: Final[Mapping[str, str]] = {"WEBP": "WebP"}
# What Pillow raises for damaged files; `InvalidInput` is a ValueError too.
_DAMAGED: Final = (
    OSError, ValueError, SyntaxError, EOFError, TypeError, AttributeError, LookupError,
    ArithmeticError, struct.error, zlib.error,
)  # fmt: skip


class UnreadablePicture(InvalidInput):
    """The bytes are no picture, a damaged one, or of a kind that is not read."""


class PictureTooLarge(InvalidInput):
    """The picture has more pixels than the limit, or would have when resized."""


def read_picture(
    content: bytes,
    mode: str | None = None,
    *,
    max_pixels: int,
    name: str = "picture",
    formats: tuple[str, ...] | None = None,
    background: tuple[int, int, int] = WHITE,
) -> Image.Image:
    """Decode a picture file: upright, opaque, 8 bits a sample.

    Parameters
    ----------
    content : bytes
        The file.
    mode : {"L", "RGB"}, optional
        Grey or colour. Default: grey if the file is grey.
    max_pixels : int
        Largest declared width times height that is decoded.
    name : str
        What error messages call the picture.
    formats : tuple of str, optional
        Pillow's names of the formats to read. Default: all that it can.
    background : tuple of int
        Colour behind transparent pixels, RGB.

    Returns
    -------
    PIL.Image.Image
        Of mode ``L`` or ``RGB``.

    Raises
    ------
    UnreadablePicture, PictureTooLarge
    """
    from PIL import Image, UnidentifiedImageError

    # Pillow warns above one limit for the whole process; `max_pixels` refuses in its place.
    Image.MAX_IMAGE_PIXELS = None
    if not content:
        raise UnreadablePicture(f"{name}: expected {_listed(formats)}, got no bytes", field=name)
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise PictureTooLarge(
                    f"{name} is {image.width} × {image.height} = {pixels} pixels, "
                    f"at most {max_pixels} are decoded",
                    field=name,
                )
            return _upright(image, _opaque(image, mode, background, name))
    except InvalidInput:
        raise
    except UnidentifiedImageError:
        raise UnreadablePicture(f"{name} is not {_listed(formats)}", field=name) from None
    except _DAMAGED:
        raise UnreadablePicture(f"{name} is damaged or truncated", field=name) from None


def _listed(formats: tuple[str, ...] | None) -> str:
    if formats is None:
        return "a picture that Pillow can read"
    *first, last = (_SPELLINGS.get(each, each) for each in formats)
    return f"a {', '.join(first)} or {last} picture" if first else f"a {last} picture"


def _opaque(
    image: Image.Image, mode: str | None, background: tuple[int, int, int], name: str
) -> Image.Image:
    """The pixels as grey or RGB, composed on the background where they are transparent."""
    from PIL import Image

    stored = _stored_samples(image)
    image.load()
    if image.mode not in (*_GREY, *_COLOUR):
        raise UnreadablePicture(
            f"{name} has samples of a kind that is not read (Pillow's mode {image.mode}): "
            "save it as grey or RGB with 8 or 16 bits a sample",
            field=name,
        )
    if mode is None:
        mode = "L" if image.mode in _GREY or stored.startswith("LA") else "RGB"
    if image.mode.startswith("I"):
        image = _eight_bits(image, name)
    key: Any = image.info.get("transparency")
    if stored in _LEVELS and isinstance(key, int):
        image.info["transparency"] = min(key * _LEVELS[stored], 255)
    elif stored == "RGB;16B" and isinstance(key, tuple):
        image.info["transparency"] = tuple(sample >> 8 for sample in key)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, background)
        image.paste(layer, mask=layer.getchannel("A"))
    elif image.mode not in ("L", "RGB"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image if image.mode == mode else image.convert(mode)


def _stored_samples(image: Image.Image) -> str:
    """Pillow's name for the samples of a PNG that is not loaded yet, such as ``RGB;16B``."""
    if image.format != "PNG":
        return ""
    tile: Any = getattr(image, "tile", ())
    return str(tile[0][3]) if tile else ""


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of 8 bits from grey of 16, with alpha if a grey level is declared transparent."""
    from PIL import Image

    samples: NDArray[Any] = np.asarray(image)
    if image.mode == "I":
        low, high = int(samples.min()), int(samples.max())
        if low < 0 or high > 65535 or (0 < high < 256 and image.format != "PPM"):
            raise UnreadablePicture(
                f"{name} has 32-bit samples from {low} to {high}, whose white is not known: "
                "save it with 8 or 16 bits a sample",
                field=name,
            )
    grey = Image.fromarray((samples >> 8).astype(np.uint8))
    key = image.info.get("transparency")
    if key is None:
        return grey
    alpha = np.where(samples == key, 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(alpha)))


def _upright(image: Image.Image, pixels: Image.Image) -> Image.Image:
    """The pixels turned and mirrored as the file's metadata say."""
    from PIL import Image

    if image.format == "TIFF":  # Pillow has turned it
        return pixels
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except _DAMAGED:
        return pixels
    methods: dict[object, Image.Transpose] = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    method = methods.get(orientation)
    return pixels if method is None else pixels.transpose(method)
