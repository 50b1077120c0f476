"""Files of pictures, made in memory, with the pixels that they show."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (16, 24), np.uint8)
COLOUR = RNG.integers(0, 256, (16, 24, 3), np.uint8)
DEEP = RNG.integers(0, 65536, (16, 24), np.uint16)
# Blocks of one colour, which JPEG keeps.
BLOCKS = RNG.integers(30, 226, (2, 3, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)


def saved(image: Image.Image | np.ndarray, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(stream, form, **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def png(
    size: tuple[int, int],  # width, height
    depth: int,
    colour_type: int,
    rows: Sequence[bytes],
    *,
    before: Sequence[tuple[bytes, bytes]] = (),  # chunks before the pixels
    after: Sequence[tuple[bytes, bytes]] = (),
) -> bytes:
    """A PNG of any depth, which Pillow does not write."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [(b"IHDR", header), *before, (b"IDAT", pixels), *after, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in parts)


def deep_png(samples: np.ndarray, colour_type: int, key: Sequence[int] = ()) -> bytes:
    """A PNG of 16 bits a sample; `key` is the colour that is transparent."""
    height, width = samples.shape[:2]
    rows = [row.astype(">u2").tobytes() for row in samples]
    before = [(b"tRNS", struct.pack(f">{len(key)}H", *key))] if key else []
    return png((width, height), 16, colour_type, rows, before=before)


def orientation(value: int, *, endian: str = "<") -> bytes:
    """An EXIF block with an orientation and nothing else."""
    head = b"II*\0" if endian == "<" else b"MM\0*"
    entry = struct.pack(endian + "HHIHH", 0x0112, 3, 1, value, 0)
    return head + struct.pack(endian + "IH", 8, 1) + entry + struct.pack(endian + "I", 0)


def turned(
    image: np.ndarray, form: str, value: int, *, endian: str = "<", **options: object
) -> bytes:
    """A file whose EXIF block says that its pixels are turned."""
    exif = orientation(value, endian=endian)
    return saved(image, form, exif=b"Exif\0\0" + exif if form == "JPEG" else exif, **options)


def palette(**options: object) -> bytes:
    """A PNG with a palette: index i is the colour (i, 255 − i, 7)."""
    image = Image.fromarray(GREY, "L").convert("P")
    image.putpalette([level for i in range(256) for level in (i, 255 - i, 7)])
    return saved(image, **options)


def with_alpha(image: np.ndarray) -> Image.Image:
    """The picture with an alpha channel of every kind: clear, opaque and between."""
    result = Image.fromarray(image)
    alpha = np.linspace(0, 255, image.shape[0] * image.shape[1]).round().astype(np.uint8)
    result.putalpha(Image.fromarray(alpha.reshape(image.shape[:2])))
    return result


def animation(form: str) -> bytes:
    """Three frames, of which the first is `COLOUR` (for a GIF: with 256 colours at most)."""
    frames = [Image.fromarray(each) for each in (COLOUR, 255 - COLOUR, COLOUR // 2)]
    options: dict[str, object] = {"save_all": True, "append_images": frames[1:]}
    return saved(frames[0], form, **options, **({"lossless": True} if form == "WEBP" else {}))


# What the service reads.
SERVED: dict[str, bytes] = {
    "grey": saved(GREY),
    "colour": saved(COLOUR),
    "one bit": saved(Image.fromarray(GREY > 127)),
    "palette": palette(),
    "palette, clear entries": palette(transparency=bytes(range(256))),
    "palette, one clear entry": palette(transparency=7),
    "grey with alpha": saved(with_alpha(GREY)),
    "colour with alpha": saved(with_alpha(COLOUR)),
    "grey, one clear level": saved(GREY, transparency=int(GREY[0, 0])),
    "colour, one clear colour": saved(COLOUR, transparency=tuple(map(int, COLOUR[0, 0]))),
    "deep grey": saved(DEEP),
    "deep grey, one clear level": deep_png(DEEP, 0, [int(DEEP[0, 0])]),
    "deep colour": deep_png(np.stack([DEEP, DEEP // 2, DEEP // 3], 2), 2),
    "deep grey with alpha": deep_png(np.stack([DEEP, DEEP[::-1]], 2), 4),
    "animated PNG": animation("PNG"),
    "JPEG": saved(COLOUR, "JPEG", quality=90),
    "grey JPEG": saved(GREY, "JPEG", quality=90),
    "CMYK JPEG": saved(Image.fromarray(BLOCKS).convert("CMYK"), "JPEG", quality=95),
    "progressive JPEG": saved(COLOUR, "JPEG", quality=90, progressive=True),
    "WebP": saved(COLOUR, "WEBP", quality=80),
    "WebP without loss": saved(COLOUR, "WEBP", lossless=True),
    "WebP with alpha": saved(with_alpha(COLOUR), "WEBP", lossless=True, exact=True),
    "animated WebP": animation("WEBP"),
} | {
    f"{form}, orientation {value}": turned(COLOUR, form, value)
    for form in ("PNG", "JPEG", "WEBP")
    for value in range(1, 9)
}  # fmt: skip

# What the trainer reads as well.
STORED: dict[str, bytes] = {
    "BMP": saved(COLOUR, "BMP"),
    "grey BMP": saved(GREY, "BMP"),
    "GIF": saved(GREY, "GIF"),
    "animated GIF": animation("GIF"),
    "TIFF": saved(COLOUR, "TIFF"),
    "deep TIFF": saved(DEEP, "TIFF"),
    "deep TIFF, other byte order": saved(DEEP.astype(">u2"), "TIFF"),
    "TIFF of 32-bit integers": saved(DEEP.astype(np.int32), "TIFF"),
    "deep PGM": saved(DEEP.astype(np.int32), "PPM"),
    "CMYK TIFF": saved(Image.fromarray(BLOCKS).convert("CMYK"), "TIFF"),
    "TIFF, turned": saved(COLOUR, "TIFF", tiffinfo={0x0112: 6}),
}
