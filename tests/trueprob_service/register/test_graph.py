"""What is found out about a network, what is asked for, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.trueprob_service.register.networks import network
from trueprob_service.inference.network.onnx_model import open_session
from trueprob_service.register.graph import InspectedGraph, inspect
from trueprob_service.register.options import (
    CannotRegister,
    RegisterOptions,
    class_names,
    refuse_to_guess,
)

FLOATS = {"mean": "0.5", "std": "0.25"}


def look(path: Path, **options: Any) -> InspectedGraph:
    return inspect(open_session(path, threads=1), RegisterOptions(**options), refuse_to_guess)


def answered(
    path: Path, answers: dict[str, str], **options: Any
) -> tuple[InspectedGraph, list[str]]:
    asked: list[str] = []

    def ask(flag: str, unknown: str) -> str:
        asked.append(flag)
        return answers[flag]

    return inspect(open_session(path, threads=1), RegisterOptions(**options), ask), asked


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "layout", "written", "mode", "resize"),
    [
        (("n", 8, 6, 1), "uint8", {}, "NHWC", ("batch", 8, 6, 1), "L", [8, 6]),
        (("n", 8, 6, 3), "uint8", {}, "NHWC", ("batch", 8, 6, 3), "RGB", [8, 6]),
        (("n", 3, 8, 6), "float32", FLOATS, "NCHW", ("batch", 3, 8, 6), "RGB", [8, 6]),
        ((5, 1, 8, 6), "float32", FLOATS, "NCHW", (5, 1, 8, 6), "L", [8, 6]),
        (("n", 3, 8, 3), "float32", FLOATS | {"layout": "NCHW"}, "NCHW",
         ("batch", 3, 8, 3), "RGB", [8, 3]),
        (("n", 3, "h", "w"), "float32", FLOATS | {"resize": "4,6"}, "NCHW",
         ("batch", 3, 4, 6), "RGB", [4, 6]),
        (("n", 3, 8, 6), "float32", FLOATS | {"resize": "9"}, "NCHW",
         ("batch", 3, 8, 6), "RGB", 9),
        (("n", 3, "h", "w"), "float32", FLOATS | {"resize": "7", "crop": "4,6"}, "NCHW",
         ("batch", 3, 4, 6), "RGB", 7),
        (("n", 3, 6, 6), "float32", FLOATS | {"resize": "7", "crop": "6"}, "NCHW",
         ("batch", 3, 6, 6), "RGB", 7),
        (("n", "h", "w", 2 + 1), "uint8", {"resize": "7", "crop": "4,6"}, "NHWC",
         ("batch", 4, 6, 3), "RGB", 7),
    ],
)  # fmt: skip
def test_pictures_are_recognised(
    tmp_path: Path, shape: tuple, dtype: str, options: dict, layout: str, written: tuple,
    mode: str, resize: list | int,
) -> None:  # fmt: skip
    size = 4 * 6 * 3 if "h" in shape else None
    found = look(network(tmp_path / "m.onnx", shape, dtype=dtype, n_inputs=size), **options)
    (spec,) = found.inputs
    assert (spec.name, spec.dtype, spec.layout, spec.shape) == ("x", dtype, layout, written)
    assert (spec.preprocessing["mode"], spec.preprocessing["resize"]) == (mode, resize)
    assert spec.preprocessing.get("crop") == (
        None if type(resize) is list else list(written[2:] if layout == "NCHW" else written[1:3])
    )
    normalisation = {"scale": 255.0, "mean": 0.5, "std": 0.25} if dtype == "float32" else {}
    assert {k: spec.preprocessing[k] for k in normalisation} == normalisation
    assert (found.output_name, found.output_kind, found.n_classes) == ("logits", "logits", 3)


@pytest.mark.parametrize(("given", "kept"), [(None, None), ("0", 0), ("255, 128,7", [255, 128, 7])])
def test_the_background_is_recorded_if_it_is_given(
    tmp_path: Path, given: str | None, kept: int | list[int] | None
) -> None:
    path = network(tmp_path / "m.onnx", ("n", 3, 8, 6))
    preprocessing = look(path, **FLOATS, background=given).inputs[0].preprocessing
    assert preprocessing.get("background") == kept
    assert ("background" in preprocessing) == (given is not None)


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_other_tensors_are_rows_of_numbers(tmp_path: Path, dtype: str) -> None:
    found = look(network(tmp_path / "m.onnx", ("n", 5), dtype=dtype))
    (spec,) = found.inputs
    assert (spec.layout, spec.shape, spec.preprocessing) == ("rows", ("batch", 5), {})


@pytest.mark.parametrize(
    ("outputs", "options", "chosen", "kind"),
    [
        (("logits",), {}, "logits", "logits"),
        (("embedding",), {}, "embedding", "logits"),
        (("probabilities",), {}, "probabilities", "probabilities"),
        (("probabilities", "logits"), {}, "logits", "logits"),
        (("labels", "probabilities"), {}, "probabilities", "probabilities"),
        (("one", "embedding"), {}, "embedding", "logits"),
        (("embedding", "logits"), {}, "logits", "logits"),
        (("embedding", "sigmoid"), {"output": "embedding"}, "embedding", "logits"),
        (("logits", "probabilities"), {"output": "probabilities"}, "probabilities",
         "probabilities"),
        (("sigmoid",), {"output_kind": "logits"}, "sigmoid", "logits"),
    ],
)  # fmt: skip
def test_the_output_and_its_kind(
    tmp_path: Path, outputs: tuple, options: dict, chosen: str, kind: str
) -> None:
    found = look(network(tmp_path / "m.onnx", ("n", 5), outputs=outputs), **options)
    assert (found.output_name, found.output_kind) == (chosen, kind)


@pytest.mark.parametrize(
    ("shape", "made", "options", "words"),
    [
        (("n", 3, 8, 3), {}, FLOATS, "may be NHWC or NCHW; set it with --layout"),
        (("n", 3, 8, 6), {}, {}, "mean; set it with --mean and --std"),
        (("n", 3, 8, 6), {}, FLOATS | {"layout": "NHWC"}, "--layout must be NCHW for shape"),
        (("n", 3, 8, 6), {}, FLOATS | {"mode": "L"}, "--mode must be RGB for input 'x'"),
        (("n", 3, 8, 6), {}, FLOATS | {"resize": "8,8"}, "--resize must be 8,6 for input 'x'"),
        (("n", 3, 8, 6), {}, {"mean": "a", "std": "1"}, "--mean must be numbers"),
        (("n", 3, 8, 6), {}, {"mean": "1,2"}, "preprocessing.mean must be one number or 3"),
        (("n", 3, 8, 6), {}, {"std": "0"}, "preprocessing.std must be one positive number"),
        (("n", 4, 8, 6), {}, FLOATS, "pictures have 1 or 3 channels"),
        (("n", 3, "h", "w"), {"n_inputs": 72}, FLOATS, "any size (HEIGHT,WIDTH); set it with"),
        (("n", 3, "h", "w"), {"n_inputs": 72}, FLOATS | {"resize": "4"}, "must be HEIGHT,WIDTH"),
        (("n", 3, 8, 6), {}, FLOATS | {"resize": "7"}, "of at least both sides of crop"),
        (("n", 3, 8, 6), {}, FLOATS | {"crop": "8,6"}, "one whole number with --crop"),
        (("n", 3, 8, 6), {}, FLOATS | {"resize": "9", "crop": "8,8"}, "--crop must be 8,6"),
        (("n", 3, 8, 6), {}, FLOATS | {"resize": "9", "crop": "8"}, "--crop must be 8,6"),
        (("n", 3, 8, 6), {}, FLOATS | {"resize": "9", "crop": "0.9"}, "--crop must be HEIGHT,WID"),
        (("n", 3, 8, 6), {}, FLOATS | {"crop": "8,6"}, "before the middle is cut out, got none"),
        (("n", 3, 8, 6), {}, FLOATS | {"background": "256"}, "whole numbers from 0 to 255, got"),
        (("n", 3, 8, 6), {}, FLOATS | {"background": "0.5"}, "whole numbers from 0 to 255, got"),
        (("n", 3, 8, 6), {}, FLOATS | {"background": "white"}, "--background must be numbers"),
        (("n", 3, 8, 6), {}, FLOATS | {"background": "1,2"}, "one whole number from 0 to 255 or 3"),
        (("n", 8, 6, 1), {"dtype": "uint8"}, {"background": "1,2,3"}, "from 0 to 255, got"),
        (("n", 5), {}, {"background": "0"}, "--background is for pictures"),
        (("n", 3, "h", "w"), {"n_inputs": 72}, FLOATS | {"resize": "4,4"}, "network fails on 8"),
        (("n", 8, 6, 1), {"dtype": "uint8"}, FLOATS, "--mean is for networks of floats"),
        (("n", 5), {}, {"layout": "NCHW"}, "--layout is for pictures"),
        (("n", "m"), {"n_inputs": 5}, {}, "fails on 8 rows (it leaves m open, and runs none"),
        (("n", 5), {"outputs": ("labels",)}, {}, "no output has shape (8, classes)"),
        (("n", 5), {"outputs": ("embedding", "sigmoid")}, {}, "set it with --output"),
        (("n", 5), {"outputs": ("logits", "one")}, {"output": "two"}, "--output must be one of"),
        (("n", 5), {"outputs": ("sigmoid",)}, {}, "multi-label networks cannot be served"),
        (("n", 5), {}, {"output_kind": "probabilities"}, "do not sum to one"),
        (("n", 5), {}, {"output_kind": "scores"}, "--output-kind must be one of logits, prob"),
        (("n", 5), {}, {"n_classes": 4}, "--class-names has 4 names, the network gives logits 3"),
        (("n", 5), {"weight": float("inf")}, {}, "is not finite on random rows"),
    ],
)  # fmt: skip
def test_what_is_not_known_or_cannot_be_served_names_the_flag(
    tmp_path: Path, shape: tuple, made: dict, options: dict, words: str
) -> None:
    path = network(tmp_path / "m.onnx", shape, **made)
    with pytest.raises(CannotRegister) as caught:
        look(path, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_asked_for_is_taken_as_if_it_had_been_said(tmp_path: Path) -> None:
    path = network(
        tmp_path / "m.onnx", ("n", "a", "b", "c"), n_inputs=72, outputs=("embedding", "sigmoid")
    )
    answers = {
        "--layout": "NCHW", "--mode": "RGB", "--resize": "4,6", "--std": "0.2,0.3,0.4",
        "--mean and --std (or --scale alone)": "0.5", "--output": "embedding",
    }  # fmt: skip
    found, asked = answered(path, answers)
    assert sorted(asked) == sorted(answers)
    assert found.inputs[0].shape == ("batch", 3, 4, 6)
    assert found.inputs[0].preprocessing["std"] == [0.2, 0.3, 0.4]
    assert found.output_name == "embedding"
    nothing, asked = answered(network(tmp_path / "n.onnx", ("n", 5)), {})
    assert (asked, nothing.output_name) == ([], "logits")


def test_class_names_come_from_a_file_or_a_list(tmp_path: Path) -> None:
    lines, listed = tmp_path / "names.txt", tmp_path / "names.json"
    lines.write_text("cat\ndog, small\n\n")
    listed.write_text('["cat", "dog, small"]')
    assert class_names(str(lines)) == class_names(str(listed)) == ("cat", "dog, small")
    assert class_names("cat, dog") == ("cat", "dog")
    listed.write_text('{"cat": 1}')
    with pytest.raises(CannotRegister, match="must hold a JSON list of texts"):
        class_names(str(listed))
    with pytest.raises(CannotRegister, match="must be a text file or a comma-separated list"):
        class_names(str(tmp_path / "none.txt"))
