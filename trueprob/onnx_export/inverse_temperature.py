"""The inverse temperature 1/h of each row, as ONNX nodes; one function for each kind.

Both methods with a temperature from the logit gap g use a piecewise linear function: s(g) = g/h(g)
in `smart`, and the input of the softplus in `smart-mlp`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from trueprob.calibrators import (
    Calibrator,
    IdentityCalibrator,
    SmartCalibrator,
    SmartMlpCalibrator,
    TemperatureCalibrator,
)
from trueprob.calibrators.published_smart.network import H_FLOOR, before_softplus, kinks
from trueprob.onnx_export.nodes import Nodes
from trueprob.onnx_export.piecewise_linear import LARGEST, PiecewiseLinear, not_above

__all__ = ["INVERSE_TEMPERATURES"]


def _identity(nodes: Nodes, logits: str, calibrator: Calibrator) -> str:
    del logits, calibrator
    return nodes.constant([[1.0]])


def _temperature(nodes: Nodes, logits: str, calibrator: Calibrator) -> str:
    del logits
    return nodes.constant([[np.clip(1.0 / calibrator.parameters()["temperature"], 1e-30, 1e30)]])


def _smart(nodes: Nodes, logits: str, calibrator: Calibrator) -> str:
    parameters = calibrator.parameters()
    edges = np.array(parameters["edges"], dtype=np.float64)
    slopes = np.exp(np.array(parameters["log_slopes"], dtype=np.float64))
    anchors = np.concatenate([[0.0], edges])
    values = np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(anchors))])
    # Below the first edge 1/h is constant, so smaller gaps are replaced by that edge. Then neither
    # a tiny gap nor a large slope leaves the range of float32.
    smallest = not_above(edges[:1]) if edges.size else np.ones(1)
    gap = nodes.add("Max", _gap(nodes, logits), nodes.constant(smallest[None, :]))
    scaled = PiecewiseLinear(edges, anchors, values, slopes).add_to(nodes, gap)
    return nodes.add("Div", scaled, gap)


def _smart_mlp(nodes: Nodes, logits: str, calibrator: Calibrator) -> str:
    p = calibrator.parameters()
    layers = (p["hidden_weights"], p["hidden_biases"], p["output_weights"], [p["output_bias"]])
    weights = np.concatenate(layers)
    low, high = float(p["gap_low"]), float(p["gap_high"])
    mean, deviation = float(p["gap_mean"]), float(p["gap_sd"])
    bends = mean + deviation * kinks((low - mean) / deviation, (high - mean) / deviation, weights)
    # Outside [low, high] the function is constant.
    edges = np.unique(np.concatenate([[low, high], bends[(bends > low) & (bends < high)]]))
    anchors = np.concatenate([edges[:1], edges])
    values, _ = before_softplus((anchors - mean) / deviation, weights)
    slopes = np.zeros_like(anchors)
    slopes[1:-1] = np.diff(values[1:]) / np.diff(edges)
    line = PiecewiseLinear(edges, anchors, values, slopes).add_to(nodes, _gap(nodes, logits))
    temperature = nodes.add("Add", nodes.add("Softplus", line), nodes.constant([[H_FLOOR]]))
    return nodes.add("Reciprocal", temperature)


def _gap(nodes: Nodes, logits: str) -> str:
    first, second = nodes.two_largest(logits)
    return nodes.add("Min", nodes.add("Sub", first, second), nodes.constant(LARGEST))


INVERSE_TEMPERATURES: Final[Mapping[str, Callable[[Nodes, str, Calibrator], str]]] = (
    MappingProxyType(
        {
            IdentityCalibrator.kind: _identity,
            SmartCalibrator.kind: _smart,
            SmartMlpCalibrator.kind: _smart_mlp,
            TemperatureCalibrator.kind: _temperature,
        }
    )
)
