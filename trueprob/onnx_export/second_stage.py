"""The second stage of `smart` as ONNX nodes: a map of the confidence, the rest rescaled.

The arithmetic is that of `calibrators.second_stage.SecondStage.apply`, in float32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from trueprob.calibrators.smart.second_stage import SecondStage
from trueprob.onnx_export.confidence import put_confidence, top_and_others
from trueprob.onnx_export.nodes import Nodes
from trueprob.onnx_export.piecewise_linear import PiecewiseLinear

__all__ = ["add_second_stage"]

LARGEST_EXPONENT: Final = 80.0  # exp of it is still float32


def add_second_stage(
    nodes: Nodes,
    probabilities: str,  # of shape (n, k); the prediction has the largest of each row
    prediction: str,  # of shape (n,), int64
    stage: SecondStage,
    *,
    n_classes: int,
    output: str,  # name of the result
) -> None:
    """From the first stage's probabilities to those of both stages."""
    knots, values = np.array(stage.knots), np.array(stage.values)
    slopes = np.diff(values) / np.diff(knots)
    line = PiecewiseLinear(knots[1:-1], knots[:-1], values[:-1], slopes)

    parts = top_and_others(nodes, probabilities, prediction, n_classes=n_classes)
    rest = nodes.add("Max", parts.rest, nodes.constant(np.finfo(np.float32).tiny))
    confidence = nodes.row_max(probabilities)
    logit = nodes.add("Sub", nodes.add("Log", confidence), nodes.add("Log", rest))
    mapped = line.add_to(nodes, logit)
    power = nodes.add("Exp", nodes.add("Min", mapped, nodes.constant(LARGEST_EXPONENT)))
    wanted = nodes.add("Reciprocal", nodes.add("Add", nodes.constant(1.0), power))  # 1 − c′
    put_confidence(nodes, replace(parts, rest=rest), wanted, output=output)
