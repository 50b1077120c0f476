"""The isotonic map of the confidence as ONNX nodes, as `calibrators.isotonic` computes it.

Between two knots the map may rise from one block to the next within 1e-9 nats, so the logit of
the confidence is computed and rounded in float64 as it was in the fit; the rest is float32.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from trueprob.calibrators import IsotonicCalibrator
from trueprob.calibrators.isotonic import DIGITS, FARTHEST, SMALLEST
from trueprob.onnx_export.confidence import TopAndOthers, put_confidence, top_and_others
from trueprob.onnx_export.nodes import DOUBLE, FLOAT, Nodes
from trueprob.onnx_export.piecewise_linear import PiecewiseLinear

__all__ = ["add_isotonic"]

FAR_BELOW = -1e300  # added to a difference of logits, its exp is 0


def add_isotonic(
    nodes: Nodes,
    logits: str,  # of shape (n, k), float32
    probabilities: str,  # their softmax
    prediction: str,  # of shape (n,), int64
    calibrator: IsotonicCalibrator,
    *,
    output: str,  # name of the result
) -> None:
    """From the softmax to the probabilities whose confidence is mapped."""
    k = calibrator.n_classes
    parts = top_and_others(nodes, probabilities, prediction, n_classes=k)
    wanted = nodes.add("Cast", _others(nodes, logits, parts, calibrator), to=FLOAT)
    # Rows so sure that float32 has nothing left for the others share it evenly.
    sure = nodes.add("Less", parts.rest, nodes.constant([[SMALLEST * k]]))
    others = nodes.add("Where", sure, parts.is_other, parts.others)
    rest = nodes.add("Where", sure, nodes.constant([[k - 1.0]]), parts.rest)
    put_confidence(nodes, replace(parts, others=others, rest=rest), wanted, output=output)


def _others(nodes: Nodes, logits: str, parts: TopAndOthers, calibrator: IsotonicCalibrator) -> str:
    """1 − c′ in float64, of shape (n, 1)."""

    def constant(value: float) -> str:
        return nodes.constant([[value]], np.float64)

    largest = nodes.add("Cast", nodes.row_max(logits), to=DOUBLE)
    differences = nodes.add("Sub", nodes.add("Cast", logits, to=DOUBLE), largest)
    far = nodes.add("Mul", nodes.add("Cast", parts.is_top, to=DOUBLE), constant(FAR_BELOW))
    differences = nodes.add("Add", differences, far)
    second = nodes.row_max(differences)
    powers = nodes.add("Exp", nodes.add("Sub", differences, second))
    total = nodes.add("ReduceSum", powers, nodes.constant([-1], np.int64), keepdims=1)
    logit = nodes.add("Neg", nodes.add("Add", second, nodes.add("Log", total)))
    low, high = (nodes.constant(end, np.float64) for end in (-FARTHEST, FARTHEST))
    logit = nodes.add("Clip", logit, low, high)
    grid = constant(10.0**DIGITS)
    logit = nodes.add("Div", nodes.add("Round", nodes.add("Mul", logit, grid)), grid)

    knots, confidences = np.array(calibrator.knots), np.array(calibrator.confidences)
    slopes = np.diff(confidences) / np.diff(knots)
    line = PiecewiseLinear(
        knots,
        anchors=np.concatenate([knots[:1], knots]),
        values=np.concatenate([confidences[:1], confidences]),
        slopes=np.concatenate([[0.0], slopes, [0.0]]),
        double=True,
    )
    return nodes.add("Sub", constant(1.0), line.add_to(nodes, logit))
