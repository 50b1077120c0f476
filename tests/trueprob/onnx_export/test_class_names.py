"""Class names in ONNX graphs: read from where converters put them, and written."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.trueprob.onnx_export.exported_graphs import classifier
from trueprob import InvalidInput
from trueprob.calibrators import TemperatureCalibrator
from trueprob.onnx_export import fused_onnx, head_onnx
from trueprob.onnx_export.class_names import class_names_of_graph

NAMES = ["cat", "dog", "bird"]
ML = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]


def tree_like(**labels):
    """A classifier of ai.onnx.ml, as converted scikit-learn models have."""
    nodes = [
        helper.make_node("LinearClassifier", ["x"], ["label", "raw"], domain="ai.onnx.ml",
                         coefficients=[0.5] * 12, intercepts=[0.0] * 3, **labels),
        helper.make_node("Normalizer", ["raw"], ["scores"], domain="ai.onnx.ml", norm="L1"),
    ]  # fmt: skip
    kind = TensorProto.STRING if "classlabels_strings" in labels else TensorProto.INT64
    outputs = [
        helper.make_tensor_value_info("label", kind, ["n"]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "tree", [x], outputs)
    return helper.make_model(graph, opset_imports=ML, ir_version=8)


def picking(classes, operator="ArrayFeatureExtractor"):
    """Scores, and labels picked from a constant by the argmax."""
    model = classifier()
    del model.opset_import[:]
    model.opset_import.extend(ML)
    domain = "ai.onnx.ml" if operator == "ArrayFeatureExtractor" else ""
    model.graph.node.extend([
        helper.make_node("ArgMax", ["scores"], ["top"], axis=1, keepdims=0),
        helper.make_node(operator, ["classes", "top"], ["picked"], domain=domain),
        helper.make_node("Identity", ["picked"], ["label"]),
    ])  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(classes, "classes"))
    kind = helper.np_dtype_to_tensor_dtype(classes.dtype)
    model.graph.output.append(helper.make_tensor_value_info("label", kind, ["n"]))
    return model


def with_metadata(model, value):
    entry = model.metadata_props.add()
    entry.key, entry.value = "class_names", value
    return model


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (tree_like(classlabels_strings=NAMES), NAMES),
        (tree_like(classlabels_ints=[30, -1, 2]), ["30", "-1", "2"]),
        (picking(np.array([30, -1, 2])), ["30", "-1", "2"]),
        (picking(np.array([5, 6, 7], dtype=np.int32)), ["5", "6", "7"]),
        (picking(np.array(NAMES, dtype=object)), NAMES),
        (picking(np.array(NAMES, dtype=object), "Gather"), NAMES),
        (picking(np.array([4, 4, 4, 4]), "Gather"), None),  # numbers, not said to be labels
        (with_metadata(classifier(), json.dumps(NAMES)), NAMES),
        (with_metadata(classifier(), "cat, dog, bird"), NAMES),
        # Places that do not contradict one another: indices stand for classes in their order.
        (with_metadata(tree_like(classlabels_ints=[0, 1, 2]), json.dumps(NAMES)), NAMES),
        (classifier(), None),
    ],
)
def test_the_names_of_a_graph_are_read(model, expected):
    names = class_names_of_graph(model.SerializeToString(), "scores", 3)
    assert names == (None if expected is None else tuple(expected))


@pytest.mark.parametrize("content", [b"", b"no ONNX at all", b"\x3a\x03\x0a\x01\x08", b"\xff" * 99])
def test_what_is_not_onnx_has_no_names(content):
    assert class_names_of_graph(content, "scores", 3) is None


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (tree_like(classlabels_strings=[*NAMES, "cow"]), r"names 4 classes \(cat, dog, bird, cow"),
        (picking(np.array([1, 2])), "names 2 classes .*its scores have 3 columns"),
        (with_metadata(classifier(), "cat,cat,dog"), "cat occurs twice"),
        (
            with_metadata(tree_like(classlabels_strings=["dog", "cat", "bird"]), "cat,dog,bird"),
            "must be cat, dog, bird, got dog, cat, bird: the same classes in another order",
        ),
    ],
)
def test_names_that_contradict_the_scores_or_one_another_are_refused(model, message):
    with pytest.raises(InvalidInput, match=message):
        class_names_of_graph(model.SerializeToString(), "scores", 3)
    with pytest.raises(InvalidInput, match=message):
        fused_onnx(model.SerializeToString(), TemperatureCalibrator(3, 2.0), output="scores")


def written(content):
    model = onnx.load_model_from_string(content)
    found = [entry.value for entry in model.metadata_props if entry.key == "class_names"]
    assert len(found) <= 1
    return json.loads(found[0]) if found else None


def test_names_survive_the_export_and_a_second_reading(tmp_path):
    plain = TemperatureCalibrator(3, 2.0)
    named = plain.with_class_names(NAMES)
    path = tmp_path / "m.onnx"
    for model in (classifier(), tree_like(classlabels_strings=NAMES), with_metadata(
        classifier(), json.dumps(NAMES)
    )):  # fmt: skip
        path.write_bytes(model.SerializeToString())
        content = fused_onnx(path, named, output="scores")
        assert written(content) == NAMES
        assert class_names_of_graph(content, "probabilities", 3) == tuple(NAMES)
    assert written(head_onnx(named)) == NAMES
    assert written(head_onnx(plain)) is None
    # A calibrator without names takes those of the graph.
    assert written(fused_onnx(path, plain)) == NAMES
    # Indices of the graph stand for the classes of the calibrator, in their order.
    indices = tree_like(classlabels_ints=[0, 1, 2]).SerializeToString()
    assert written(fused_onnx(indices, named, output="scores")) == NAMES


@pytest.mark.parametrize("names", [["dog", "cat", "bird"], ["cat", "dog", "cow"]])
def test_a_graph_of_other_classes_or_another_order_is_refused(names):
    content = tree_like(classlabels_strings=NAMES).SerializeToString()
    calibrator = TemperatureCalibrator(3, 2.0).with_class_names(names)
    with pytest.raises(InvalidInput, match=f"must be {', '.join(names)}, got cat, dog, bird"):
        fused_onnx(content, calibrator, output="scores")
