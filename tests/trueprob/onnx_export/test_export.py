"""A network and its calibrator as one graph; test_kinds compares all kinds of calibrators."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.trueprob.every_kind import BINARY, fit_kind
from tests.trueprob.onnx_export.exported_graphs import answers, check, classifier, hard_rows
from trueprob import InvalidInput, logits_from_probabilities
from trueprob.calibrators import IdentityCalibrator, SmartCalibrator, SmartMlpCalibrator
from trueprob.calibrators.smart.second_stage import SecondStage
from trueprob.onnx_export import EXPRESSIBLE, fused_onnx, head_onnx

MODEL = Path(__file__).parents[3] / "models" / "digits" / "1"

every_kind = pytest.mark.parametrize("kind", sorted({*EXPRESSIBLE} - {BINARY}))


@every_kind
def test_a_network_with_its_calibrator_answers_pictures(kind, overconfident):
    images = np.random.default_rng(0).integers(0, 256, (33, 8, 8, 1), dtype=np.uint8)
    calibrator = fit_kind(kind, *overconfident(200, 10))
    content = fused_onnx(MODEL / "model.onnx", calibrator)
    alone = answers((MODEL / "model.onnx").read_bytes(), {"image": images})
    for n in (33, 1):
        got = answers(content, {"image": images[:n]})
        assert list(got) == ["probabilities", "prediction", "temperature", "logits"]
        assert got["logits"] == pytest.approx(alone["logits"][:n], abs=1e-5)
        check(calibrator, got["logits"], got)


@pytest.mark.parametrize("k", [2, 5, 100])
@pytest.mark.parametrize("weight", [0.0, 1e-4])
def test_a_second_stage_is_expressed(k, weight):
    stage = SecondStage((-2.0, -0.5, 0.3, 1.0, 4.0), (-1.0, -0.8, 1.0, 1.1, 9.0))
    calibrator = SmartCalibrator(k, (0.5, 2.0), (0.1, -0.5, 0.3), weight, stage)
    rows = hard_rows(k)
    plain = SmartCalibrator(k, (0.5, 2.0), (0.1, -0.5, 0.3), weight)
    assert np.abs(calibrator.predict_proba(rows) - plain.predict_proba(rows)).max() > 0.1
    check(calibrator, rows, answers(head_onnx(calibrator), {"logits": rows}))


@pytest.mark.parametrize("edges", [(), (0.5,), (1e-3, 1.0, 1.0 + 1e-7, 50.0)])
@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_extreme_slopes_keep_their_precision(edges, weight):
    slopes = tuple(np.resize([-40.0, 3.0, -2.0, 20.0], len(edges) + 1).tolist())
    calibrator = SmartCalibrator(4, edges, slopes, weight)
    rows = hard_rows(4)
    check(calibrator, rows, answers(head_onnx(calibrator), {"logits": rows}))


def test_a_network_of_large_weights_keeps_its_precision():
    generator = np.random.default_rng(3)
    hidden, biases, output = (tuple((30 * generator.normal(size=16)).tolist()) for _ in range(3))
    calibrator = SmartMlpCalibrator(4, 0.01, 9.0, 3.0, 2.0, hidden, biases, output, 40.0)
    rows = hard_rows(4)
    check(calibrator, rows, answers(head_onnx(calibrator), {"logits": rows}))


NEGATIVE = helper.make_node("Neg", ["logits"], ["prediction"])


@pytest.mark.parametrize(
    "opsets",
    [
        [("ai.onnx.ml", 3), ("", 17)],
        [("com.microsoft", 1), ("ai.onnx.ml", 3), ("ai.onnx", 18)],
        [("ai.onnx.ml", 3)],
    ],
)
def test_the_opset_is_that_of_the_default_domain_whatever_others_there_are(opsets):
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml",
        coefficients=[1.0, 0.0, 0.0, 1.0, -1.0, 0.0], intercepts=[0.0] * 3,
        classlabels_ints=[0, 1, 2], multi_class=0,
    )  # fmt: skip
    value = helper.make_tensor_value_info
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.1)
    graph = helper.make_graph(
        [node],
        "linear",
        [value("x", TensorProto.FLOAT, ["n", 2])],
        [value("label", TensorProto.INT64, ["n"]), value("scores", TensorProto.FLOAT, ["n", 3])],
    )
    imports = [helper.make_opsetid(*opset) for opset in opsets]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    fused = fused_onnx(model.SerializeToString(), calibrator, output="scores")
    default = [o.version for o in onnx.load_from_string(fused).opset_import if "ml" not in o.domain]
    assert default[-1] in (13, 17, 18)
    x = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    got = answers(fused, {"x": x})
    check(calibrator, got["logits"], got)


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_opset_version_and_batch_stay_those_of_the_network(opset, element):
    base = classifier(opset=opset, element=element)
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.01)
    content = fused_onnx(base.SerializeToString(), calibrator)
    fused = onnx.load_model_from_string(content)
    onnx.checker.check_model(fused, full_check=True)
    assert [(o.domain, o.version) for o in fused.opset_import] == [("", opset)]
    assert fused.ir_version == 8
    batches = [o.type.tensor_type.shape.dim[0].dim_param for o in fused.graph.output]
    assert batches == ["n"] * 4
    properties = {entry.key: entry.value for entry in fused.metadata_props}
    assert properties["trueprob.calibrator_id"] == calibrator.id
    assert properties["trueprob.version"]
    x = np.random.default_rng(0).normal(size=(9, 4))
    dtype = helper.tensor_dtype_to_np_dtype(element)
    got = answers(content, {"x": x.astype(dtype)})
    assert list(got) == ["probabilities", "prediction", "temperature", "logits"]
    assert got["logits"].dtype == dtype
    check(calibrator, got["logits"].astype(np.float32), got)


def test_a_network_in_half_precision_keeps_its_logits():
    base = classifier(element=TensorProto.FLOAT16)
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.01)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float16)
    got = answers(fused_onnx(base.SerializeToString(), calibrator), {"x": x})
    assert got["logits"].dtype == np.float16
    # onnxruntime computes halves in float32 on CPUs, and calibrates before they are rounded.
    expected = calibrator.predict_proba(got["logits"])
    assert got["probabilities"] == pytest.approx(expected, abs=1e-3)


def test_the_same_export_has_the_same_bytes():
    calibrator = IdentityCalibrator(10)
    first = fused_onnx(MODEL / "model.onnx", calibrator)
    assert fused_onnx(MODEL / "model.onnx", calibrator) == first
    assert head_onnx(calibrator) == head_onnx(calibrator)


def test_further_outputs_are_kept_and_one_of_them_may_be_the_logits():
    base = classifier(more=[helper.make_node("Neg", ["scores"], ["opposite"])])
    calibrator = IdentityCalibrator(3)
    x = np.eye(4, dtype=np.float32)
    with pytest.raises(InvalidInput, match="an output named logits, got scores, opposite"):
        fused_onnx(base.SerializeToString(), calibrator)
    got = answers(fused_onnx(base.SerializeToString(), calibrator, output="opposite"), {"x": x})
    assert list(got) == ["probabilities", "prediction", "temperature", "logits", "scores"]
    assert np.array_equal(got["logits"], -got["scores"])
    check(calibrator, got["logits"], got)


def test_an_output_that_has_one_of_our_names_makes_room():
    base = classifier(name="probabilities").SerializeToString()
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.01)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    got = answers(fused_onnx(base, calibrator), {"x": x})
    assert np.array_equal(got["logits"], answers(base, {"x": x})["probabilities"])
    check(calibrator, got["logits"], got)


def test_probabilities_have_their_logarithm_taken():
    softmax = [helper.make_node("Softmax", ["scores"], ["likelihood"], axis=1)]
    base = classifier(more=softmax)
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.01)
    x = np.concatenate([np.eye(4), 90 * np.eye(4)]).astype(np.float32)
    content = fused_onnx(
        base.SerializeToString(), calibrator, output="likelihood", numbers="probabilities"
    )
    got = answers(content, {"x": x})
    plain = answers(base.SerializeToString(), {"x": x})["likelihood"]
    logits = logits_from_probabilities(plain)
    assert got["logits"] == pytest.approx(logits, rel=1e-6)
    check(calibrator, logits, got)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (b"no protobuf", "must be an ONNX file"),
        (b"", "is not valid ONNX"),
        (classifier(opset=12).SerializeToString(), "opset 13 or later, got 12"),
        (classifier(shape=("n", 7)).SerializeToString(), r"shape \(batch, 3\), got \(n, 7\)"),
        (classifier(shape=("n", 3, 1)).SerializeToString(), r"got \(n, 3, 1\)"),
        (
            classifier(name="logits", more=[NEGATIVE]).SerializeToString(),
            "a value named prediction already",
        ),
        (
            classifier(element=TensorProto.INT64).SerializeToString(),
            "scores must be floating-point numbers",
        ),
    ],
)
def test_a_model_that_cannot_be_used_is_refused_with_a_sentence(model, message):
    with pytest.raises(InvalidInput, match=message):
        fused_onnx(model, IdentityCalibrator(3))


def test_a_kind_that_is_not_known_is_refused_with_a_sentence():
    other = type("Other", (IdentityCalibrator,), {"kind": "other"})(3)
    message = "other cannot be expressed in ONNX, expected one of identity"
    with pytest.raises(InvalidInput, match=message):
        head_onnx(other)
    with pytest.raises(InvalidInput, match=message):
        fused_onnx("no such file", other)


def test_a_calibrator_is_not_put_behind_a_calibrator():
    once = fused_onnx(classifier(name="logits").SerializeToString(), IdentityCalibrator(3))
    with pytest.raises(InvalidInput, match="calibrator already: export from"):
        fused_onnx(once, IdentityCalibrator(3))
