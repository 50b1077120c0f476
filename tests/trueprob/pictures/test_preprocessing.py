"""Pictures become the pixels of a network: size, crop, background, and the same everywhere."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trueprob.pictures.made_pictures import COLOUR, SERVED, saved, turned, with_alpha
from trueprob.errors import InvalidDocument
from trueprob.pictures.decoding import PictureTooLarge
from trueprob.pictures.preprocessing import RESAMPLE, Preprocessing
from trueprob.repository.manifest import InputSpec
from trueprob_service.inference.network.input import NetworkInput
from trueprob_trainer.data.decoding import decode

GREY = Preprocessing("L", 8, 8, "box")


def prepared(preprocessing: dict[str, Any] | Preprocessing, content: bytes) -> np.ndarray:
    if isinstance(preprocessing, dict):
        preprocessing = Preprocessing.from_manifest(preprocessing)
    result = preprocessing.decode(content, name="images[0]", max_pixels=10**6)
    assert (result.dtype, result.shape) == (np.uint8, preprocessing.shape)
    return result


def test_a_picture_of_the_right_size_comes_through_unchanged() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(prepared(GREY, saved(pixels))[..., 0], pixels)


def test_box_undoes_an_enlargement_by_repetition() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    large = pixels.repeat(20, axis=0).repeat(20, axis=1)
    np.testing.assert_array_equal(prepared(GREY, saved(large))[..., 0], pixels)


# ----- Crop -----


@pytest.mark.parametrize(
    ("shape", "middle"),
    [((8, 12), np.s_[:, 2:10]), ((12, 8), np.s_[2:10]), ((8, 13), np.s_[:, 2:10]),
     ((15, 8), np.s_[4:12]), ((8, 8), np.s_[:])],
)  # fmt: skip
def test_the_middle_is_cut_out_of_what_was_resized(
    shape: tuple[int, int], middle: tuple[slice, ...]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    large = pixels.repeat(20, axis=0).repeat(20, axis=1)
    for crop in (8, [8, 8]):
        manifest = {"mode": "L", "resize": 8, "crop": crop, "resample": "box"}
        for sent in (pixels, large):
            np.testing.assert_array_equal(prepared(manifest, saved(sent))[..., 0], pixels[middle])


def evaluation_transform(image: Image.Image, side: int, crop: tuple[int, int], method: Any) -> Any:
    """What evaluations do: the shorter side to `side`, then the centre (rounded to even)."""
    short, long = sorted(image.size)
    other = int(side * long / short)
    size = (side, other) if image.width <= image.height else (other, side)
    image = image.resize(size, method)
    top, left = round((size[1] - crop[0]) / 2.0), round((size[0] - crop[1]) / 2.0)
    return np.asarray(image)[top : top + crop[0], left : left + crop[1]]


@pytest.mark.parametrize("resample", RESAMPLE)
@pytest.mark.parametrize("size", [(40, 31), (31, 40), (33, 33), (9, 50), (20, 27)])
@pytest.mark.parametrize(("side", "crop"), [(16, 14), (17, (12, 9)), (13, 13)])
def test_a_crop_is_that_of_evaluations(
    resample: str, size: tuple[int, int], side: int, crop: int | tuple[int, int]
) -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8))
    both = (crop, crop) if isinstance(crop, int) else crop
    expected = evaluation_transform(image, side, both, Image.Resampling[resample.upper()])
    manifest = {"mode": "RGB", "resize": side, "crop": crop, "resample": resample}
    np.testing.assert_array_equal(prepared(manifest, saved(image)), expected)


def test_a_turned_picture_is_cropped_as_it_is_shown() -> None:
    manifest = {"mode": "RGB", "resize": 12, "crop": [12, 10]}
    upright = saved(np.rot90(COLOUR, -1))
    shown = prepared(manifest, turned(COLOUR, "PNG", 6))
    np.testing.assert_array_equal(shown, prepared(manifest, upright))


def test_a_strip_does_not_grow_with_its_shorter_side() -> None:
    strip = saved(np.zeros((1, 5000), np.uint8))
    with pytest.raises(PictureTooLarge, match=r"images\[0\] would be 1280000 × 256"):
        prepared({"mode": "L", "resize": 256, "crop": [224, 224]}, strip)


# ----- Background -----


@pytest.mark.parametrize(
    ("mode", "background", "levels"),
    [("RGB", None, (255, 255, 255)), ("RGB", 0, (0, 0, 0)), ("RGB", [1, 2, 3], (1, 2, 3)),
     ("RGB", [9], (9, 9, 9)), ("L", None, (255,)), ("L", 17, (17,)), ("L", [17], (17,))],
)  # fmt: skip
def test_the_background_is_the_manifests(mode: str, background: Any, levels: tuple) -> None:
    manifest = {"mode": mode, "resize": [2, 3]}
    manifest |= {} if background is None else {"background": background}
    clear = Image.new("RGBA", (3, 2), (40, 50, 60, 0))
    for form in ("PNG", "WEBP"):
        assert (prepared(manifest, saved(clear, form, lossless=True)) == levels).all()
    np.testing.assert_array_equal(
        prepared(manifest | {"resize": [16, 24]}, saved(with_alpha(COLOUR)))[-1, -1],
        prepared(manifest | {"resize": [16, 24]}, saved(COLOUR))[-1, -1],
    )


@pytest.mark.parametrize("background", [-1, 256, 1.5, True, "white", [1, 2], [], None, [0, 0, 300]])
def test_a_background_that_is_no_colour_is_refused(background: Any) -> None:
    manifest = {"mode": "RGB", "resize": [2, 3], "background": background}
    with pytest.raises(
        InvalidDocument, match=r"input\.preprocessing\.background must be one whole"
    ):
        Preprocessing.from_manifest(manifest)
    with pytest.raises(InvalidDocument, match="must be one whole number from 0 to 255, got"):
        Preprocessing.from_manifest({**manifest, "mode": "L", "background": [1, 2, 3]})


@pytest.mark.parametrize(
    "preprocessing",
    [{}, {"mode": "CMYK", "resize": [8, 8]}, {"mode": "L", "resize": [8]},
     {"mode": "L", "resize": 8}, {"mode": "L", "resize": [8, 8], "crop": [4, 4]},
     {"mode": "L", "resize": 8, "crop": [9, 4]}, {"mode": "L", "resize": 8, "crop": [4]},
     {"mode": "L", "resize": 8, "crop": 9}, {"mode": "L", "resize": 8, "crop": True},
     {"mode": "L", "crop": 8}, {"mode": "L", "resize": 8, "crop": 0},
     {"mode": "L", "resize": [8, 8], "resample": "magic"}, {"mode": "L", "resize": [8, 8], "x": 1}],
)  # fmt: skip
def test_a_manifest_that_asks_for_the_unknown_is_refused(preprocessing: dict) -> None:
    with pytest.raises(InvalidDocument, match=r"input\.preprocessing must have mode"):
        Preprocessing.from_manifest(preprocessing)


# ----- One decoder -----


@pytest.mark.parametrize("kind", SERVED)
@pytest.mark.parametrize("image_size", [0, 11])
def test_service_and_trainer_see_the_same_pixels(kind: str, image_size: int) -> None:
    content = SERVED[kind]
    trained = decode([np.frombuffer(content, np.uint8)], source="here", image_size=image_size)
    _, height, width, channels = trained.shape
    manifest = {"mode": "L" if channels == 1 else "RGB", "resize": [height, width]}
    spec = InputSpec("x", "uint8", ("batch", height, width, channels), "NHWC", manifest)
    served = NetworkInput.from_manifest(spec).decode([content], max_pixels=10**6)
    np.testing.assert_array_equal(served, trained)


def test_a_picture_is_the_same_for_a_trainer_that_saw_another_first() -> None:
    """Grey or colour is the first picture's; the service has it from the manifest."""
    for first in (saved(COLOUR[..., 0]), saved(COLOUR)):
        for content in SERVED.values():
            files = [np.frombuffer(each, np.uint8) for each in (first, content)]
            trained = decode(files, source="here", image_size=9)
            mode = "L" if trained.shape[3] == 1 else "RGB"
            alone = prepared({"mode": mode, "resize": [9, 9]}, content)
            np.testing.assert_array_equal(alone, trained[1])
    assert Image.open(io.BytesIO(content)).size == (24, 16)
