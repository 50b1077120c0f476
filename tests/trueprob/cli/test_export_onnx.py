import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from trueprob import dumps_calibrator
from trueprob.calibrators import TemperatureCalibrator
from trueprob.cli.__main__ import main

MODEL = Path(__file__).parents[3] / "models" / "digits" / "1"


def fails(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("trueprob: error: ")
    assert output.err.count("\n") == 1
    return output.err


@pytest.fixture
def calibrator(tmp_path):
    path = tmp_path / "calibrator.json"
    path.write_bytes(dumps_calibrator(TemperatureCalibrator(3, 2.0)))
    return path


def test_a_model_of_the_repository_is_exported(tmp_path, capsys):
    target = tmp_path / "calibrated.onnx"
    arguments = ["export-onnx", MODEL / "model.onnx", MODEL / "calibrator.json", "-o", target]
    assert main([*map(str, arguments), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == ["model", "calibrator", "k", "bytes"]
    assert answer["bytes"] == target.stat().st_size
    outputs = [output.name for output in onnx.load(target).graph.output]
    assert outputs == ["probabilities", "prediction", "temperature", "logits"]
    assert main([*map(str, arguments)]) == 0
    assert "10 classes" in capsys.readouterr().out


def test_a_calibrator_alone_takes_logits(tmp_path, calibrator, capsys):
    target = tmp_path / "head.onnx"
    assert main(["export-onnx", "--logits-only", str(calibrator), "-o", str(target)]) == 0
    graph = onnx.load(target).graph
    assert [value.name for value in graph.input] == ["logits"]
    assert [value.name for value in graph.output] == ["probabilities", "prediction", "temperature"]


def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, calibrator, capsys):
    target = tmp_path / "calibrated.onnx"
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(np.arange(99).tobytes())
    start = ("export-onnx", MODEL / "model.onnx", calibrator, "-o", target)
    assert "shape (batch, 3), got (batch, 10)" in fails(capsys, *start)
    assert "needs either model.onnx or --logits-only" in fails(capsys, *start, "--logits-only")
    assert "got neither" in fails(capsys, "export-onnx", calibrator, "-o", target)
    assert "no such file" in fails(
        capsys, "export-onnx", tmp_path / "no.onnx", calibrator, "-o", target
    )
    assert "ONNX" in fails(capsys, "export-onnx", junk, calibrator, "-o", target)
    assert "an output named scores, got logits" in fails(capsys, *start, "--model-output", "scores")
    assert not target.exists()


def test_class_names_are_written_and_compared(tmp_path, capsys):
    model = tmp_path / "named.onnx"
    named = onnx.load(MODEL / "model.onnx")
    entry = named.metadata_props.add()
    entry.key, entry.value = "class_names", ",".join("abcdefghij")
    onnx.save(named, model)
    target, calibrator = tmp_path / "out.onnx", tmp_path / "c.json"
    for names in ("abcdefghij", "bacdefghij"):
        calibrator.write_bytes(
            dumps_calibrator(TemperatureCalibrator(10, 2.0).with_class_names(list(names)))
        )
        arguments = ["export-onnx", model, calibrator, "-o", target]
        if names == "abcdefghij":
            assert main([*map(str, arguments)]) == 0
            capsys.readouterr()
        else:
            message = fails(capsys, *arguments)
            assert "must be b, a, c, d, e, f, g, h, i, j, got a, b, c, d" in message
    metadata = {entry.key: entry.value for entry in onnx.load(target).metadata_props}
    assert json.loads(metadata["class_names"]) == list("abcdefghij")
