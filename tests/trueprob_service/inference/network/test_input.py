import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trueprob.repository.manifest import InputSpec, Manifest
from trueprob_service.errors import InvalidRequest, ModelUnavailable
from trueprob_service.inference.network.input import NetworkInput
from trueprob_service.inference.network.inputs import NetworkInputs
from trueprob_service.inference.network.tensors import NamedTensors

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


def manifest(*specs: InputSpec) -> Manifest:
    inputs: dict[str, Any] = {"input": specs[0]} if len(specs) == 1 else {"inputs": specs}
    return Manifest("m", 1, 2, ("a", "b"), **inputs)


def test_a_network_of_numbers_takes_no_pictures() -> None:
    table = NetworkInputs.from_manifest(manifest(spec("float32", "NF", {}, ("batch", 5))))
    rows = np.zeros((2, 5), np.float32)
    assert table.tensors(table.from_rows(rows)) is rows
    with pytest.raises(InvalidRequest, match=r"takes no pictures: send rows or inputs \(image\)"):
        table.require_pictures()
    arrays = {"images": rows.astype(np.float64), "labels": np.zeros(2)}
    taken = table.take(arrays)  # earlier sets call their rows so
    assert isinstance(taken, np.ndarray)
    assert (taken.dtype, list(arrays)) == (np.float32, ["labels"])


def test_a_network_of_pictures_takes_its_own_tensor_too() -> None:
    taken = NetworkInputs.from_manifest(manifest(spec("float32", "NCHW", RGB | IMAGENET)))
    own = np.random.default_rng(0).normal(size=(4, 3, 2, 3))
    for rows in (taken.from_rows(own), taken.from_fields({"image": own})):
        tensors = taken.tensors(rows)
        assert isinstance(tensors, NamedTensors)
        np.testing.assert_array_equal(tensors.arrays["image"], own.astype(np.float32))
    with pytest.raises(InvalidRequest, match=r"rows must be float32 of shape \(n, 3, 2, 3\)"):
        taken.from_rows(own[:, :, :, 0])


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([("x", "text", ("n",), "rows")], "needs a dtype of bool, float16"),
        ([("x", "float32", (), "rows")], "a shape with rows first"),
        ([("x", "float32", ("n", 3), "rows", {"mode": "L"})], "no preprocessing"),
        ([("x", "uint8", ("n", 8, 8, 1), "NHWC"), ("y", "int64", ("n",), "rows")], "'NHWC' needs"),
    ],
)
def test_manifests_of_inputs_that_cannot_be_filled(specs: list[Any], words: str) -> None:
    with pytest.raises(ModelUnavailable, match=words):
        NetworkInputs.from_manifest(manifest(*(InputSpec(*each) for each in specs)))


@pytest.mark.parametrize(
    ("dtype", "layout", "preprocessing", "words"),
    [
        ("uint8", "NHWC", RGB | {"scale": 255}, r"input\.dtype must be uint8, or"),
        ("int64", "NHWC", RGB, r"input\.dtype must be uint8, or"),
        ("float32", "NHWC", RGB | {"std": 0}, r"preprocessing\.std must be one positive"),
        ("float32", "NHWC", RGB | {"mean": [1, 2]}, r"preprocessing\.mean must be one number or 3"),
        ("float32", "NHWC", RGB | {"mean": "0"}, r"preprocessing\.mean must be"),
        ("float32", "NHWC", RGB | {"crop": 224}, "must have mode"),
    ],
)
def test_what_cannot_be_done_is_refused(
    dtype: str, layout: str, preprocessing: dict, words: str
) -> None:
    with pytest.raises(ModelUnavailable, match=words):
        NetworkInput.from_manifest(spec(dtype, layout, preprocessing))
