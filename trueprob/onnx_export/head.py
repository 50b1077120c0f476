"""The calibrator as ONNX nodes: from logits to probabilities, prediction and temperature.

The ONNX nodes follow the stages of `stages`, in this order, with the arithmetic of the NumPy code.
Before them masked classes (−inf) and zero cells are put far below the others and wild scales are
cut; after them masked classes get 0 and zero cells their share, as in `calibrators.input_stage`.

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
from trueprob.arrays.logits import ZERO_CELL
from trueprob.calibrators import (
    Calibrator,
    IsotonicCalibrator,
    SmartBinaryCalibrator,
    StackCalibrator,
)
from trueprob.calibrators.base import FAR
from trueprob.calibrators.input_stage import BELOW_CAP, InputStage, ZeroCells
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
from trueprob.onnx_export.nodes import BOOL, DOUBLE, FLOAT, INT64, Nodes
from trueprob.onnx_export.piecewise_linear import PiecewiseLinear
from trueprob.onnx_export.stages import Stages, require_expressible, stages_of

__all__ = ["add_calibrator"]

Names = dict[str, str]  # of the graph's outputs that a calibrator gives; empty for a member
OUTPUTS: Final[Names] = {name: name for name in ("prediction", "log_odds")}
BETA_RANGE: Final = (1e-30, 1e30)  # as in tempered_softmax: 0 · −inf would be NaN
LARGEST_EXPONENT: Final = 80.0  # its exp is still finite in float32
FAR_BELOW: Final = -1e300  # added to a difference of logits, its exp is 0
MASKED: Final = -3e38  # a finite logit whose exp is 0; the linear stage's outputs end at 1e37


def add_calibrator(nodes: Nodes, logits: str, calibrator: Calibrator) -> None:
    """Add the values `probabilities`, `prediction` and `temperature`; `log_odds` if it has them.

    Raises InvalidInput for a calibrator that cannot be expressed in ONNX.
    """
    require_expressible(calibrator)
    temperature = nodes.constant([np.nan])
    cells = _cells(nodes, logits, calibrator.input_stage)
    if isinstance(calibrator, StackCalibrator):
        probabilities = _stack(nodes, cells, calibrator)
    elif isinstance(calibrator, SmartBinaryCalibrator):
        probabilities = _smart_binary(nodes, cells, calibrator, outputs=OUTPUTS)
    else:
        probabilities, beta = _single(nodes, cells, calibrator, outputs=OUTPUTS)
        if stages_of(calibrator).has_temperature:
            last = nodes.constant([-1], np.int64)
            temperature = nodes.add("Squeeze", nodes.add("Reciprocal", beta), last)
    _put_in_cells(nodes, probabilities, cells, calibrator)
    # A constant temperature is repeated for each row.
    nodes.add("Expand", temperature, nodes.add("Shape", "prediction"), output="temperature")


def _single(
    nodes: Nodes, cells: Cells, calibrator: Calibrator, *, outputs: Names
) -> tuple[str, str]:
    """Probabilities and 1/h of a calibrator that consists of stages."""
    stages, k = stages_of(calibrator), calibrator.n_classes
    logits = cells.logits
    if stages.linear is not None:
        logits = _linear_stage(nodes, logits, stages.linear, cells)
    name = outputs.get("prediction")
    predicted = nodes.add("ArgMax", logits, axis=1, keepdims=0, output=name)
    beta = INVERSE_TEMPERATURES[stages.gap_stage.kind](nodes, logits, stages.gap_stage)
    beta = nodes.add("Clip", beta, *(nodes.constant(end) for end in BETA_RANGE))
    second = stages.second
    if second is None:
        return _softmax(nodes, logits, beta, stages, k, prediction=predicted), beta
    first = _softmax(nodes, logits, beta, stages, k)
    top = _top_and_others(nodes, first, predicted, n_classes=k)
    if isinstance(second, IsotonicCalibrator):
        return _isotonic(nodes, logits, top, second), beta
    return _second_stage(nodes, first, top, second), beta


def _stack(nodes: Nodes, cells: Cells, calibrator: StackCalibrator) -> str:
    """The mixture, its power, and a prediction that is strictly first."""
    k = calibrator.n_classes
    total = ""
    for member, weight in zip(calibrator.members, calibrator.weights, strict=True):
        if isinstance(member, SmartBinaryCalibrator):
            probabilities = _smart_binary(nodes, cells, member, outputs={})
        else:
            probabilities, _ = _single(nodes, cells, member, outputs={})
        probabilities = _allowed_only(nodes, probabilities, cells, k)
        precise = nodes.add("Cast", probabilities, to=DOUBLE)
        part = nodes.add("Mul", precise, nodes.constant(weight, np.float64))
        total = nodes.add("Add", total, part) if total else part
    of_prediction = cells.logits if calibrator.preserves_prediction else total
    nodes.add("ArgMax", of_prediction, axis=1, keepdims=0, output="prediction")
    total = nodes.add("Cast", total, to=FLOAT)
    powers = nodes.add("Pow", total, nodes.constant(calibrator.power))
    scale = nodes.add("Reciprocal", nodes.row_sum(powers, length=k))
    mixed = nodes.add("Mul", powers, scale)
    top = _top_and_others(nodes, mixed, "prediction", n_classes=k)
    above = nodes.add("Mul", nodes.row_max(top.others), nodes.constant(ABOVE_RUNNER_UP))
    confidence = nodes.add("Max", nodes.row_max(mixed), above)
    placed = nodes.add("Mul", top.is_top, confidence)
    return nodes.add("Add", top.others, placed)


def _smart_binary(
    nodes: Nodes, cells: Cells, calibrator: SmartBinaryCalibrator, *, outputs: Names
) -> str:
    """Log-odds, prediction and probabilities; the name of the last."""

    def constant(value: float) -> str:
        return nodes.constant([[value]], np.float64)

    # Where one class is masked, the difference is that of `fill_masks`.
    alone = nodes.add("Where", cells.unseen, nodes.constant(-FAR), nodes.constant(0.0))
    marked = nodes.add("Cast", nodes.row_max(nodes.add("Cast", cells.unseen, to=FLOAT)), to=BOOL)
    logits = nodes.add("Where", marked, alone, cells.logits)
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
    return nodes.add("Concat", *columns, axis=1)


@dataclass(frozen=True)
class Cells:
    """Which cells the calibrator proper does not see; names of values of shape (n, k)."""

    logits: str  # float32, finite in every cell
    zero: str | None  # bool, zero cells; None without a stage for them
    unseen: str  # bool, masked or zero


def _cells(nodes: Nodes, logits: str, stage: InputStage | None) -> Cells:
    """The input stage. A logit of −inf is masked; NaN is not, so that it shows."""
    unseen = nodes.add("Less", logits, nodes.constant(np.finfo(np.float32).min))
    zero = None
    if stage is not None and stage.mask_below is not None:
        unseen = nodes.add("LessOrEqual", logits, nodes.constant(stage.mask_below))
    if stage is not None and stage.zeros_are_masks:
        is_zero = nodes.add("Equal", logits, nodes.constant(ZERO_CELL))
        unseen = nodes.add("Or", unseen, is_zero)
    if stage is not None and stage.zeros is not None:
        zero = nodes.add("Equal", logits, nodes.constant(ZERO_CELL))
        seen = nodes.add("Not", nodes.add("Or", unseen, zero))
        some = nodes.add("Cast", nodes.row_max(nodes.add("Cast", seen, to=FLOAT)), to=BOOL)
        zero = nodes.add("And", zero, some)
        unseen = nodes.add("Or", unseen, zero)
    if stage is not None and stage.clip is not None:
        below = nodes.add("Sub", logits, nodes.row_max(logits))
        logits = nodes.add("Max", below, nodes.constant(-stage.clip))
    return Cells(nodes.add("Where", unseen, nodes.constant(MASKED), logits), zero, unseen)


def _allowed_only(nodes: Nodes, probabilities: str, cells: Cells, k: int) -> str:
    """Probabilities of the cells that are seen, summing to one; other rows stay as they are."""
    kept = nodes.add("Where", cells.unseen, nodes.constant(0.0), probabilities)
    marked = nodes.add("Cast", nodes.row_max(nodes.add("Cast", cells.unseen, to=FLOAT)), to=BOOL)
    scaled = nodes.add("Div", kept, nodes.row_sum(kept, length=k))
    return nodes.add("Where", marked, scaled, kept)


def _put_in_cells(nodes: Nodes, probabilities: str, cells: Cells, calibrator: Calibrator) -> None:
    """Add `probabilities`: 0 where a class is masked, and zero cells with their share."""
    found = _allowed_only(nodes, probabilities, cells, calibrator.n_classes)
    zeros = None if calibrator.input_stage is None else calibrator.input_stage.zeros
    if zeros is None or cells.zero is None:
        nodes.add("Identity", found, output="probabilities")
    else:
        _spread(nodes, found, cells.zero, cells.unseen, zeros)


def _spread(nodes: Nodes, probabilities: str, zero: str, unseen: str, zeros: ZeroCells) -> None:
    """Add `probabilities` with the mass of zero cells moved there, as `ZeroCells.spread` does."""
    k, one, last = len(zeros.frequencies), nodes.constant(1.0), nodes.constant([-1], np.int64)
    is_zero = nodes.add("Cast", zero, to=FLOAT)
    shares = nodes.add("Mul", is_zero, nodes.constant([zeros.frequencies]))
    total = nodes.row_sum(shares, length=k)
    shares = nodes.add(
        "Div", shares, nodes.add("Max", total, nodes.constant(min(zeros.frequencies)))
    )
    seen = nodes.add("Cast", nodes.add("Not", unseen), to=INT64)
    count = nodes.add("ReduceSum", seen, last, keepdims=1)
    place = nodes.add("Min", count, nodes.constant([[len(zeros.mass)]], np.int64))
    place = nodes.add("Sub", place, nodes.constant([[1]], np.int64))
    mass = nodes.add("Gather", nodes.constant(zeros.mass), place)
    top = nodes.row_max(probabilities)
    both = nodes.add("Add", top, nodes.row_max(shares))
    most = nodes.add("Mul", nodes.add("Div", top, both), nodes.constant(BELOW_CAP))
    mass = nodes.add("Mul", nodes.add("Min", mass, most), nodes.row_max(is_zero))
    remaining = nodes.add("Mul", probabilities, nodes.add("Sub", one, mass))
    nodes.add("Add", remaining, nodes.add("Mul", shares, mass), output="probabilities")


def _linear_stage(nodes: Nodes, logits: str, stage: LinearStage, cells: Cells) -> str:
    """The linear stage y of the logits, both float32 of shape (n, k)."""

    def constant(values: float | list[float]) -> str:
        return nodes.constant(values, np.float64)

    k = len(stage.bias)
    largest = nodes.add("Cast", nodes.row_max(logits), to=DOUBLE)
    shifted = nodes.add("Sub", nodes.add("Cast", logits, to=DOUBLE), largest)
    # Unseen cells are left out of the mean, and are 0.
    nothing, last = constant(0.0), nodes.constant([-1], np.int64)
    shifted = nodes.add("Where", cells.unseen, nothing, shifted)
    seen = nodes.add("Cast", nodes.add("Not", cells.unseen), to=DOUBLE)
    total, count = (nodes.add("ReduceSum", each, last, keepdims=1) for each in (shifted, seen))
    centred = nodes.add("Sub", shifted, nodes.add("Div", total, count))
    centred = nodes.add("Where", cells.unseen, nothing, centred)
    weights = np.array(stage.weights)
    if weights.size == k:
        product = nodes.add("Mul", centred, nodes.constant(weights, np.float64))
    else:
        matrix = nodes.constant(weights.reshape(k, k).T, np.float64)
        product = nodes.add("MatMul", centred, matrix)
    output = nodes.add("Add", product, constant(list(stage.bias)))
    kept = nodes.add("Clip", output, constant(-LARGEST), constant(LARGEST))
    y = nodes.add("Cast", kept, to=FLOAT)
    return nodes.add("Where", cells.unseen, nodes.constant(MASKED), y)


def _softmax(
    nodes: Nodes,
    logits: str,
    beta: str,
    stages: Stages,
    k: int,
    *,
    prediction: str | None = None,  # it is put above the others; None: another stage follows
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
    return nodes.add("ScatterElements", softmax, place, confidence, axis=1)


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


def _put_confidence(nodes: Nodes, top: TopAndOthers, remaining: str) -> str:
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
    return nodes.add("Add", nodes.add("Mul", top.others, scale), placed)


def _second_stage(
    nodes: Nodes,
    probabilities: str,  # of shape (n, k); the prediction has the largest of each row
    top: TopAndOthers,  # of these probabilities
    stage: SecondStage,
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
    return _put_confidence(nodes, replace(top, rest=rest), remaining)


def _isotonic(
    nodes: Nodes,
    logits: str,  # of shape (n, k), float32
    top: TopAndOthers,  # of their softmax
    calibrator: IsotonicCalibrator,
) -> str:
    """Map the confidence by the isotonic calibrator."""
    k = calibrator.n_classes
    remaining = nodes.add("Cast", _isotonic_remaining(nodes, logits, top, calibrator), to=FLOAT)
    # Where float32 has nothing left for the other classes, they get equal shares.
    sure = nodes.add("Less", top.rest, nodes.constant([[SMALLEST * k]]))
    others = nodes.add("Where", sure, top.is_other, top.others)
    rest = nodes.add("Where", sure, nodes.constant([[k - 1.0]]), top.rest)
    return _put_confidence(nodes, replace(top, others=others, rest=rest), remaining)


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
