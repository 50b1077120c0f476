"""A network and its calibrator as one graph; test_kinds compares all kinds of calibrators."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

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
    with pytest.raises(InvalidInput, match="must say what output probabilities holds"):
        fused_onnx(base, calibrator)
    got = answers(fused_onnx(base, calibrator, numbers="logits"), {"x": x})
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


def test_inner_values_that_have_one_of_our_names_make_room():
    inner = [
        helper.make_node("Identity", ["scores"], ["prediction"]),
        helper.make_node("Identity", ["prediction"], ["opposite"]),
    ]
    base = classifier(more=inner)
    kept = [output for output in base.graph.output if output.name == "opposite"]
    del base.graph.output[:]
    base.graph.output.extend(kept)
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.01)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    got = answers(fused_onnx(base.SerializeToString(), calibrator), {"x": x})
    assert np.array_equal(got["logits"], answers(base.SerializeToString(), {"x": x})["opposite"])
    check(calibrator, got["logits"], got)


def test_an_old_opset_is_converted():
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.01)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    # Softmax of opset 12 takes its axis from a flattened matrix, later ones from the tensor.
    softmax = [helper.make_node("Softmax", ["scores"], ["likelihood"])]
    base = classifier(opset=11, more=softmax)
    base.ir_version = 4
    content = fused_onnx(base.SerializeToString(), calibrator, output="likelihood")
    assert onnx.load_model_from_string(content).opset_import[0].version == 13
    got = answers(content, {"x": x})
    plain = answers(base.SerializeToString(), {"x": x})["likelihood"]
    check(calibrator, logits_from_probabilities(plain), got)


def test_an_opset_that_cannot_be_converted_is_refused():
    # No converter goes back before opset 7 for this operator.
    node = helper.make_node("Upsample", ["scores"], ["wide"], width_scale=1.0, height_scale=1.0)
    base = classifier(opset=1, more=[node])
    with pytest.raises(InvalidInput, match=r"opset 13 or later, got 1, and cannot be converted"):
        fused_onnx(base.SerializeToString(), IdentityCalibrator(3), output="scores")


def test_a_graph_of_trees_alone_gets_a_default_domain():
    nodes = [
        helper.make_node(
            "LinearClassifier", ["x"], ["label", "likelihood"], domain="ai.onnx.ml",
            coefficients=np.arange(12, dtype=np.float32) / 7, intercepts=[0.0, 0.1, 0.2],
            classlabels_ints=[0, 1, 2], post_transform="SOFTMAX",
        )
    ]  # fmt: skip
    base = of_nodes(nodes, ["label"], [helper.make_tensor_value_info("likelihood", 1, ["n", 3])])
    assert [each.domain for each in base.opset_import] == ["ai.onnx.ml"]
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.01)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    got = answers(fused_onnx(base.SerializeToString(), calibrator), {"x": x})
    plain = answers(base.SerializeToString(), {"x": x})
    assert list(got) == ["probabilities", "prediction", "temperature", "logits", "label"]
    check(calibrator, logits_from_probabilities(plain["likelihood"]), got)


def of_nodes(nodes, labels, outputs, k=3):
    integers = [helper.make_tensor_value_info(name, TensorProto.INT64, ["n"]) for name in labels]
    graph = helper.make_graph(
        nodes, "hand", [helper.make_tensor_value_info("x", 1, ["n", 4])], [*integers, *outputs]
    )
    domains = {node.domain for node in nodes}
    versions = {"ai.onnx.ml": 3, "": 17}
    imports = [helper.make_opsetid(domain, versions[domain]) for domain in sorted(domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


@pytest.mark.parametrize(
    ("operator", "attributes", "numbers"),
    [
        ("Softmax", {"axis": 1}, "probabilities"),
        ("LogSoftmax", {"axis": 1}, "log_probabilities"),
        ("Tanh", {}, "logits"),
    ],
)
def test_the_operator_says_what_the_scores_are(operator, attributes, numbers):
    inner = [
        helper.make_node(operator, ["scores"], ["inner"], **attributes),
        helper.make_node("Identity", ["inner"], ["given"]),
    ]
    base = classifier(more=inner)
    base.graph.output.pop(1)
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.01)
    content = base.SerializeToString()
    assert fused_onnx(content, calibrator, output="given") == fused_onnx(
        content, calibrator, output="given", numbers=numbers
    )
    if numbers == "probabilities":
        with pytest.raises(InvalidInput, match="must be probabilities: that is what the graph"):
            fused_onnx(content, calibrator, output="given", numbers="logits")


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16])
@pytest.mark.parametrize("sigmoid", [False, True])
def test_one_score_of_class_1_becomes_two_columns(rank, element, sigmoid):
    more = [helper.make_node("Sigmoid", ["z"], ["score"])] if sigmoid else []
    base = classifier(name="z", shape=("n", 1), element=element, more=more)
    if rank == 1:
        base.graph.node.append(
            helper.make_node("Reshape", [base.graph.output[-1].name, "flat"], ["one"])
        )
        base.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "flat"))
        base.graph.output.append(helper.make_tensor_value_info("one", element, ["n"]))
    last = base.graph.output[-1]
    del base.graph.output[:]
    base.graph.output.append(last)
    x = np.random.default_rng(0).normal(size=(9, 4))
    x = (2 * x).astype(helper.tensor_dtype_to_np_dtype(element))
    (score,) = answers(base.SerializeToString(), {"x": x}).values()
    score = score.reshape(-1).astype(np.float64)
    logits = np.log(score) - np.log1p(-score) if sigmoid else score
    calibrator = fit_kind(
        BINARY, np.stack([np.zeros(200), 3 * np.sin(np.arange(200))], 1), np.arange(200) % 3 // 2
    )
    got = answers(fused_onnx(base.SerializeToString(), calibrator), {"x": x})
    assert got["probabilities"].shape == got["logits"].shape == (9, 2)
    loose = 2e-3 if element == TensorProto.FLOAT16 else 1e-5
    assert got["probabilities"] == pytest.approx(calibrator.predict_proba(logits), abs=loose)


def test_zipmap_gives_way_to_the_tensor_of_calibrated_probabilities():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["tensor"], axis=1),
        helper.make_node(
            "ZipMap", ["tensor"], ["probabilities"], domain="ai.onnx.ml",
            classlabels_strings=["cat", "dog", "eel"],
        ),
    ]  # fmt: skip
    listed = helper.make_sequence_type_proto(
        helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(1, []))
    )
    base = of_nodes(nodes, [], [helper.make_value_info("probabilities", listed)])
    weights = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
    base.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.01)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    content = fused_onnx(base.SerializeToString(), calibrator)
    properties = onnx.load_model_from_string(content).metadata_props
    assert {each.key: each.value for each in properties}["class_names"] == '["cat", "dog", "eel"]'
    got = answers(content, {"x": x})
    said = answers(base.SerializeToString(), {"x": x})["probabilities"]
    plain = np.array([[row[name] for name in ("cat", "dog", "eel")] for row in said])
    check(calibrator, logits_from_probabilities(plain), got)


def test_one_output_for_each_class_becomes_one_matrix():
    more = [helper.make_node("Softmax", ["scores"], ["matrix"], axis=1)]
    base = classifier(more=more)
    parts = [f"class {index}" for index in range(3)]
    base.graph.node.append(
        helper.make_node("Split", ["matrix"], [f"{p} column" for p in parts], axis=1)
    )
    base.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "flat"))
    del base.graph.output[:]
    for part in parts:
        base.graph.node.append(helper.make_node("Reshape", [f"{part} column", "flat"], [part]))
        base.graph.output.append(helper.make_tensor_value_info(part, 1, ["n"]))
    calibrator = SmartCalibrator(3, (0.5, 2.0), (0.1, -0.5, 0.3), 0.01)
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    with pytest.raises(InvalidInput, match="numbers"):
        fused_onnx(base.SerializeToString(), calibrator, numbers="scores")
    got = answers(
        fused_onnx(base.SerializeToString(), calibrator, numbers="probabilities"), {"x": x}
    )
    assert list(got) == ["probabilities", "prediction", "temperature", "logits"]
    plain = np.stack(list(answers(base.SerializeToString(), {"x": x}).values()), axis=1)
    check(calibrator, logits_from_probabilities(plain), got)
