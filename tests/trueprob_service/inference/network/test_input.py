import io

import numpy as np
import pytest
from PIL import Image

from trueprob.repository.manifest import InputSpec
from trueprob_service.errors import InvalidRequest, ModelUnavailable
from trueprob_service.inference.network.input import NetworkInput

RGB = {"mode": "RGB", "resize": [2, 3]}
IMAGENET = {"scale": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def spec(dtype: str, layout: str, preprocessing: dict, shape: tuple = ("batch", 1, 1, 1)):
    return InputSpec("image", dtype, shape, layout, preprocessing)


def pixels(n: int = 4) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 2, 3, 3), np.uint8)


def test_a_network_of_pixels_gets_them_as_they_are() -> None:
    taken = NetworkInput.from_manifest(spec("uint8", "NHWC", RGB))
    images = pixels()
    assert taken.row_shape == (2, 3, 3)
    np.testing.assert_array_equal(taken.tensor(taken.check(images)), images)


@pytest.mark.parametrize(("layout", "axis"), [("NHWC", 3), ("NCHW", 1)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_pixels_are_normalised_channel_by_channel(layout: str, axis: int, dtype: str) -> None:
    taken = NetworkInput.from_manifest(spec(dtype, layout, RGB | IMAGENET))
    images = pixels()
    mean, std = np.array(IMAGENET["mean"]), np.array(IMAGENET["std"])
    expected = np.moveaxis((images / 255 - mean) / std, 3, axis)
    tensor = taken.tensor(taken.check(images))
    assert tensor.dtype == np.dtype(dtype)
    assert tensor.flags.c_contiguous
    assert tensor.shape[1:] == taken.row_shape
    np.testing.assert_allclose(
        tensor.astype(np.float64), expected, atol=2e-3 if dtype == "float16" else 1e-6
    )


def test_one_number_is_for_all_channels_and_channels_first_holds_for_bytes() -> None:
    same = NetworkInput.from_manifest(
        spec("float32", "NHWC", RGB | {"scale": 255, "mean": 0.5, "std": 0.25})
    )
    np.testing.assert_allclose(same.tensor(pixels()), (pixels() / 255 - 0.5) / 0.25, atol=1e-6)
    first = NetworkInput.from_manifest(spec("uint8", "NCHW", RGB))
    np.testing.assert_array_equal(first.tensor(pixels()), pixels().transpose(0, 3, 1, 2))


def test_a_picture_becomes_what_its_pixels_become() -> None:
    taken = NetworkInput.from_manifest(spec("float32", "NCHW", RGB | IMAGENET))
    image = pixels(1)
    stream = io.BytesIO()
    Image.fromarray(image[0]).save(stream, "PNG")
    decoded = taken.decode([stream.getvalue()], max_pixels=100)
    np.testing.assert_array_equal(decoded, taken.tensor(image))


def test_the_networks_own_tensor_goes_through_untouched() -> None:
    taken = NetworkInput.from_manifest(spec("float32", "NCHW", RGB | IMAGENET))
    own = np.random.default_rng(0).normal(size=(4, 3, 2, 3)).astype(np.float32)
    assert taken.tensor(taken.check(own)) is own
    table = NetworkInput.from_manifest(spec("float32", "NF", {}, ("batch", 5)))
    rows = np.zeros((2, 5), np.float32)
    assert table.tensor(table.check(rows)) is rows


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.zeros((2, 2, 3, 3), np.float32), "images must be uint8 of shape"),
        (np.zeros((2, 3, 3, 3), np.uint8), "images must be uint8 of shape"),
        (np.zeros((0, 2, 3, 3), np.uint8), "images must be uint8 of shape"),
        (np.full((2, 3, 2, 3), np.nan, np.float32), "images must be finite float32 of shape"),
        (np.zeros((0, 3, 2, 3), np.float32), "images must be finite float32 of shape"),
    ],
)
def test_other_rows_are_refused_by_name(rows: np.ndarray, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        NetworkInput.from_manifest(spec("float32", "NCHW", RGB | IMAGENET)).check(rows)


def test_a_network_of_numbers_takes_no_pictures() -> None:
    table = NetworkInput.from_manifest(spec("float32", "NF", {}, ("batch", 5)))
    with pytest.raises(InvalidRequest, match=r"takes rows of float32 of shape \(5,\), not pict"):
        table.decode([b""], max_pixels=1)
    with pytest.raises(InvalidRequest, match="images must be finite float32"):
        table.check(np.zeros((2, 5), np.uint8))


@pytest.mark.parametrize(
    ("dtype", "layout", "preprocessing", "words"),
    [
        ("uint8", "NHWC", RGB | {"scale": 255}, r"input\.dtype must be uint8, or"),
        ("int64", "NHWC", RGB, r"input\.dtype must be uint8, or"),
        ("float32", "NHWC", RGB | {"std": 0}, r"preprocessing\.std must be one positive"),
        ("float32", "NHWC", RGB | {"mean": [1, 2]}, r"preprocessing\.mean must be one number or 3"),
        ("float32", "NHWC", RGB | {"mean": "0"}, r"preprocessing\.mean must be"),
        ("float32", "NHWC", RGB | {"crop": 224}, "must have mode"),
        ("float32", "NF", RGB, r"input\.layout 'NF' needs"),
    ],
)
def test_what_cannot_be_done_is_refused(
    dtype: str, layout: str, preprocessing: dict, words: str
) -> None:
    with pytest.raises(ModelUnavailable, match=words):
        NetworkInput.from_manifest(spec(dtype, layout, preprocessing))
