"""The calibrator as ONNX nodes: from logits to probabilities, prediction and temperature.

The ONNX nodes follow the stages of `stages`, in this order, with the arithmetic of the NumPy code:

1. The linear stage y = W x + b, in float64 as in `calibrators.linear`. At logits of a thousand
   nats float32 would leave an error of 1e-4 nats in y, which changes the fourth digit of
   probabilities and the prediction of near-ties. The sum may still be added in another order, so
   y, rounded to float32, can differ in its last bit.
2. The softmax of β z with β = 1/h. The largest logit is subtracted before anything is scaled, as
   in `logit_functions.tempered_softmax`, and the prediction stays above the runner-up.
3. A map of the confidence, or none. The prediction gets the mapped confidence and the other
   classes are rescaled. The others are summed directly: 1 − c has no digits left in float32 when
   c is near 1.
   - The second stage of `smart`, in float32.
   - The isotonic map. Between two knots it may rise from one block to the next within 1e-9 nats,
     so the logit of the confidence is computed and rounded in float64, as in the fit.

A stack has these nodes for each member, then the weighted sum in float64, so that the last bits of
the members still tell the prediction, and its power in float32.

`smart-binary` has none of these stages: its log-odds are a function of the difference of the two
logits, in float64, and become an output of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from trueprob.arrays.logit_functions import ABOVE_RUNNER_UP
from trueprob.calibrators import (
    Calibrator,
    IsotonicCalibrator,
    SmartBinaryCalibrator,
    StackCalibrator,
)
from trueprob.calibrators.isotonic import DIGITS, FARTHEST, SMALLEST
from trueprob.calibrators.linear.stage import LARGEST, LinearStage
from trueprob.calibrators.smart.binary import (
    ABOVE_HALF,
    BELOW_HALF,
    FARTHEST_LOG_ODDS,
    TO_GRID,
)
from trueprob.calibrators.smart.second_stage import SecondStage
from trueprob.onnx_export.inverse_temperature import INVERSE_TEMPERATURES
from trueprob.onnx_export.nodes import DOUBLE, FLOAT, INT64, Nodes
from trueprob.onnx_export.piecewise_linear import PiecewiseLinear
from trueprob.onnx_export.stages import Stages, require_expressible, stages_of

__all__ = ["add_calibrator"]

Names = dict[str, str]  # of the graph's outputs that a calibrator gives; empty for a member
OUTPUTS: Final[Names] = {name: name for name in ("probabilities", "prediction", "log_odds")}
BETA_RANGE: Final = (1e-30, 1e30)  # as in tempered_softmax: 0 · −inf would be NaN
LARGEST_EXPONENT: Final = 80.0  # its exp is still finite in float32
FAR_BELOW: Final = -1e300  # added to a difference of logits, its exp is 0


def add_calibrator(nodes: Nodes, logits: str, calibrator: Calibrator) -> None:
    """Add the values `probabilities`, `prediction` and `temperature`; `log_odds` if it has them.

    Raises InvalidInput for a calibrator that cannot be expressed in ONNX.
    """
    require_expressible(calibrator)
    temperature = nodes.constant([np.nan])
    if isinstance(calibrator, StackCalibrator):
        _stack(nodes, logits, calibrator)
    elif isinstance(calibrator, SmartBinaryCalibrator):
        _smart_binary(nodes, logits, calibrator, outputs=OUTPUTS)
    else:
        _, beta = _single(nodes, logits, calibrator, outputs=OUTPUTS)
        if stages_of(calibrator).has_temperature:
            last = nodes.constant([-1], np.int64)
            temperature = nodes.add("Squeeze", nodes.add("Reciprocal", beta), last)
    # A constant temperature is repeated for each row.
    nodes.add("Expand", temperature, nodes.add("Shape", "prediction"), output="temperature")


def _single(
    nodes: Nodes, logits: str, calibrator: Calibrator, *, outputs: Names
) -> tuple[str, str]:
    """Probabilities and 1/h of a calibrator that consists of stages."""
    stages, k = stages_of(calibrator), calibrator.n_classes
    output, name = outputs.get("probabilities"), outputs.get("prediction")
    if stages.linear is not None:
        logits = _linear_stage(nodes, logits, stages.linear)
    predicted = nodes.add("ArgMax", logits, axis=1, keepdims=0, output=name)
    beta = INVERSE_TEMPERATURES[stages.gap_stage.kind](nodes, logits, stages.gap_stage)
    beta = nodes.add("Clip", beta, *(nodes.constant(end) for end in BETA_RANGE))
    second = stages.second
    if second is None:
        p = _softmax(nodes, logits, beta, stages, k, prediction=predicted, output=output)
        return p, beta
    first = _softmax(nodes, logits, beta, stages, k)
    top = _top_and_others(nodes, first, predicted, n_classes=k)
    if isinstance(second, IsotonicCalibrator):
        return _isotonic(nodes, logits, top, second, output=output), beta
    return _second_stage(nodes, first, top, second, output=output), beta


def _stack(nodes: Nodes, logits: str, calibrator: StackCalibrator) -> None:
    """The mixture, its power, and a prediction that is strictly first."""
    k = calibrator.n_classes
    total = ""
    for member, weight in zip(calibrator.members, calibrator.weights, strict=True):
        if isinstance(member, SmartBinaryCalibrator):
            probabilities = _smart_binary(nodes, logits, member, outputs={})
        else:
            probabilities, _ = _single(nodes, logits, member, outputs={})
        precise = nodes.add("Cast", probabilities, to=DOUBLE)
        part = nodes.add("Mul", precise, nodes.constant(weight, np.float64))
        total = nodes.add("Add", total, part) if total else part
    of_prediction = logits if calibrator.preserves_prediction else total
    nodes.add("ArgMax", of_prediction, axis=1, keepdims=0, output="prediction")
    total = nodes.add("Cast", total, to=FLOAT)
    powers = nodes.add("Pow", total, nodes.constant(calibrator.power))
    scale = nodes.add("Reciprocal", nodes.row_sum(powers, length=k))
    mixed = nodes.add("Mul", powers, scale)
    top = _top_and_others(nodes, mixed, "prediction", n_classes=k)
    above = nodes.add("Mul", nodes.row_max(top.others), nodes.constant(ABOVE_RUNNER_UP))
    confidence = nodes.add("Max", nodes.row_max(mixed), above)
    placed = nodes.add("Mul", top.is_top, confidence)
    nodes.add("Add", top.others, placed, output="probabilities")


def _smart_binary(
    nodes: Nodes, logits: str, calibrator: SmartBinaryCalibrator, *, outputs: Names
) -> str:
    """Log-odds, prediction and probabilities; the name of the last."""

    def constant(value: float) -> str:
        return nodes.constant([[value]], np.float64)

    precise = nodes.add("Cast", logits, to=DOUBLE)
    zero, one = (
        nodes.add("Gather", precise, nodes.constant([column], np.int64), axis=1)
        for column in (0, 1)
    )
    anchors, values, slopes = calibrator.map.lines
    line = PiecewiseLinear(np.array(calibrator.edges), anchors, values, slopes, double=True)
    log_odds = line.add_to(nodes, nodes.add("Sub", one, zero))
    last = nodes.constant([-1], np.int64)
    nodes.add("Squeeze", log_odds, last, output=outputs.get("log_odds"))
    up = nodes.add("Greater", log_odds, constant(0.0))
    upper = nodes.add("Cast", up, to=INT64)
    nodes.add("Squeeze", upper, last, output=outputs.get("prediction"))
    away = nodes.add("Min", nodes.add("Abs", log_odds), constant(FARTHEST_LOG_ODDS))
    away = nodes.add("Sub", nodes.add("Add", away, constant(TO_GRID)), constant(TO_GRID))
    power = nodes.add("Exp", nodes.add("Neg", away))
    total = nodes.add("Add", constant(1.0), power)
    high = nodes.add("Cast", nodes.add("Reciprocal", total), to=FLOAT)
    high = nodes.add("Max", high, nodes.constant([[ABOVE_HALF]]))
    low = nodes.add("Cast", nodes.add("Div", power, total), to=FLOAT)
    low = nodes.add("Min", low, nodes.constant([[BELOW_HALF]]))
    columns = nodes.add("Where", up, low, high), nodes.add("Where", up, high, low)
    return nodes.add("Concat", *columns, axis=1, output=outputs.get("probabilities"))


def _linear_stage(nodes: Nodes, logits: str, stage: LinearStage) -> str:
    """The linear stage y of the logits, both float32 of shape (n, k)."""

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


def _softmax(
    nodes: Nodes,
    logits: str,
    beta: str,
    stages: Stages,
    k: int,
    *,
    prediction: str | None = None,  # it is put above the others; None: another stage follows
    output: str | None = None,
) -> str:
    """(1 − w)·softmax(β z) + w/k."""
    weight = stages.uniform_weight
    shifted = nodes.add("Sub", logits, nodes.row_max(logits))
    powers = nodes.add("Exp", nodes.add("Mul", shifted, beta))
    share = nodes.add("Div", nodes.constant([[1.0 - weight]]), nodes.row_sum(powers, length=k))
    softmax = nodes.add("Mul", powers, share)
    if weight:
        softmax = nodes.add("Add", softmax, nodes.constant(weight / k))
    if prediction is None:
        return softmax
    first, second = nodes.two_largest(softmax)
    confidence = nodes.add("Max", first, nodes.add("Mul", second, nodes.constant(ABOVE_RUNNER_UP)))
    place = nodes.add("Unsqueeze", prediction, nodes.constant([-1], np.int64))
    return nodes.add("ScatterElements", softmax, place, confidence, axis=1, output=output)


@dataclass(frozen=True)
class TopAndOthers:
    """Probabilities split into that of the prediction and the others; names of float32 values."""

    is_top: str  # of shape (n, k): 1 at the prediction, 0 elsewhere
    is_other: str  # of shape (n, k): 0 at the prediction, 1 elsewhere
    others: str  # of shape (n, k): the probabilities, 0 at the prediction
    rest: str  # of shape (n, 1): the sum of the others


def _top_and_others(
    nodes: Nodes, probabilities: str, prediction: str, *, n_classes: int
) -> TopAndOthers:
    """Split probabilities of shape (n, k) at a prediction of shape (n,), int64."""
    depth = nodes.constant(n_classes, np.int64)
    is_top = nodes.add("OneHot", prediction, depth, nodes.constant([0.0, 1.0]), axis=-1)
    is_other = nodes.add("Sub", nodes.constant(1.0), is_top)
    others = nodes.add("Mul", probabilities, is_other)
    return TopAndOthers(is_top, is_other, others, nodes.row_sum(others, length=n_classes))


def _put_confidence(nodes: Nodes, top: TopAndOthers, remaining: str, *, output: str | None) -> str:
    """Give the prediction 1 − remaining and rescale the others, as `calibrators.confidence` does.

    Less remains where the runner-up would otherwise overtake the prediction.
    """
    one = nodes.constant(1.0)
    runner_up = nodes.row_max(top.others)
    share = nodes.add("Div", runner_up, top.rest)
    most = nodes.add("Reciprocal", nodes.add("Add", one, share))
    remaining = nodes.add("Min", remaining, most)
    scale = nodes.add("Div", remaining, top.rest)
    above = nodes.add("Mul", nodes.add("Mul", runner_up, scale), nodes.constant(ABOVE_RUNNER_UP))
    confidence = nodes.add("Max", nodes.add("Sub", one, remaining), above)
    placed = nodes.add("Mul", top.is_top, confidence)
    return nodes.add("Add", nodes.add("Mul", top.others, scale), placed, output=output)


def _second_stage(
    nodes: Nodes,
    probabilities: str,  # of shape (n, k); the prediction has the largest of each row
    top: TopAndOthers,  # of these probabilities
    stage: SecondStage,
    *,
    output: str | None,  # name of the result
) -> str:
    """Map the confidence by the second stage of `smart`, as `SecondStage.apply` does."""
    knots, values = np.array(stage.knots), np.array(stage.values)
    slopes = np.diff(values) / np.diff(knots)
    line = PiecewiseLinear(knots[1:-1], knots[:-1], values[:-1], slopes)

    rest = nodes.add("Max", top.rest, nodes.constant(np.finfo(np.float32).tiny))
    confidence = nodes.row_max(probabilities)
    logit = nodes.add("Sub", nodes.add("Log", confidence), nodes.add("Log", rest))
    mapped = line.add_to(nodes, logit)
    power = nodes.add("Exp", nodes.add("Min", mapped, nodes.constant(LARGEST_EXPONENT)))
    remaining = nodes.add("Reciprocal", nodes.add("Add", nodes.constant(1.0), power))  # 1 − c′
    return _put_confidence(nodes, replace(top, rest=rest), remaining, output=output)


def _isotonic(
    nodes: Nodes,
    logits: str,  # of shape (n, k), float32
    top: TopAndOthers,  # of their softmax
    calibrator: IsotonicCalibrator,
    *,
    output: str | None,  # name of the result
) -> str:
    """Map the confidence by the isotonic calibrator."""
    k = calibrator.n_classes
    remaining = nodes.add("Cast", _isotonic_remaining(nodes, logits, top, calibrator), to=FLOAT)
    # Where float32 has nothing left for the other classes, they get equal shares.
    sure = nodes.add("Less", top.rest, nodes.constant([[SMALLEST * k]]))
    others = nodes.add("Where", sure, top.is_other, top.others)
    rest = nodes.add("Where", sure, nodes.constant([[k - 1.0]]), top.rest)
    return _put_confidence(nodes, replace(top, others=others, rest=rest), remaining, output=output)


def _isotonic_remaining(
    nodes: Nodes, logits: str, top: TopAndOthers, calibrator: IsotonicCalibrator
) -> str:
    """1 − c′ in float64, of shape (n, 1)."""

    def constant(value: float) -> str:
        return nodes.constant([[value]], np.float64)

    largest = nodes.add("Cast", nodes.row_max(logits), to=DOUBLE)
    differences = nodes.add("Sub", nodes.add("Cast", logits, to=DOUBLE), largest)
    far = nodes.add("Mul", nodes.add("Cast", top.is_top, to=DOUBLE), constant(FAR_BELOW))
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
