"""Every kind of picture becomes the pixels that it shows, or is refused by name."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tests.trueprob.pictures.made_pictures import (
    BLOCKS,
    COLOUR,
    DEEP,
    GREY,
    SERVED,
    STORED,
    animation,
    deep_png,
    orientation,
    palette,
    png,
    saved,
    turned,
    with_alpha,
)
from trueprob.pictures.decoding import WHITE, PictureTooLarge, UnreadablePicture, read_picture

PALETTE = np.stack([GREY, 255 - GREY, np.full_like(GREY, 7)], 2)


def pixels(content: bytes, mode: str | None = None, **options: object) -> np.ndarray:
    options = {"max_pixels": 10_000} | options
    image = read_picture(content, mode, **options)
    assert image.mode in ("L", "RGB")
    return np.asarray(image)


def mixed(image: np.ndarray, alpha: np.ndarray, background: tuple[int, ...]) -> np.ndarray:
    """The picture over a background, in RGB; alpha from 0 to 255."""
    colour = image if image.ndim == 3 else np.stack([image] * 3, 2)
    share = alpha[..., None] / 255
    return share * colour + (1 - share) * np.array(background)


# ----- Orientation -----

UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    0: lambda stored: stored,
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
    9: lambda stored: stored,
}


@pytest.mark.parametrize("value", UPRIGHT)
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("JPEG", {"quality": 100, "subsampling": 0}), ("WEBP", {"lossless": True})],
)
def test_pictures_stand_upright(value: int, endian: str, form: str, options: dict) -> None:
    for stored in (BLOCKS, BLOCKS[..., 0]):
        content = turned(stored, form, value, endian=endian, **options)
        shown = pixels(content, "RGB" if stored.ndim == 3 else "L")
        np.testing.assert_allclose(shown, UPRIGHT[value](stored), atol=3 if form == "JPEG" else 0)


@pytest.mark.parametrize("value", range(1, 9))
def test_a_tiff_is_turned_once(value: int) -> None:
    shown = pixels(saved(COLOUR, "TIFF", tiffinfo={0x0112: value}))
    np.testing.assert_array_equal(shown, UPRIGHT[value](COLOUR))


def test_exif_may_follow_the_pixels_of_a_png() -> None:
    rows = [row.tobytes() for row in COLOUR]
    late = png((24, 16), 8, 2, rows, after=[(b"eXIf", orientation(6))])
    np.testing.assert_array_equal(pixels(late), np.rot90(COLOUR, -1))


def test_xmp_turns_a_picture_that_exif_does_not() -> None:
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    png_text = [(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode())]
    rows = [row.tobytes() for row in COLOUR]
    for exif, expected in (([], np.rot90(COLOUR, -1)), ([(b"eXIf", orientation(1))], COLOUR)):
        content = png((24, 16), 8, 2, rows, before=[*png_text, *exif])
        np.testing.assert_array_equal(pixels(content), expected)
    webp = saved(COLOUR, "WEBP", lossless=True, xmp=xmp.encode())
    np.testing.assert_array_equal(pixels(webp), np.rot90(COLOUR, -1))


def test_of_a_file_of_several_jpegs_the_first_is_read() -> None:
    """Some telephones write a second, smaller picture behind the first one (MPO)."""
    options = {"quality": 100, "subsampling": 0}
    several = saved(
        Image.fromarray(BLOCKS), "MPO", save_all=True,
        append_images=[Image.fromarray(255 - BLOCKS)], exif=b"Exif\0\0" + orientation(6), **options,
    )  # fmt: skip
    shown = pixels(several, formats=("PNG", "JPEG", "WEBP"))
    np.testing.assert_allclose(shown, np.rot90(BLOCKS, -1), atol=3)


def test_every_kind_of_pixels_is_turned() -> None:
    exif = orientation(6)
    layer = with_alpha(COLOUR)
    for content, stored in (
        (saved(DEEP, exif=exif), DEEP >> 8),
        (palette(exif=exif), PALETTE),
        (saved(layer, exif=exif), pixels(saved(layer))),
    ):
        np.testing.assert_array_equal(pixels(content), np.rot90(stored, -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif", [b"II*\0", b"Exif\0\0II", b"II*\0\x08\0\0\0\xff\xff", b"MM\0*" + b"\xff" * 40]
)
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_exif_block_turns_nothing(form: str, exif: bytes) -> None:
    plain = pixels(saved(COLOUR, form))
    np.testing.assert_array_equal(pixels(saved(COLOUR, form, exif=exif)), plain)


# ----- Transparency -----


@pytest.mark.parametrize("background", [WHITE, (0, 0, 0), (10, 200, 90)])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_an_alpha_channel_is_composed_on_the_background(
    background: tuple[int, int, int], form: str
) -> None:
    options = {"lossless": True, "exact": True} if form == "WEBP" else {}
    for image in (COLOUR, GREY):
        layer = with_alpha(image)
        shown = pixels(saved(layer, form, **options), "RGB", background=background)
        expected = mixed(image, np.asarray(layer)[..., -1], background)
        np.testing.assert_allclose(shown, expected, atol=1)


def clear(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Alpha of a picture that is clear at some pixels."""
    return np.where(where, 0, 255).astype(np.uint8)


