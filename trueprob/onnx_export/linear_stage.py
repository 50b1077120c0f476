"""The linear stage y = W x + b as ONNX nodes, in float64 as in `calibrators.linear_stage`.

At logits of a thousand nats float32 would leave y uncertain by 1e-4 nats and more, which changes
probabilities in the fourth digit and the prediction of near-ties. What is left is the order in
which the product's terms are added: y itself, rounded to float32, may differ by its last bit.
"""

from __future__ import annotations

import numpy as np

from trueprob.calibrators.linear.stage import LARGEST, LinearStage
from trueprob.onnx_export.nodes import DOUBLE, FLOAT, Nodes

__all__ = ["add_linear_stage"]


def add_linear_stage(nodes: Nodes, logits: str, stage: LinearStage) -> str:
    """From the logits to y, both float32 of shape (n, k)."""

    def constant(values: float | list[float]) -> str:
        return nodes.constant(values, np.float64)

    k = len(stage.bias)
    largest = nodes.add("Cast", nodes.row_max(logits), to=DOUBLE)
    shifted = nodes.add("Sub", nodes.add("Cast", logits, to=DOUBLE), largest)
    last = nodes.constant([-1], np.int64)
    total = nodes.add("ReduceSum", shifted, last, keepdims=1)
    centred = nodes.add("Sub", shifted, nodes.add("Div", total, constant(float(k))))
    weights = np.array(stage.weights)
    if weights.size == k:
        product = nodes.add("Mul", centred, nodes.constant(weights, np.float64))
    else:
        matrix = nodes.constant(weights.reshape(k, k).T, np.float64)
        product = nodes.add("MatMul", centred, matrix)
    output = nodes.add("Add", product, constant(list(stage.bias)))
    kept = nodes.add("Clip", output, constant(-LARGEST), constant(LARGEST))
    return nodes.add("Cast", kept, to=FLOAT)
