"""``trueprob-service register`` from the file to an answer of the running service."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

from tests.trueprob_service.application import ROOT, application
from tests.trueprob_service.inspections import shared_inspector
from tests.trueprob_service.register.networks import network, weights
from trueprob.arrays.calibration_set import load_calibration_set
from trueprob.fitting.methods import fit_rows
from trueprob.repository.model_repository import ModelRepository
from trueprob_service.__main__ import main as service_main
from trueprob_service.register.command import main

pytestmark = pytest.mark.slow


def register(folder: Path, path: Path, *flags: str) -> int:
    environ = {"TRUEPROB_MODEL_REPOSITORY": str(folder / "models")}
    return main([str(path), *flags], environ, inspector=shared_inspector())


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, "PNG")
    return stream.getvalue()


def ask_service(folder: Path, picture: bytes, model: str = "mine") -> dict[str, Any]:
    """The answer of a service that was started on the repository."""

    async def scenario() -> dict[str, Any]:
        models = folder / "models"
        async with application(folder / "state", model_repository=models) as client:
            kind = {"content-type": "image/png"}
            answer = await client.post(
                f"/v1/models/{model}/probabilities", content=picture, headers=kind
            )
            assert answer.status_code == 200, answer.text
            return answer.json()

    return asyncio.run(scenario())


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


IMAGE = np.random.default_rng(3).integers(0, 256, (4, 2, 3), np.uint8)


@pytest.mark.parametrize("rows", ["n", 4])
@pytest.mark.parametrize("output", ["logits", "probabilities"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC uint8"])
def test_what_is_registered_is_served(
    tmp_path: Path, capsys: Any, rows: int | str, output: str, layout: str
) -> None:
    if layout == "NCHW":
        path = network(tmp_path / "m.onnx", (rows, 3, 4, 2), outputs=(output,))
        flags = ("--mean", "0.5,0.4,0.3", "--std", "0.2")
        x = ((IMAGE / 255 - [0.5, 0.4, 0.3]) / 0.2).transpose(2, 0, 1)
        expected = softmax(x.reshape(-1) @ weights(24, 3))
    else:
        path = network(
            tmp_path / "m.onnx", (rows, 4, 2, 3), dtype="uint8", outputs=(output,), weight=0.01
        )
        flags = ()
        expected = softmax(IMAGE.reshape(-1).astype(float) @ (0.01 * weights(24, 3)))
    assert register(tmp_path, path, "--name", "mine", "--class-names", "a,b,c", *flags) == 0
    assert "none: the probabilities are the network's own" in capsys.readouterr().out
    version = ModelRepository(tmp_path / "models").get("mine", 1)
    version.verify()
    assert version.manifest.output_kind == output
    assert "the probabilities are the network's own" in (version.path / "MODEL_CARD.md").read_text()
    answer = ask_service(tmp_path, png(IMAGE))
    np.testing.assert_allclose(answer["probabilities"][0], expected, atol=1e-5)
    assert answer["class"] == ["abc"[int(np.argmax(expected))]]


def calibration(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def labelled(n: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures, the logits of the network of pixels for them, and labels drawn from half of those.

    The network is twice as sure as it may be."""
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (n, 4, 2, 1), np.uint8)
    logits = images.reshape(n, -1).astype(np.float64) @ (0.02 * weights(8, 3))
    labels = np.argmax(logits / 2 + rng.gumbel(size=logits.shape), axis=1)
    return images, logits.astype(np.float32), labels


@pytest.mark.parametrize("given", ["images", "logits"])
def test_a_calibration_set_gives_a_calibrator_a_baseline_and_scores(
    tmp_path: Path, capsys: Any, given: str
) -> None:
    images, logits, labels = labelled()
    rows = {"images": images} if given == "images" else {"logits": logits}
    path = network(tmp_path / "m.onnx", ("n", 4, 2, 1), dtype="uint8", weight=0.02)
    held_out = calibration(tmp_path / "val.npz", labels=labels, **rows)
    assert register(
        tmp_path, path, "--name", "mine", "--calibration", str(held_out), "--json"
    ) == 0  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert document["scores"]["before"]["nll"] > document["scores"]["after"]["nll"] + 0.05
    version = ModelRepository(tmp_path / "models").get("mine", 1)
    version.verify()
    baseline = version.baseline()
    assert baseline is not None
    assert baseline.n == 300
    temperature = version.calibrator().temperature(logits)
    assert temperature is not None
    assert 1.5 < float(np.median(temperature)) < 2.7
    scores = version.manifest.scores["calibration"]
    assert scores["n"] == 300
    assert scores["calibrated"]["nll"] == document["scores"]["after"]["nll"]
    assert document["calibrator"] in (version.path / "MODEL_CARD.md").read_text()
    assert ask_service(tmp_path, png(images[0]))["calibrator"] == document["calibrator"]