RGB16 = np.stack([DEEP, DEEP // 2, DEEP // 3], 2)
RGB16[0, 0], RGB16[0, 1] = 65535, 3  # white, almost black
KEYED = {
    "palette, entries": (palette(transparency=bytes(range(256))), PALETTE, GREY),
    "palette, one entry": (palette(transparency=7), PALETTE, clear(GREY, GREY == 7)),
    "grey": (saved(GREY, transparency=int(GREY[3, 4])), GREY, clear(GREY, GREY[3, 4] == GREY)),
    "colour": (
        saved(COLOUR, transparency=tuple(map(int, COLOUR[3, 4]))),
        COLOUR,
        clear(COLOUR, (COLOUR[3, 4] == COLOUR).all(2)),
    ),
    "deep grey": (deep_png(DEEP, 0, [int(DEEP[3, 4])]), DEEP >> 8, clear(DEEP, DEEP[3, 4] == DEEP)),
    "deep grey, a level that looks the same in 8 bits": (
        deep_png(DEEP, 0, [int(DEEP[3, 4]) ^ 1]),
        DEEP >> 8,
        clear(DEEP, DEEP[3, 4] == (DEEP ^ 1)),
    ),
    "deep colour": (
        deep_png(RGB16, 2, list(map(int, RGB16[3, 4]))),
        RGB16 >> 8,
        clear(RGB16, (RGB16[3, 4] >> 8 == RGB16 >> 8).all(2)),
    ),
    "deep colour, almost black": (deep_png(RGB16, 2, (255, 255, 255)), RGB16 >> 8,
                                  clear(RGB16, (RGB16 >> 8 == 0).all(2))),
    "GIF": (saved(Image.fromarray(GREY), "GIF", transparency=7), GREY, clear(GREY, GREY == 7)),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYED)
@pytest.mark.parametrize("background", [WHITE, (10, 200, 90)])
def test_clear_colours_show_the_background(kind: str, background: tuple[int, int, int]) -> None:
    content, image, alpha = KEYED[kind]
    shown = pixels(content, "RGB", background=background)
    np.testing.assert_allclose(shown, mixed(image, alpha, background), atol=1)


@pytest.mark.parametrize(
    ("depth", "row", "levels"),
    [(1, b"\xa0", [255, 0, 255, 0]), (2, b"\x1b", [0, 85, 170, 255]),
     (4, b"\x05\xaf", [0, 85, 170, 255])],
)  # fmt: skip
def test_grey_of_few_bits_has_its_clear_level(depth: int, row: bytes, levels: list[int]) -> None:
    plain = png((4, 1), depth, 0, [row])
    assert pixels(plain).tolist() == [levels]
    step = 255 // (2**depth - 1)
    for level in sorted(set(levels)):
        key = [(b"tRNS", struct.pack(">H", level // step))]
        shown = pixels(png((4, 1), depth, 0, [row], before=key), background=(9, 9, 9))
        assert shown.tolist() == [[9 if each == level else each for each in levels]]


def test_hidden_colours_do_not_shine_through() -> None:
    layer = np.zeros((4, 4, 4), np.uint8)  # clear black
    assert (pixels(saved(layer)) == 255).all()
    layer[..., :3] = 255  # clear white
    assert (pixels(saved(layer), background=(0, 0, 0)) == 0).all()


# ----- Samples -----

DEEP_GREY = {
    "PNG": saved(DEEP),
    **{k: STORED[k] for k in STORED if k.startswith("deep") or "integers" in k},
}


@pytest.mark.parametrize("kind", DEEP_GREY)
def test_sixteen_bits_are_scaled(kind: str) -> None:
    shown = pixels(DEEP_GREY[kind])
    assert shown.ndim == 2
    np.testing.assert_array_equal(shown, DEEP >> 8)
    np.testing.assert_allclose(shown, DEEP / 257, atol=1)
    np.testing.assert_array_equal(pixels(DEEP_GREY[kind], "RGB")[..., 1], DEEP >> 8)


@pytest.mark.parametrize("factor", [256, 257])
def test_eight_bits_that_were_widened_come_back(factor: int) -> None:
    np.testing.assert_array_equal(pixels(saved(GREY.astype(np.uint16) * factor)), GREY)
    wide = deep_png(COLOUR.astype(np.uint16) * factor, 2)
    np.testing.assert_array_equal(pixels(wide), COLOUR)


def test_deep_grey_with_alpha_is_grey() -> None:
    content = deep_png(np.stack([DEEP, DEEP[::-1]], 2), 4)
    expected = mixed(DEEP >> 8, DEEP[::-1] >> 8, WHITE)[..., 0]
    np.testing.assert_allclose(pixels(content), expected, atol=1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (saved(GREY.astype(np.float32) / 255, "TIFF"), r"a kind that is not read.*mode F\)"),
        (saved(Image.new("LAB", (4, 4)), "TIFF"), r"a kind that is not read.*mode LAB\)"),
        (saved(GREY.astype(np.int32), "TIFF"), "32-bit samples from 0 to 255, whose white"),
        (saved(DEEP.astype(np.int32) * 2, "TIFF"), "32-bit samples from"),
        (saved(-DEEP.astype(np.int32), "TIFF"), "32-bit samples from -"),
    ],
)
def test_samples_without_a_known_white_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(UnreadablePicture, match=r"^cat/1\.tif has.*" + words):
        pixels(content, name="cat/1.tif")


@pytest.mark.parametrize(
    ("content", "expected", "tolerance"),
    [
        (SERVED["grey"], GREY, 0),
        (SERVED["colour"], COLOUR, 0),
        (SERVED["one bit"], np.where(GREY > 127, 255, 0), 0),
        (SERVED["palette"], PALETTE, 0),
        (STORED["BMP"], COLOUR, 0),
        (STORED["TIFF"], COLOUR, 0),
        (SERVED["CMYK JPEG"], BLOCKS, 4),
        (STORED["CMYK TIFF"], BLOCKS, 1),
        (animation("PNG"), COLOUR, 0),
        (animation("WEBP"), COLOUR, 0),
    ],
)
def test_pixels_are_those_of_the_first_picture(
    content: bytes, expected: np.ndarray, tolerance: int
) -> None:
    np.testing.assert_allclose(pixels(content), expected, atol=tolerance)


def test_of_an_animated_gif_the_first_picture_is_read() -> None:
    assert np.abs(pixels(animation("GIF")).astype(int) - COLOUR).mean() < 12
    assert np.abs(pixels(animation("GIF")).astype(int) - (255 - COLOUR)).mean() > 60


@pytest.mark.parametrize("kind", [*SERVED, *STORED])
def test_grey_or_colour_can_be_asked_for(kind: str) -> None:
    content = (SERVED | STORED)[kind]
    own, grey, colour = (pixels(content, mode) for mode in (None, "L", "RGB"))
    assert (grey.ndim, colour.shape) == (2, (*grey.shape, 3))
    np.testing.assert_array_equal(own, grey if own.ndim == 2 else colour)
    # ITU-R BT.601
    np.testing.assert_allclose(grey, colour @ [0.299, 0.587, 0.114], atol=1)


# ----- What is refused -----


def huge(form: str) -> bytes:
    """A tiny file whose header declares 10 000 × 9 000 pixels."""
    if form == "PNG":
        return png((10_000, 9_000), 8, 0, [b"\0" * 1000])
    if form == "WEBP":
        size = struct.pack("<I", 9_999)[:3] + struct.pack("<I", 8_999)[:3]
        frame = saved(COLOUR, "WEBP", lossless=True)[12:]
        parts = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size
        parts += b"ANIM" + struct.pack("<I", 6) + b"\0" * 6
        head = b"\0" * 6 + struct.pack("<I", 23)[:3] + struct.pack("<I", 15)[:3] + b"\0" * 4
        parts += b"ANMF" + struct.pack("<I", 16 + len(frame)) + head + frame
        return b"RIFF" + struct.pack("<I", 4 + len(parts)) + b"WEBP" + parts
    content = saved(COLOUR, form)
    if form == "JPEG":
        start = content.index(b"\xff\xc0") + 5
        return content[:start] + struct.pack(">HH", 9_000, 10_000) + content[start + 4 :]
    return content[:6] + struct.pack("<HH", 10_000, 9_000) + content[10:]  # GIF


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_a_declared_size_is_checked_before_pixels_are_decoded(form: str) -> None:
    with pytest.raises(
        PictureTooLarge, match=r"^p is 10000 × 9000 = 90000000 pixels, at most 1000"
    ):
        pixels(huge(form), name="p", max_pixels=1000)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_a_truncated_picture_is_refused(form: str, share: float) -> None:
    whole = saved(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8), form)
    if form == "TIFF":  # Pillow puts the directory in front
        assert whole[4:8] == struct.pack("<I", 8)
    with pytest.raises(UnreadablePicture, match=r"^p is "):
        pixels(whole[: int(share * len(whole))], name="p")


@pytest.mark.parametrize("content", [b"hello", b"%PDF-1.4", b"<svg/>", b"\0" * 64])
def test_bytes_that_are_no_picture_are_refused(content: bytes) -> None:
    with pytest.raises(UnreadablePicture, match=r"^p is not a picture that Pillow can read$"):
        pixels(content, name="p")


@pytest.mark.parametrize("content", [STORED["GIF"], STORED["BMP"], STORED["TIFF"]])
def test_other_formats_than_those_named_are_refused(content: bytes) -> None:
    with pytest.raises(UnreadablePicture, match=r"^p is not a PNG, JPEG or WebP picture$"):
        pixels(content, name="p", formats=("PNG", "JPEG", "WEBP"))
    with pytest.raises(UnreadablePicture, match=r"^p is not a PNG picture$"):
        pixels(content, name="p", formats=("PNG",))


def test_no_bytes_are_refused() -> None:
    with pytest.raises(
        UnreadablePicture, match=r"^p: expected a picture that Pillow can read, got"
    ):
        pixels(b"", name="p")
