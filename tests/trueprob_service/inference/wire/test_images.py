import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from trueprob_service.errors import BadRequest, BodyTooLarge, InvalidRequest, ModelUnavailable
from trueprob_service.inference.wire.images import Preprocessing

GREY = Preprocessing("L", 8, 8, "box")


def encoded(array: np.ndarray, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, form, **options)
    return stream.getvalue()


def test_a_picture_of_the_right_size_comes_through_unchanged() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    batch = GREY.decode([encoded(pixels)], max_pixels=64)
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch, pixels[None, :, :, None])


def test_box_undoes_an_enlargement_by_repetition() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    large = pixels.repeat(20, axis=0).repeat(20, axis=1)
    batch = GREY.decode([encoded(large)], max_pixels=10**6)
    np.testing.assert_array_equal(batch[0, :, :, 0], pixels)


@pytest.mark.parametrize(
    ("shape", "middle"),
    [((8, 12), np.s_[:, 2:10]), ((12, 8), np.s_[2:10]), ((8, 13), np.s_[:, 2:10]),
     ((15, 8), np.s_[4:12]), ((8, 8), np.s_[:])],
)  # fmt: skip
def test_the_middle_is_cut_out_of_what_was_resized(
    shape: tuple[int, int], middle: tuple[slice, ...]
) -> None:
    manifest = {"mode": "L", "resize": 8, "crop": [8, 8], "resample": "box"}
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    large = pixels.repeat(20, axis=0).repeat(20, axis=1)
    for sent in (pixels, large):
        batch = Preprocessing.from_manifest(manifest).decode([encoded(sent)], max_pixels=10**6)
        np.testing.assert_array_equal(batch[0, :, :, 0], pixels[middle])


def test_a_strip_does_not_grow_with_its_shorter_side() -> None:
    wide = Preprocessing.from_manifest({"mode": "L", "resize": 256, "crop": [224, 224]})
    strip = encoded(np.zeros((1, 5000), np.uint8))
    with pytest.raises(BodyTooLarge, match=r"images\[0\] would be 1280000 × 256"):
        wide.decode([strip], max_pixels=10**6)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_formats_and_colours(form: str) -> None:
    red = np.zeros((10, 12, 3), np.uint8)
    red[..., 0] = 200
    colour = Preprocessing("RGB", 4, 6)
    batch = colour.decode([encoded(red, form), encoded(red, form)], max_pixels=120)
    assert batch.shape == (2, 4, 6, 3)
    np.testing.assert_allclose(batch[..., 0], 200, atol=3)
    grey = Preprocessing("L", 4, 6).decode([encoded(red, form)], max_pixels=120)
    np.testing.assert_allclose(grey, 200 * 0.299, atol=3)


def png_that_declares(width: int, height: int) -> bytes:
    """A tiny PNG whose header promises many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\x00" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(BodyTooLarge, match=r"images\[0\] is 10000 × 10000 = 100000000 pixels"):
        GREY.decode([png_that_declares(10_000, 10_000)], max_pixels=50_000_000)


def test_a_damaged_picture_is_refused() -> None:
    whole = encoded(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    with pytest.raises(BadRequest, match=r"images\[1\] is damaged or truncated"):
        GREY.decode([whole, whole[: len(whole) // 2]], max_pixels=10**6)


@pytest.mark.parametrize("body", [b"hello", b"GIF89a" + b"\x00" * 20, b"%PDF-1.4", b"\x00" * 64])
def test_bytes_that_are_no_picture_are_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match=r"images\[0\] is not a PNG, JPEG or WebP picture"):
        GREY.decode([body], max_pixels=10**6)


def test_no_bytes_are_refused() -> None:
    with pytest.raises(BadRequest, match=r"images\[0\]: expected a PNG, JPEG or WebP"):
        GREY.decode([b""], max_pixels=10**6)


def test_sixteen_bits_a_sample_are_refused_rather_than_clipped() -> None:
    deep = np.full((8, 8), 40_000, np.uint16)
    with pytest.raises(InvalidRequest, match="more than 8 bits a sample"):
        GREY.decode([encoded(deep)], max_pixels=64)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 8, 8), np.uint8),
        np.zeros((2, 8, 8, 1), np.float32),
        np.zeros((2, 9, 8, 1), "B"),
    ],
)
def test_a_decoded_batch_must_have_the_shape_of_the_network(array: np.ndarray) -> None:
    with pytest.raises(InvalidRequest, match=r"images must be uint8 of shape \(n, 8, 8, 1\)"):
        GREY.prepare(array)


@pytest.mark.parametrize(
    "preprocessing",
    [{}, {"mode": "CMYK", "resize": [8, 8]}, {"mode": "L", "resize": [8]},
     {"mode": "L", "resize": 8}, {"mode": "L", "resize": [8, 8], "crop": [4, 4]},
     {"mode": "L", "resize": 8, "crop": [9, 4]}, {"mode": "L", "resize": 8, "crop": [4]},
     {"mode": "L", "resize": [8, 8], "resample": "magic"}, {"mode": "L", "resize": [8, 8], "x": 1}],
)  # fmt: skip
def test_a_manifest_that_asks_for_the_unknown_is_refused(preprocessing: dict) -> None:
    with pytest.raises(ModelUnavailable, match=r"input\.preprocessing must have mode"):
        Preprocessing.from_manifest(preprocessing)