def test_accuracy_near_chance_is_a_warning(tmp_path: Path, capsys: Any) -> None:
    images, _, labels = labelled()
    path = network(tmp_path / "m.onnx", ("n", 4, 2, 1), dtype="uint8", weight=-0.02)
    held_out = calibration(tmp_path / "val.npz", labels=labels, images=images)
    flags = ("--name", "mine", "--calibration", str(held_out))
    assert register(tmp_path, path, *flags) == 1
    shown = capsys.readouterr().err
    assert "trueprob-service: hold: " in shown
    assert "is near chance: check layout, mean" in shown
    assert register(tmp_path, path, *flags, "--force") == 0
    assert "is near chance" in capsys.readouterr().err


def test_settings_of_a_service_on_postgresql_need_no_receipt_secret(tmp_path: Path) -> None:
    path = network(tmp_path / "m.onnx", ("n", 5))
    environ = {
        "TRUEPROB_MODEL_REPOSITORY": str(tmp_path / "models"),
        "TRUEPROB_DATABASE_URL": "postgresql://trueprob@nowhere/trueprob",
    }
    assert main([str(path), "--name", "mine"], environ, inspector=shared_inspector()) == 0
    assert [file.name for file in (tmp_path / "models").iterdir()] == ["mine"]


def test_versions_count_on_and_are_never_written_over(tmp_path: Path, capsys: Any) -> None:
    path = network(tmp_path / "m.onnx", ("n", 5))
    for _ in range(2):
        assert register(tmp_path, path, "--name", "mine") == 0
    assert register(tmp_path, path, "--name", "mine", "--version", "7") == 0
    assert ModelRepository(tmp_path / "models").versions("mine") == [1, 2, 7]
    capsys.readouterr()
    assert register(tmp_path, path, "--name", "mine", "--version", "2") == 2
    assert "mine/2 exists, and versions never change" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--name", "../mine"], "--name must be 1 to 100 letters"),
        (["--name", "mine", "--version", "0"], "--version must be a positive integer"),
        (["--name", "mine", "--class-names", "a,b"], "--class-names has 2 names"),
        (["--name", "mine", "--class-names", "a,b,a"], "class_names must be 3 distinct"),
        (["--name", "mine", "--calibration", "none.npz"], "none.npz"),
        (["--name", "mine", "--method", "magic"], "--method: invalid choice"),
        ([], "required: --name"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: Any, flags: list[str], words: str
) -> None:
    path = network(tmp_path / "m.onnx", ("n", 5))
    assert register(tmp_path, path, *flags) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("trueprob-service: error: ")
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "models").exists()


def test_files_that_are_no_networks(tmp_path: Path, capsys: Any) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    assert register(tmp_path, broken, "--name", "mine") == 2
    assert register(tmp_path, tmp_path / "none.onnx", "--name", "mine") == 2
    lines = capsys.readouterr().err.splitlines()
    assert "model.onnx cannot be loaded" in lines[0]
    assert "none.onnx: No such file" in lines[1]


