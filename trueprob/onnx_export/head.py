"""From the logits to probabilities, prediction and temperature, as ONNX nodes.

The arithmetic is that of `logit_functions.tempered_softmax`: the row's maximum is subtracted before
anything is scaled, so p[prediction] == max(p) exactly.
"""

from __future__ import annotations

import numpy as np

from trueprob.calibrators import Calibrator, IsotonicCalibrator
from trueprob.onnx_export.inverse_temperature import INVERSE_TEMPERATURES
from trueprob.onnx_export.isotonic import add_isotonic
from trueprob.onnx_export.linear_stage import add_linear_stage
from trueprob.onnx_export.nodes import Nodes
from trueprob.onnx_export.second_stage import add_second_stage
from trueprob.onnx_export.stages import Parts, parts_of

__all__ = ["add_answers"]


def add_answers(nodes: Nodes, logits: str, calibrator: Calibrator) -> None:
    """Values named `probabilities`, `prediction` and `temperature`.

    Raises `InvalidInput`: a calibrator that cannot be expressed.
    """
    parts, k = parts_of(calibrator), calibrator.n_classes
    if parts.linear is not None:
        logits = add_linear_stage(nodes, logits, parts.linear)
    nodes.add("ArgMax", logits, axis=1, keepdims=0, output="prediction")
    beta = INVERSE_TEMPERATURES[parts.gap_stage.kind](nodes, logits, parts.gap_stage)
    # Kept well inside float32, as in tempered_softmax: 0 · −inf would be NaN.
    beta = nodes.add("Clip", beta, nodes.constant(1e-30), nodes.constant(1e30))
    second = parts.second
    if second is None:
        _softmax(nodes, logits, beta, parts, k, output="probabilities")
    else:
        first = _softmax(nodes, logits, beta, parts, k)
        if isinstance(second, IsotonicCalibrator):
            add_isotonic(nodes, logits, first, "prediction", second, output="probabilities")
        else:
            add_second_stage(
                nodes, first, "prediction", second, n_classes=k, output="probabilities"
            )
    if parts.has_temperature:
        last = nodes.constant([-1], np.int64)
        temperature = nodes.add("Squeeze", nodes.add("Reciprocal", beta), last)
    else:
        temperature = nodes.constant([np.nan])
    # A constant temperature is repeated for each row.
    nodes.add("Expand", temperature, nodes.add("Shape", "prediction"), output="temperature")


def _softmax(
    nodes: Nodes, logits: str, beta: str, parts: Parts, k: int, *, output: str | None = None
) -> str:
    """(1 − w)·softmax(β z) + w/k."""
    weight = parts.uniform_weight
    shifted = nodes.add("Sub", logits, nodes.row_max(logits))
    powers = nodes.add("Exp", nodes.add("Mul", shifted, beta))
    share = nodes.add("Div", nodes.constant([[1.0 - weight]]), nodes.row_sum(powers, length=k))
    if not weight:
        return nodes.add("Mul", powers, share, output=output)
    softmax = nodes.add("Mul", powers, share)
    return nodes.add("Add", softmax, nodes.constant(weight / k), output=output)
