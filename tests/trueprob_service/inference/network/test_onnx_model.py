from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from trueprob.repository.model_repository import ModelRepository
from trueprob_service.errors import InferenceFailed, ModelUnavailable
from trueprob_service.inference.network.onnx_model import OnnxModel
from trueprob_service.inference.network.tensors import TensorSpec

ROOT = Path(__file__).parents[4]


def flatten_network(path: Path, rows: int | str = "batch") -> Path:
    """A graph whose logits are an image's four pixels as numbers."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "flatten",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [rows, 2, 2, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def load(path: Path, **changed: object) -> OnnxModel:
    arguments: dict = {
        "inputs": [TensorSpec("image", "uint8", (2, 2, 1))],
        "output_name": "logits",
        "n_classes": 4,
        "threads": 1,
        **changed,
    }
    return OnnxModel(path, **arguments)


def images(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, 2, 2, 1), np.uint8)


@pytest.mark.parametrize("n", [1, 3, 64])
def test_logits_come_out_row_by_row(tmp_path: Path, n: int) -> None:
    batch = images(n)
    logits = load(flatten_network(tmp_path / "model.onnx")).run(batch)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, batch.reshape(n, 4))


@pytest.mark.parametrize("n", [1, 3, 4, 9])
def test_a_network_of_fixed_batch_size_takes_any_number_of_rows(tmp_path: Path, n: int) -> None:
    model = load(flatten_network(tmp_path / "model.onnx", rows=3))
    assert model.fixed_rows == 3
    batch = images(n)
    np.testing.assert_array_equal(model.run(batch), batch.reshape(n, 4))


def test_the_provider_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    path = flatten_network(tmp_path / "model.onnx")
    assert load(path).provider == "CPUExecutionProvider"


def test_a_provider_that_is_not_there_is_refused_rather_than_replaced(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(ModelUnavailable, match="asks for CUDAExecutionProvider, which"):
        load(flatten_network(tmp_path / "model.onnx"), providers=("cuda", "cpu"))


def test_what_does_not_fit_the_manifest_is_refused_at_start(tmp_path: Path) -> None:
    path = flatten_network(tmp_path / "model.onnx")
    with pytest.raises(ModelUnavailable, match="has no input 'picture', it has"):
        load(path, inputs=[TensorSpec("picture", "uint8", (2, 2, 1))])
    with pytest.raises(ModelUnavailable, match="has no output 'scores', it has"):
        load(path, output_name="scores")
    with pytest.raises(InferenceFailed, match=r"gave \(1, 4\), expected \(1, 5\)"):
        load(path, n_classes=5)
    with pytest.raises(InferenceFailed, match="onnxruntime: "):
        load(path, inputs=[TensorSpec("image", "uint8", (2, 3, 1))])


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not protobuf")
    with pytest.raises(ModelUnavailable, match=r"model\.onnx cannot be loaded"):
        load(path)


def test_the_demo_network_gives_finite_logits_for_any_picture() -> None:
    version = ModelRepository(ROOT / "models").get("digits", 1)
    assert version.onnx_path is not None
    model = load(version.onnx_path, inputs=[TensorSpec("image", "uint8", (8, 8, 1))], n_classes=10)
    extremes = np.stack([np.zeros((8, 8, 1)), np.full((8, 8, 1), 255)]).astype(np.uint8)
    assert np.isfinite(model.run(extremes)).all()


def test_auto_takes_what_there_is(tmp_path: Path) -> None:
    model = load(flatten_network(tmp_path / "model.onnx"), providers=("auto",))
    assert model.provider.endswith("ExecutionProvider")


def test_probabilities_come_out_as_logarithms(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    softmax_network(path)
    batch = images(5)
    log_probabilities = load(path, output_kind="probabilities").run(batch)
    shifted = batch.reshape(5, 4) / 16 - (batch.reshape(5, 4) / 16).max(axis=1, keepdims=True)
    expected = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(log_probabilities, np.maximum(expected, np.log(1e-12)), atol=1e-4)
    with pytest.raises(InferenceFailed, match="logits must sum to 1"):
        load(flatten_network(path), output_kind="probabilities").run(batch)


def softmax_network(path: Path) -> Path:
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["pixels"], ["flat"]),
        helper.make_node("Constant", [], ["sixteen"], value_float=16.0),
        helper.make_node("Div", ["flat", "sixteen"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "softmax",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 2, 2, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def test_a_logit_beyond_float32_is_an_error_and_no_mask(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    nodes = [
        helper.make_node("Cast", ["image"], ["numbers"], to=TensorProto.DOUBLE),
        helper.make_node("Flatten", ["numbers"], ["flat"]),
        helper.make_node("Mul", ["flat", "factor"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 2, 2, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.DOUBLE, ["batch", 4])],
        [helper.make_tensor("factor", TensorProto.DOUBLE, [1], [-1e38])],
    )
    imports = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    model = load(path)
    small, large = np.zeros((1, 2, 2, 1), np.uint8), np.full((1, 2, 2, 1), 9, np.uint8)
    assert model.run(small).tolist() == [[0.0] * 4]
    with pytest.raises(InferenceFailed, match="9e\\+38, which float32 cannot hold"):
        model.run(large)