def converted(path: Path, labels: list[Any]) -> Path:
    """A linear classifier with a label output, as converters of scikit-learn write it."""
    texts = isinstance(labels[0], str)
    attribute = {"classlabels_strings" if texts else "classlabels_ints": labels}
    nodes = [
        helper.make_node("LinearClassifier", ["x"], ["label", "raw"], domain="ai.onnx.ml",
                         coefficients=list(map(float, range(12))), intercepts=[0.0] * 3,
                         **attribute),
        helper.make_node("Softmax", ["raw"], ["probabilities"]),
    ]  # fmt: skip
    kind = TensorProto.STRING if texts else TensorProto.INT64
    outputs = [
        helper.make_tensor_value_info("label", kind, ["n"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3]),
    ]
    rows = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])]
    graph = helper.make_graph(nodes, "linear", rows, outputs)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("labels", "flags", "expected"),
    [
        (["no", "maybe", "yes"], (), ("no", "maybe", "yes")),
        ([30, 10, 2], (), ("30", "10", "2")),
        ([0, 1, 2], ("--class-names", "no,maybe,yes"), ("no", "maybe", "yes")),
        (["no", "maybe", "yes"], ("--class-names", "no,maybe,yes"), ("no", "maybe", "yes")),
    ],
)
def test_the_classes_of_the_graph_are_kept(
    tmp_path: Path, labels: list[Any], flags: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    path = converted(tmp_path / "m.onnx", labels)
    logits = np.random.default_rng(0).normal(size=(300, 3))
    order = [2, 0, 1]  # the set has its columns in another order than the graph
    names = np.array(expected)
    held_out = calibration(
        tmp_path / "val.npz",
        logits=logits[:, order],
        labels=names[logits.argmax(axis=1)],
        class_names=names[order],
    )
    flags = (*flags, "--calibration", str(held_out), "--method", "vector")
    assert register(tmp_path, path, "--name", "mine", *flags) == 0
    version = ModelRepository(tmp_path / "models").get("mine", 1)
    assert version.manifest.class_names == version.calibrator().class_names == expected
    np.savez(tmp_path / "straight.npz", logits=logits, labels=logits.argmax(axis=1))
    straight = load_calibration_set(tmp_path / "straight.npz")
    assert version.calibrator().parameters() == fit_rows("vector", straight).calibrator.parameters()


@pytest.mark.parametrize(
    ("labels", "given", "words"),
    [
        (["a", "b", "c"], "b,a,c", "must be b, a, c, got a, b, c: the same classes"),
        (["a", "b", "c"], "a,b,d", "must be a, b, d, got a, b, c (missing: d; not expected: c)"),
        ([1, 2, 3], "a,b,c", "must be a, b, c, got 1, 2, 3"),
    ],
)
def test_class_names_that_contradict_the_graph_are_refused(
    tmp_path: Path, capsys: Any, labels: list[Any], given: str, words: str
) -> None:
    path = converted(tmp_path / "m.onnx", labels)
    assert register(tmp_path, path, "--name", "mine", "--class-names", given) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": np.zeros((60, 4, 3, 1), np.uint8)}, "images must be"),
        ({"logits": np.zeros((60, 2))}, "logits must have shape"),
        ({"images": np.zeros((60, 4, 2, 1), np.uint8), "logits": np.zeros((60, 3))}, "together"),
        (
            {"images": np.zeros((60, 4, 2, 1), np.uint8), "class_names": ["a", "b", "c"]},
            "leave them out with images",
        ),
    ],
)
def test_calibration_sets_that_cannot_be_used(
    tmp_path: Path, capsys: Any, arrays: dict[str, Any], words: str
) -> None:
    path = network(tmp_path / "m.onnx", ("n", 4, 2, 1), dtype="uint8")
    held_out = calibration(tmp_path / "val.npz", labels=np.arange(60) % 3, **arrays)
    assert register(tmp_path, path, "--name", "mine", "--calibration", str(held_out)) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_a_calibration_set_that_is_held_is_registered_by_force_only(
    tmp_path: Path, capsys: Any
) -> None:
    _, logits, labels = labelled()
    path = network(tmp_path / "m.onnx", ("n", 4, 2, 1), dtype="uint8", weight=0.02)
    wrong = calibration(tmp_path / "val.npz", logits=logits, labels=(labels + 1) % 3)
    flags = ("--name", "mine", "--calibration", str(wrong), "--json")
    assert register(tmp_path, path, *flags) == 1
    captured = capsys.readouterr()
    held, *_, refused = captured.err.splitlines()
    assert held.startswith("trueprob-service: hold: labels look shifted by one: accuracy")
    assert held.endswith("lower each label by one")
    assert refused.startswith("trueprob-service: error: nothing was registered")
    assert "--force registers it anyway" in refused
    assert (captured.out, (tmp_path / "models").exists()) == ("", False)
    assert register(tmp_path, path, *flags, "--force") == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == held
    assert json.loads(captured.out)["findings"][0]["code"] == "class_order"
    assert ModelRepository(tmp_path / "models").versions("mine") == [1]


