"""Runs an exported graph and compares it with the NumPy code."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.trueprob.every_kind import assert_prediction_is_above

TOLERANCE = 1e-6


def answers(content, feed):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def hard_rows(k, seed=0):
    """Scales from 1e-3 to 1e4, ties, gaps of 0, of 1e4, and of one unit in the last place."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(700, k)).astype(np.float32)
    rows *= np.logspace(-3, 4, 7, dtype=np.float32).repeat(100)[:, None]
    rows[::10] += np.float32(300.0)
    rows[0] = 0.0
    rows[1, 0] = 1e4
    rows[2] = 3e4
    rows[3, -1] = np.nextafter(rows[3].max(), np.float32(9))
    rows[4:20, 0] = rows[4:20, 1] = 5.0
    rows[20:40, -1] = np.nextafter(rows[20:40].max(axis=1), np.float32(np.inf))
    return rows


def check(calibrator, logits, got):
    """Every output is what the calibrator's method of that name gives."""
    expected = calibrator.predict_proba(logits)
    p, predicted = got["probabilities"], got["prediction"]
    assert (p.dtype, predicted.dtype, got["temperature"].dtype) == (
        np.float32, np.int64, np.float32,
    )  # fmt: skip
    assert np.abs(p.astype(np.float64) - expected).max() <= TOLERANCE
    assert np.array_equal(predicted, calibrator.prediction(logits))
    assert_prediction_is_above(p, predicted)
    temperature = calibrator.temperature(logits)
    assert got["temperature"].shape == predicted.shape
    if temperature is None:
        assert np.isnan(got["temperature"]).all()
    else:
        assert got["temperature"] == pytest.approx(temperature, rel=TOLERANCE)
    log_odds = calibrator.log_odds(logits)
    assert ("log_odds" in got) == (log_odds is not None)
    if log_odds is not None:
        assert got["log_odds"].dtype == np.float64
        assert np.array_equal(got["log_odds"], log_odds)


def classifier(*, opset=17, element=TensorProto.FLOAT, name="scores", shape=("n", 3), more=()):
    """x @ W, written by hand."""
    weights = np.arange(12).reshape(4, 3)[:, : shape[1]] / 7
    array = weights.astype(helper.tensor_dtype_to_np_dtype(element))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], [name]), *more],
        "hand",
        [helper.make_tensor_value_info("x", element, ["n", 4])],
        [helper.make_tensor_value_info(name, element, shape)],
        [numpy_helper.from_array(array, "w")],
    )
    for node in more:
        graph.output.append(helper.make_tensor_value_info(node.output[0], element, ["n", shape[1]]))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
