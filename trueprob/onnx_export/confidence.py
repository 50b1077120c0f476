"""Putting a confidence in the place of another one, as ONNX nodes; the prediction stays.

The arithmetic is that of `calibrators.confidence.put_confidence`, in float32: the other classes
are summed by themselves, because 1 − c has no digits left when c is near 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trueprob.onnx_export.nodes import Nodes

__all__ = ["TopAndOthers", "put_confidence", "top_and_others"]


@dataclass(frozen=True)
class TopAndOthers:
    """Probabilities, taken apart; names of float32 values."""

    is_top: str  # of shape (n, k): 1 at the prediction and 0 elsewhere, and the reverse
    is_other: str  # of shape (n, k): 1 at the prediction and 0 elsewhere, and the reverse
    others: str  # of shape (n, k): the probabilities, 0 at the prediction
    rest: str  # of shape (n, 1): the sum of the others


def top_and_others(
    nodes: Nodes, probabilities: str, prediction: str, *, n_classes: int
) -> TopAndOthers:
    """Take probabilities of shape (n, k) apart at a prediction of shape (n,), int64."""
    depth = nodes.constant(n_classes, np.int64)
    is_top = nodes.add("OneHot", prediction, depth, nodes.constant([0.0, 1.0]), axis=-1)
    is_other = nodes.add("Sub", nodes.constant(1.0), is_top)
    others = nodes.add("Mul", probabilities, is_other)
    return TopAndOthers(is_top, is_other, others, nodes.row_sum(others, length=n_classes))


def put_confidence(nodes: Nodes, parts: TopAndOthers, wanted: str, *, output: str) -> None:
    """Give the prediction 1 − wanted, or what keeps it the prediction, and rescale the others."""
    one, rest = nodes.constant(1.0), parts.rest
    runner_up = nodes.row_max(parts.others)
    share = nodes.add("Div", runner_up, rest)
    most = nodes.add("Reciprocal", nodes.add("Add", one, share))
    remaining = nodes.add("Min", wanted, most)
    scale = nodes.add("Div", remaining, rest)
    # Rounding may leave the runner-up a bit above; the prediction is never below it.
    top = nodes.add("Max", nodes.add("Sub", one, remaining), nodes.add("Mul", runner_up, scale))
    placed = nodes.add("Mul", parts.is_top, top)
    nodes.add("Add", nodes.add("Mul", parts.others, scale), placed, output=output)
