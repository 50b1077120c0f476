"""The exported graph agrees with the NumPy code: laws over all kinds of calibrators."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from tests.trueprob.every_kind import BINARY, cases, fit_kind, width
from tests.trueprob.onnx_export.exported_graphs import answers, check, classifier, hard_rows
from trueprob import InvalidInput, logits_from_probabilities
from trueprob.arrays.logits import ZERO_CELL
from trueprob.calibrators import (
    KINDS,
    IsotonicCalibrator,
    SmartCalibrator,
    SmartMatrixCalibrator,
    SmartVectorCalibrator,
    StackCalibrator,
    TemperatureCalibrator,
    VectorCalibrator,
    fit_isotonic,
)
from trueprob.calibrators.input_stage import InputStage, ZeroCells
from trueprob.calibrators.linear.stage import LinearStage, centred
from trueprob.calibrators.smart.second_stage import SecondStage
from trueprob.onnx_export import EXPRESSIBLE, fused_onnx, head_onnx
from trueprob.onnx_export.nodes import Nodes

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[3] / "examples"
SECOND_STAGE = SecondStage((-2.0, -0.5, 0.3, 1.0, 4.0), (-1.0, -0.8, 1.0, 1.1, 9.0))
LINEAR = {cls.kind: cls for cls in (SmartMatrixCalibrator, SmartVectorCalibrator, VectorCalibrator)}

every_kind = pytest.mark.parametrize("kind", cases(sorted(KINDS)))
expressible = pytest.mark.parametrize("kind", cases(EXPRESSIBLE))
linear = pytest.mark.parametrize("kind", sorted(LINEAR))


def with_linear_stage(kind, k, *, second=None, seed=0):
    """A calibrator of this kind whose linear stage changes many predictions."""
    generator = np.random.default_rng(seed)
    weights = np.diag(generator.uniform(0.2, 1.5, size=k))
    full = getattr(LINEAR[kind], "full", False)
    if full:
        weights += 0.2 * generator.normal(size=(k, k)) / np.sqrt(k)
    numbers = weights.ravel() if full else np.diag(weights)
    stage = LinearStage(tuple(numbers.tolist()), tuple(generator.normal(size=k).tolist()))
    if LINEAR[kind] is VectorCalibrator:
        return VectorCalibrator(k, stage, 1e-4)
    return LINEAR[kind](k, stage, SmartCalibrator(k, (0.5, 2.0), (0.1, -0.5, 0.3), 1e-4, second))


def calibrator_of(kind, logits, labels):
    """Fitted; where a linear stage takes minutes to fit, made."""
    if kind in LINEAR and logits.shape[1] > 10:
        return with_linear_stage(kind, logits.shape[1])
    if kind == StackCalibrator.kind and logits.shape[1] > 10:
        members = [fit_kind(each, logits, labels) for each in ("smart", "isotonic")]
        changing = with_linear_stage("smart-vector", logits.shape[1])
        return StackCalibrator(logits.shape[1], (*members, changing), (0.2, 0.3, 0.5), 1.2)
    return fit_kind(kind, logits, labels)


@every_kind
def test_every_kind_is_expressed_or_refused_with_a_sentence(kind, overconfident):
    logits, labels = overconfident(300, width(kind, 5))
    calibrator = fit_kind(kind, logits, labels)
    if kind not in EXPRESSIBLE:
        with pytest.raises(InvalidInput, match=f"{kind} cannot be expressed in ONNX, expected one"):
            head_onnx(calibrator)
        return
    content = head_onnx(calibrator)
    graph = onnx.load_from_string(content)
    onnx.checker.check_model(graph, full_check=True)
    assert {node.domain for node in graph.graph.node} == {""}
    check(calibrator, logits, answers(content, {"logits": logits}))
    reference = ReferenceEvaluator(graph)
    named = dict(zip(reference.output_names, reference.run(None, {"logits": logits}), strict=True))
    check(calibrator, logits, named)


@expressible
@pytest.mark.parametrize("k", [2, 5, 100, 1000])
def test_numpy_path_equals_onnx_path(kind, k, overconfident):
    k = width(kind, k)
    logits, labels = overconfident(300, k)
    calibrator = calibrator_of(kind, logits, labels)
    content = head_onnx(calibrator)
    for rows in (logits, hard_rows(k), logits[:1]):
        check(calibrator, rows, answers(content, {"logits": rows}))


@expressible
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_every_kind_is_put_behind_networks_of_older_and_newer_opsets(kind, opset, overconfident):
    k = width(kind, 3)
    calibrator = fit_kind(kind, *overconfident(200, k))
    network = classifier(opset=opset, shape=("n", k))
    content = fused_onnx(network.SerializeToString(), calibrator)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    got = answers(content, {"x": x})
    more = ["log_odds"] if kind == BINARY else []
    assert list(got) == ["probabilities", "prediction", "temperature", "logits", *more]
    check(calibrator, got["logits"], got)


@expressible
def test_numpy_path_equals_onnx_path_on_the_example(kind):
    with np.load(EXAMPLES / "digits_calibration.npz") as file:
        logits, labels = file["logits"], file["labels"]
    k = width(kind, 10)
    calibrator = calibrator_of(kind, np.ascontiguousarray(logits[:, :k]), labels % k)
    with np.load(EXAMPLES / "digits_test.npz") as file:
        logits = np.ascontiguousarray(file["logits"][:, :k])
    content = head_onnx(calibrator)
    for scale in np.float32([1e-3, 1.0, 1e3]):
        rows = scale * logits
        check(calibrator, rows, answers(content, {"logits": rows}))


@pytest.mark.slow
@expressible
@pytest.mark.parametrize(
    "name",
    [
        "cifar10_resnet50_ce",
        "cifar100_resnet20",
        "sst2_gpt2zs",
        "20news_cleanlabcv",
        "imagenet_resnet50keras_top5",
    ],
)
def test_numpy_path_equals_onnx_path_on_real_logits(kind, name, real_set):
    validation, (logits, _) = real_set(name)
    if logits.shape[1] != width(kind, logits.shape[1]):
        pytest.skip(f"{kind} is for two classes")
    calibrator = calibrator_of(kind, *(a[:500] for a in validation))
    check(calibrator, logits, answers(head_onnx(calibrator), {"logits": logits}))


@linear
@pytest.mark.parametrize("k", [2, 10, 100])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_predictions_of_near_ties_are_equal(kind, k, scale):
    calibrator = with_linear_stage(kind, k, seed=1)
    rows = np.random.default_rng(2).normal(size=(500, k)).astype(np.float32) * np.float32(scale)
    bias = np.array(calibrator.linear.bias)
    weights = np.array(calibrator.linear.weights)
    matrix = np.diag(weights) if weights.size == k else weights.reshape(k, k)
    slopes = matrix - matrix.mean(axis=1, keepdims=True)  # of the outputs by the logits
    index = np.arange(len(rows))
    for _ in range(4):  # the runner-up's own logit is moved until the two are level
        outputs = centred(rows) @ matrix.T + bias
        first, second = np.argsort(outputs, axis=1)[:, :-3:-1].T
        missing = outputs[index, first] - outputs[index, second]
        step = missing / (slopes[second, second] - slopes[first, second])
        rows[index, second] += step.astype(np.float32)
    largest = np.sort(calibrator.linear.apply(rows), axis=1)[:, -2:]
    level = largest[:, 1] - largest[:, 0] <= 2 * np.spacing(np.abs(largest[:, 1]))
    assert level.sum() > 50 or (k, scale) == (2, 1e3)
    got = answers(head_onnx(calibrator), {"logits": rows})
    assert np.array_equal(got["prediction"], calibrator.prediction(rows))
    check(calibrator, rows, got)


@pytest.mark.parametrize("kind", [SmartMatrixCalibrator.kind, SmartVectorCalibrator.kind])
@pytest.mark.parametrize("second", [None, SECOND_STAGE])
def test_both_stages_and_a_missing_linear_stage_are_expressed(kind, second):
    rows = hard_rows(5)
    calibrator = with_linear_stage(kind, 5, second=second)
    changed = calibrator.prediction(rows) != rows.argmax(axis=1)
    assert 20 < changed.sum() < 680
    check(calibrator, rows, answers(head_onnx(calibrator), {"logits": rows}))
    gap_stage_alone = LINEAR[kind](5, None, calibrator.gap_stage)
    check(gap_stage_alone, rows, answers(head_onnx(gap_stage_alone), {"logits": rows}))


@linear
def test_outputs_that_float32_does_not_hold_are_clipped_as_in_numpy(kind):
    calibrator = with_linear_stage(kind, 4)
    rows = np.float32([[3e38, -3e38, 0, 1], [-3e38, 3e38, 3e38, 3e38], [1e30, 0, 0, -1e30]])
    got = answers(head_onnx(calibrator), {"logits": rows})
    assert np.array_equal(got["prediction"], calibrator.prediction(rows))
    assert got["probabilities"] == pytest.approx(calibrator.predict_proba(rows), abs=1e-6)


def test_a_matrix_that_no_file_holds_is_refused_with_a_sentence():
    matrix = np.broadcast_to(0.0, (1 << 14, 1 << 14))
    with pytest.raises(InvalidInput, match="must fit into one file of 2 GiB"):
        Nodes(onnx.GraphProto(), 13).constant(matrix, np.float64)


@pytest.mark.parametrize("k", [2, 10, 1000])
def test_isotonic_steps_are_taken_by_the_same_rows(k, overconfident):
    logits, labels = overconfident(1_000, k, factor=1.5)
    calibrator = fit_isotonic(logits, labels).calibrator
    knots = np.array(calibrator.knots)
    steep = IsotonicCalibrator(k, (*knots, knots[-1] + 1e-9), (*calibrator.confidences, 0.9999))
    sure = logits[:140].copy()
    sure[np.arange(140), logits[:140].argmax(axis=1)] += np.arange(140, dtype=np.float32)
    for rows in (logits, sure, np.float32([[3e38, *[-3e38] * (k - 1)], [0.0] * k])):
        check(calibrator, rows, answers(head_onnx(calibrator), {"logits": rows}))
        check(steep, rows, answers(head_onnx(steep), {"logits": rows}))


STAGES = (
    None,
    InputStage(ZeroCells((0.02, 0.06, 0.3), (0.4, 0.2, 0.2, 0.1, 0.1))),
    InputStage(clip=6.5),
    InputStage(ZeroCells((0.9,), (0.01, 0.01, 0.01, 0.01, 0.96)), 3.0),
    InputStage(mask_below=-3.5),
    InputStage(zeros_are_masks=True),
    InputStage(clip=6.5, mask_below=-1e9, zeros_are_masks=True),
)


@expressible
def test_masks_and_zero_cells_are_answered_as_by_the_calibrator(kind, overconfident):
    k = width(kind, 5)
    plain = calibrator_of(kind, *overconfident(200, k))
    generator = np.random.default_rng(1)
    rows = generator.normal(size=(400, k)).astype(np.float32) * 3
    rows[generator.random(rows.shape) < 0.2] = ZERO_CELL
    rows[generator.random(rows.shape) < 0.2] = -np.inf
    rows[~(rows > -3.5).any(axis=1), 0] = 0.0
    for stage in STAGES if k > 2 else (None, *(each for each in STAGES[1:] if each.masks)):
        calibrator = replace(plain, input_stage=stage)
        masked = np.isneginf(rows if stage is None else stage.masked(rows))
        alone = masked.sum(axis=1) == k - 1
        assert alone.any()
        got = answers(head_onnx(calibrator), {"logits": rows})
        check(calibrator, rows, got)
        assert (got["probabilities"][masked] == 0.0).all()
        assert (got["probabilities"][alone].max(axis=1) == 1.0).all()


@pytest.mark.parametrize("numbers", ["probabilities", "log_probabilities"])
def test_a_network_of_probabilities_has_zeros(numbers):
    p = np.random.default_rng(0).dirichlet(np.full(3, 0.3), size=50).round(2)
    p /= p.sum(axis=1, keepdims=True)
    p = p.astype(np.float32)
    given = p
    if numbers == "log_probabilities":
        with np.errstate(divide="ignore"):
            given = np.log(p)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["scores"])],
        "hand",
        [value("x", onnx.TensorProto.FLOAT, ["n", 3])],
        [value("scores", onnx.TensorProto.FLOAT, ["n", 3])],
    )
    network = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
    )
    zeros = ZeroCells((0.02, 0.06), (0.5, 0.3, 0.2))
    calibrator = replace(TemperatureCalibrator(3, 2.0), input_stage=InputStage(zeros))
    fused = fused_onnx(network.SerializeToString(), calibrator, numbers=numbers)
    logits = logits_from_probabilities(p)
    assert (logits == ZERO_CELL).any()
    check(calibrator, logits, answers(fused, {"x": given}))


def test_log_odds_are_those_of_numpy_to_the_bit(overconfident):
    logits, labels = overconfident(900, 2, factor=4.0)
    calibrator = fit_kind(BINARY, logits + np.float32([0.0, 2.0]), labels)
    content = head_onnx(calibrator)
    for rows in (logits, hard_rows(2), np.float32([[3e38, -3e38], [-3e38, 3e38]])):
        got = answers(content, {"logits": rows})
        check(calibrator, rows, got)
        # Rows whose probability float32 would round to one half.
    edge = float(
        np.interp(
            0.0,
            calibrator.log_odds(logits[:, :2][np.argsort(calibrator.log_odds(logits))]),
            np.sort(logits[:, 1] - logits[:, 0]),
        )
    )
    near = np.float32(edge) + np.linspace(-1e-6, 1e-6, 41, dtype=np.float32)
    rows = np.stack([np.zeros_like(near), near], axis=1)
    got = answers(content, {"logits": rows})
    check(calibrator, rows, got)
    assert np.array_equal(got["probabilities"], calibrator.predict_proba(rows))
    assert set(got["prediction"]) == {0, 1}
    assert (got["probabilities"].max(axis=1) > 0.5).all()
