"""A piecewise linear function of one number per row, as ONNX nodes.

    f(x) = value_j + slope_j·(x − anchor_j)     on segment j

value_j is computed in float64 at export: float32 then adds one rounding error instead of a sum of
terms that cancel. No matrix product is used: GPUs may round its factors to ten bits (TF32).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.onnx_export.nodes import INT64, Nodes

__all__ = ["LARGEST", "Array", "PiecewiseLinear", "not_above"]

Array = NDArray[np.float64]
LARGEST: Final = np.finfo(np.float32).max


@dataclass(frozen=True)
class PiecewiseLinear:
    """value_j + slope_j·(x − anchor_j), j being the number of edges below x."""

    edges: Array  # increasing; a point on an edge belongs to the segment below
    anchors: Array
    values: Array
    slopes: Array
    double: bool = False  # x and the result are float64 rather than float32

    def add_to(self, nodes: Nodes, x: str) -> str:
        """Add the function of x, a value of shape (n, 1), and return the result's name."""
        if not self.edges.size:
            segment = nodes.constant([[0]], np.int64)
        else:
            # An x of float32 is above an edge of float64 exactly when it is above the largest
            # float32 that is not above that edge.
            edges = self.edges if self.double else not_above(self.edges)
            passed = nodes.add("Greater", x, nodes.constant(edges[None, :], self._dtype))
            counted = nodes.add("Cast", passed, to=INT64)
            segment = nodes.row_sum(counted)
        # x − anchor in two steps: the first is exact near the anchor, the second adds the bits
        # of the anchor that float32 lacks.
        high: NDArray[Any] = self.anchors.astype(self._dtype)
        low: NDArray[Any] = (self.anchors - high).astype(self._dtype)
        distance = x
        for part in (high, low):
            if part.any():
                distance = nodes.add("Sub", distance, self._at(nodes, part, segment))
        rise = nodes.add("Mul", self._at(nodes, self.slopes, segment), distance)
        return nodes.add("Add", self._at(nodes, self.values, segment), rise)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64 if self.double else np.float32)

    def _at(self, nodes: Nodes, table: NDArray[Any], segment: str) -> str:
        return nodes.add("Gather", nodes.constant(table, self._dtype), segment)


def not_above(values: Array) -> NDArray[np.float32]:
    """The largest float32 that is not above each value."""
    rounded = np.minimum(values, LARGEST).astype(np.float32)
    lower = np.nextafter(rounded, np.float32(-np.inf))
    result: NDArray[np.float32] = np.where(rounded.astype(np.float64) > values, lower, rounded)
    return result
