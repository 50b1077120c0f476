"""Small classifiers in ONNX: a linear map of the flattened input, with known weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

TYPES = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def weights(n_inputs: int, n_classes: int) -> NDArray[np.float32]:
    """Of the map; small for bytes, so that no logit is far from zero."""
    return np.random.default_rng(7).normal(size=(n_inputs, n_classes)).astype(np.float32)


def network(
    path: Path,
    shape: Sequence[Any],
    *,
    dtype: str = "float32",
    n_inputs: int | None = None,
    n_classes: int = 3,
    outputs: Sequence[str] = ("logits",),
    weight: float = 1.0,
) -> Path:
    """Write a network.

    ``outputs`` are among ``logits``, ``probabilities``, ``embedding`` (of as many columns),
    ``sigmoid``, ``labels`` (integers) and ``one`` (a single column).
    """
    size = n_inputs or int(np.prod(list(shape[1:])))
    matrix = numpy_helper.from_array(weight * weights(size, n_classes), "matrix")
    column = numpy_helper.from_array(np.ones((size, 1), np.float32), "column")
    nodes = [
        helper.make_node("Cast", ["x"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["numbers"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["z"]),
        helper.make_node("Identity", ["z"], ["logits"]),
        helper.make_node("Softmax", ["z"], ["probabilities"]),
        helper.make_node("Sin", ["z"], ["embedding"]),
        helper.make_node("Sigmoid", ["z"], ["sigmoid"]),
        helper.make_node("ArgMax", ["z"], ["labels"], axis=1),
        helper.make_node("MatMul", ["flat", "column"], ["one"]),
    ]
    kinds = {"labels": TensorProto.INT64}
    columns = {"labels": 1, "one": 1}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TYPES[dtype], list(shape))],
        [
            helper.make_tensor_value_info(
                name, kinds.get(name, TensorProto.FLOAT), [shape[0], columns.get(name, n_classes)]
            )
            for name in outputs
        ],
        [matrix, column],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: dict[str, tuple[int, Sequence[Any]]],
    outputs: dict[str, tuple[int, Sequence[Any]]],
    constants: dict[str, Any] | None = None,
    opsets: Sequence[tuple[str, int]] = (("", 17),),
) -> Path:
    """Write a graph; inputs and outputs are ONNX types and shapes by name."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(n, kind, shape) for n, (kind, shape) in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()],
    )
    imports = [helper.make_opsetid(*opset) for opset in opsets]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


VOCABULARY, POSITIONS = 10, 32


def token_weights() -> dict[str, NDArray[np.float32]]:
    """Of `token_network`."""
    rng = np.random.default_rng(1)
    shapes = {
        "words": (VOCABULARY, 4), "kinds": (2, 4), "places": (POSITIONS, 4), "head": (4, 3),
    }  # fmt: skip
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def token_network(path: Path, *, kind: int = TensorProto.INT64) -> Path:
    """Mean of the embeddings of words, kinds and places where the mask is 1, then a linear head."""
    node = helper.make_node
    nodes = [
        node("Gather", ["words", "input_ids"], ["w"]),
        node("Gather", ["kinds", "token_type_ids"], ["t"]),
        node("Shape", ["input_ids"], ["shape"]),
        node("Gather", ["shape", "one"], ["length"]),
        node("Range", ["zero", "length", "one"], ["range"]),
        node("Gather", ["places", "range"], ["p"]),
        node("Add", ["w", "t"], ["wt"]),
        node("Add", ["wt", "p"], ["all"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "axis"], ["column"]),
        node("Mul", ["all", "column"], ["kept"]),
        node("ReduceSum", ["kept", "middle"], ["sum"], keepdims=0),
        node("ReduceSum", ["column", "middle"], ["count"], keepdims=0),
        node("Div", ["sum", "count"], ["mean"]),
        node("MatMul", ["mean", "head"], ["logits"]),
    ]
    numbers = {"one": np.int64(1), "zero": np.int64(0), "axis": [2], "middle": [1]}
    shape = (kind, ["batch", "sequence"])
    return save(
        path,
        nodes,
        {"input_ids": shape, "attention_mask": shape, "token_type_ids": shape},
        {"logits": (TensorProto.FLOAT, ["batch", 3])},
        {**token_weights(), **numbers},
    )


def token_logits(ids: NDArray[Any], mask: NDArray[Any], kinds: NDArray[Any]) -> NDArray[np.float64]:
    """What `token_network` gives."""
    w = token_weights()
    embedded = w["words"][ids] + w["kinds"][kinds] + w["places"][: ids.shape[1]]
    weights = mask[..., np.newaxis].astype(np.float64)
    return ((embedded * weights).sum(axis=1) / weights.sum(axis=1)) @ w["head"]


def one_score_network(path: Path, ending: str, *, rank: int = 2, name: str = "score") -> Path:
    """The sum of five numbers as one number per row: ``Sigmoid`` of it, or itself (``MatMul``)."""
    node = helper.make_node
    nodes = [node("MatMul", ["x", "column"], ["z"])]
    last = "z"
    if ending != "MatMul":
        nodes.append(node(ending, ["z"], ["p"]))
        last = "p"
    nodes.append(node("Reshape", [last, "shape"], [name]))
    return save(
        path,
        nodes,
        {"x": (TensorProto.FLOAT, ["batch", 5])},
        {name: (TensorProto.FLOAT, ["batch", 1][:rank])},
        {"column": np.ones((5, 1), np.float32), "shape": np.array([-1, 1][:rank])},
    )
