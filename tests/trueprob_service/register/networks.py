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


def two_inputs(path: Path) -> Path:
    """A network that adds two inputs."""
    nodes = [helper.make_node("Add", ["a", "b"], ["logits"])]
    rows = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in ("a", "b")]
    given = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "sum", rows, [given])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, path)
    return path
