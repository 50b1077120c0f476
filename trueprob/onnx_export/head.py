"""From the logits to probabilities, prediction and temperature, as ONNX nodes.

The arithmetic is that of `logit_functions.tempered_softmax`: the row's maximum is subtracted before
anything is scaled, so p[prediction] == max(p) exactly.

The linear stage y = W x + b as ONNX nodes, in float64 as in `calibrators.linear_stage`.

At logits of a thousand nats float32 would leave y uncertain by 1e-4 nats and more, which changes
probabilities in the fourth digit and the prediction of near-ties. What is left is the order in
which the product's terms are added: y itself, rounded to float32, may differ by its last bit.

The isotonic map of the confidence as ONNX nodes, as `calibrators.isotonic` computes it.

Between two knots the map may rise from one block to the next within 1e-9 nats, so the logit of
the confidence is computed and rounded in float64 as it was in the fit; the rest is float32.

The second stage of `smart` as ONNX nodes: a map of the confidence, the rest rescaled.

The arithmetic is that of `calibrators.second_stage.SecondStage.apply`, in float32.

Putting a confidence in the place of another one, as ONNX nodes; the prediction stays.

The arithmetic is that of `calibrators.confidence.put_confidence`, in float32: the other classes
are summed by themselves, because 1 − c has no digits left when c is near 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from trueprob.calibrators import Calibrator, IsotonicCalibrator
from trueprob.calibrators.isotonic import DIGITS, FARTHEST, SMALLEST
from trueprob.calibrators.linear.stage import LARGEST, LinearStage
from trueprob.calibrators.smart.second_stage import SecondStage
from trueprob.onnx_export.inverse_temperature import INVERSE_TEMPERATURES
from trueprob.onnx_export.nodes import DOUBLE, FLOAT, Nodes
from trueprob.onnx_export.piecewise_linear import PiecewiseLinear
from trueprob.onnx_export.stages import Parts, parts_of

__all__ = [
    "TopAndOthers",
    "add_answers",
    "add_isotonic",
    "add_linear_stage",
    "add_second_stage",
    "put_confidence",
    "top_and_others",
]


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
