"""Appends nodes to an ONNX graph, one at a time, under names that begin with ``trueprob_``.

Appending to a copy of the network's own graph, instead of merging two, keeps opset, ir_version,
batch dimension, functions and initialisers as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from trueprob.errors import InvalidInput

__all__ = ["BOOL", "DOUBLE", "FLOAT", "INT64", "TOO_LARGE", "Nodes"]

FLOAT, INT64, BOOL, DOUBLE = 1, 7, 9, 11  # onnx.TensorProto's numbers
REDUCE_MAX_BY_INPUT = 18  # from this opset on, the axes of ReduceMax are an input
LARGEST_FILE = 1 << 31  # bytes of one protobuf message
TOO_LARGE = "model must fit into one file of 2 GiB"
BLOCK = 32  # terms of a sum that are added one after another


@dataclass
class Nodes:
    """Appends nodes and constants to a graph."""

    graph: Any
    opset: int  # of the default domain, at least 13
    _count: int = field(default=0, init=False)

    def constant(self, values: ArrayLike, dtype: DTypeLike = np.float32) -> str:
        """Add a constant and return its name; InvalidInput if no file could hold it."""
        from onnx import numpy_helper

        name = self._name("constant")
        array = np.asarray(values, dtype=dtype)
        if array.nbytes >= LARGEST_FILE:
            raise InvalidInput(TOO_LARGE, field="model")
        self.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def add(
        self, operator: str, *inputs: str, output: str | None = None, **attributes: int | list[int]
    ) -> str:
        """Append a node with one output and return the output's name."""
        return self.add_several(operator, inputs, [output or self._name(operator)], **attributes)[0]

    def add_several(
        self, operator: str, inputs: tuple[str, ...], outputs: list[str], **attributes: Any
    ) -> list[str]:
        """Append a node with several outputs and return their names."""
        from onnx import helper

        name = self._name(f"node_{operator}")
        self.graph.node.append(
            helper.make_node(operator, list(inputs), outputs, name=name, **attributes)
        )
        return outputs

    def row_sum(self, values: str, *, length: int = 1) -> str:
        """Sum over the last axis, which is kept with length 1.

        Long rows are summed in blocks first: runtimes add float32 one after another, and a
        thousand terms would lose the seventh digit.
        """
        last = self.constant([-1], np.int64)
        if length > BLOCK:
            missing = -length % BLOCK
            if missing:
                ends = self.constant([0, 0, 0, missing], np.int64)
                values = self.add("Pad", values, ends)
            # 0 keeps the number of rows, −1 stands for the number of blocks.
            values = self.add("Reshape", values, self.constant([0, -1, BLOCK], np.int64))
            values = self.add("ReduceSum", values, last, keepdims=0)
        return self.add("ReduceSum", values, last, keepdims=1)

    def row_max(self, values: str) -> str:
        """Maximum over the last axis, which is kept with length 1."""
        if self.opset < REDUCE_MAX_BY_INPUT:
            return self.add("ReduceMax", values, axes=[-1], keepdims=1)
        return self.add("ReduceMax", values, self.constant([-1], np.int64), keepdims=1)

    def two_largest(self, values: str) -> tuple[str, str]:
        """The largest and the second largest value of each row, each of shape (n, 1)."""
        largest = self._name("largest")
        two = self.constant([2], np.int64)
        self.add_several("TopK", (values, two), [largest, self._name("places")], axis=-1)
        first, second = (
            self.add("Gather", largest, self.constant([place], np.int64), axis=1)
            for place in (0, 1)
        )
        return first, second

    def _name(self, what: str) -> str:
        self._count += 1
        return f"trueprob_{what}_{self._count}"