def test_an_absurd_fit_is_not_registered_either(tmp_path: Path, capsys: Any) -> None:
    """A new model is live at once, with that calibrator."""
    _, logits, _ = labelled()
    path = network(tmp_path / "m.onnx", ("n", 4, 2, 1), dtype="uint8", weight=0.02)
    wrong = calibration(tmp_path / "val.npz", logits=logits, labels=logits.argmin(axis=1))
    flags = ("--name", "mine", "--calibration", str(wrong), "--method", "temperature")
    assert register(tmp_path, path, *flags) == 1
    said = capsys.readouterr().err
    assert "trueprob-service: hold: " in said
    assert "every prediction is called a toss-up" in said.replace("nearly every", "every")
    assert not (tmp_path / "models").exists()


def test_the_demo_network_is_registered_with_one_command(tmp_path: Path, capsys: Any) -> None:
    """As docs/quickstart.md shows it."""
    demo, rows = ROOT / "models/digits/1/model.onnx", ROOT / "examples/digits_calibration.npz"
    flags = ["--name", "mine", "--calibration", str(rows), "--models", str(tmp_path)]
    assert service_main(["register", str(demo), *flags]) == 0
    assert "mine/1: 10 classes" in capsys.readouterr().out
    assert service_main(["registr"]) == 2
    assert "expected serve, register, keys, audit, export-state" in capsys.readouterr().err


def masking_network(path: Path, masks: list[float]) -> Path:
    """A network of rows of four numbers, to which these masks are added."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "masks"], ["logits"])],
        "masking",
        [value("x", TensorProto.FLOAT, ["n", 4])],
        [value("logits", TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(np.float32(masks), "masks")],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_a_network_may_mask_by_minus_infinity(tmp_path: Path, capsys: Any) -> None:
    path = masking_network(tmp_path / "m.onnx", [0, -np.inf, 0, 0])
    assert register(tmp_path, path, "--name", "mine") == 0, capsys.readouterr().err

    async def scenario() -> dict[str, Any]:
        models = tmp_path / "models"
        async with application(tmp_path / "state", model_repository=models) as client:
            tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1.0, 9, 0, 0]}
            answer = await client.post("/v2/models/mine/infer", json={"inputs": [tensor]})
            assert answer.status_code == 200, answer.text
            return answer.json()

    outputs = asyncio.run(scenario())["outputs"]
    (p,) = (output["data"] for output in outputs if output["name"] == "probabilities")
    expected = softmax(np.array([1.0, -np.inf, 0, 0]))
    assert p[1] == 0.0
    assert p == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ([-np.inf] * 4, "masks all classes, by minus infinity, on random rows, such as row 0"),
        ([0, np.nan, 0, 0], "is not finite on random rows, such as row 0"),
        ([0, np.inf, 0, 0], "is not finite on random rows, such as row 0"),
    ],
)
def test_other_outputs_that_are_not_finite_are_refused(
    tmp_path: Path, capsys: Any, masks: list[float], words: str
) -> None:
    path = masking_network(tmp_path / "m.onnx", masks)
    assert register(tmp_path, path, "--name", "mine") == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("with_set", [True, False])
def test_a_registered_threshold_is_the_calibrators(
    tmp_path: Path, capsys: Any, with_set: bool
) -> None:
    path = masking_network(tmp_path / "m.onnx", [0, -1e9, 0, 0])
    flags = ["--name", "mine", "--mask-below", "-1e8"]
    if with_set:
        generator = np.random.default_rng(0)
        logits = generator.normal(size=(300, 4)) * 4
        logits[:, 1] -= 1e9
        labels = (logits / 2 + generator.gumbel(size=(300, 4))).argmax(axis=1)
        np.savez(tmp_path / "cal.npz", logits=logits, labels=labels)
        flags += ["--calibration", str(tmp_path / "cal.npz")]
    assert register(tmp_path, path, *flags) == 0, capsys.readouterr().err
    version = ModelRepository(tmp_path / "models").get("mine", 1)
    calibrator = version.calibrator()
    assert calibrator.masks is not None
    assert calibrator.masks.mask_below == -1e8
    assert (calibrator.predict_proba([[0.0, -1e9, 1, 2]]) == 0).tolist() == [
        [False, True, False, False]
    ]
