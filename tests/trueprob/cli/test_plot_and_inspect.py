import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trueprob import IdentityCalibrator, Manifest, ModelRepository, dumps_calibrator
from trueprob.calibrators.input_stage import InputStage, ZeroCells
from trueprob.cli.__main__ import main

DIGITS = Path(__file__).parents[3] / "models" / "digits" / "1"


@pytest.fixture
def files(tmp_path, overconfident):
    logits, labels = overconfident(300)
    np.savez(tmp_path / "cal.npz", logits=logits[:150], labels=labels[:150])
    np.savez(tmp_path / "test.npz", logits=logits[150:], labels=labels[150:])
    assert main(["fit", str(tmp_path / "cal.npz"), "-o", str(tmp_path / "c.json"), "--json"]) == 0
    return tmp_path


@pytest.fixture
def digits(tmp_path):
    copy = tmp_path / "models" / "digits" / "1"
    shutil.copytree(DIGITS, copy)
    return copy


def fails(capsys, *arguments):
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("trueprob: error: ")
    assert output.err.count("\n") == 1
    return output.err


def test_plot_draws_before_and_after_with_the_scores_of_evaluate(files, capsys):
    test, calibrator = str(files / "test.npz"), str(files / "c.json")
    target = files / "d.svg"
    capsys.readouterr()
    assert main(["plot", test, "--calibrator", calibrator, "-o", str(target), "--json"]) == 0
    plotted = json.loads(capsys.readouterr().out)
    assert main(["evaluate", test, "--calibrator", calibrator, "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated.pop("findings") == []
    assert plotted == {"diagram": str(target), **evaluated}
    text = target.read_text("utf-8")
    ET.fromstring(text)
    assert "test.npz" in text
    assert f"{100 * evaluated['calibrated']['ece']:.2f} %" in text


def test_plot_without_a_calibrator_and_for_people(files, capsys):
    capsys.readouterr()
    arguments = ["plot", str(files / "test.npz"), "--title", "Mine", "-o", str(files / "d.png")]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("uncalibrated: ECE ")
    assert lines[-1] == f"150 rows, 5 classes, written to {files / 'd.png'}"
    assert (files / "d.png").read_bytes().startswith(b"\x89PNG")


def test_plot_refuses_in_one_line_and_writes_nothing(files, capsys):
    before = sorted(files.iterdir())
    message = fails(capsys, "plot", files / "test.npz", "-o", files / "d.pdf")
    assert "must end in .svg or .png" in message
    assert "required" in fails(capsys, "plot", files / "test.npz")
    assert "cannot be read" in fails(capsys, "plot", files / "none.npz", "-o", files / "d.svg")
    assert sorted(files.iterdir()) == before


def test_inspect_shows_the_demo_model(digits, capsys):
    assert main(["inspect", str(digits), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    manifest = json.loads((DIGITS / "manifest.json").read_text())
    calibrator = json.loads((DIGITS / "calibrator.json").read_text())
    assert (shown["name"], shown["version"], shown["n_classes"]) == ("digits", 1, 10)
    assert shown["digests"] == {"verified": True, "reason": None}
    assert shown["scores"] == manifest["scores"]
    assert shown["calibrator"]["id"] == calibrator["id"]
    assert shown["calibrator"]["fitted_on"] == calibrator["fitted_on"]
    sizes = {file["name"]: file["bytes"] for file in shown["files"]}
    assert sizes == {path.name: path.stat().st_size for path in DIGITS.iterdir()}
    gaps = [row["gap"] for row in shown["calibrator"]["temperatures"]]
    assert gaps == sorted(gaps)
    assert len(gaps) == 5
    # At a gap within the first interval the temperature is exp(−θ₁).
    first = np.exp(-calibrator["parameters"]["log_slopes"][0])
    assert shown["calibrator"]["temperatures"][0]["temperature"] == pytest.approx(first, rel=1e-6)
    assert shown["baseline"]["n"] == calibrator["fitted_on"]["n"]


def test_inspect_for_people_says_what_matters(digits, capsys):
    assert main(["inspect", str(digits)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("digits/1: 10 classes (0, 1, 2")
    assert "digests     verified" in text
    assert "model.onnx, 236,218 bytes, sha256:" in text
    assert "manifest.json" in text
    assert "nats the temperature is" in text
    assert "scores      test: calibrated: accuracy" in text


def test_a_changed_file_is_the_answer_no(digits, capsys):
    (digits / "calibrator.json").write_bytes(b"{}")
    assert main(["inspect", str(digits), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["digests"]["verified"] is False
    assert "calibrator.json of digits/1 does not match" in shown["digests"]["reason"]
    assert shown["calibrator"] is None
    (digits / "model.onnx").unlink()
    assert main(["inspect", str(digits)]) == 1
    text = capsys.readouterr().out
    assert "NOT verified" in text
    assert "model.onnx, missing" in text


def test_inspect_of_a_model_without_network_and_baseline(tmp_path, capsys):
    manifest = Manifest("mine", 3, 12, tuple(map(str, range(12))))
    calibrator = dumps_calibrator(IdentityCalibrator(12))
    ModelRepository(tmp_path).add(manifest, {"calibrator.json": calibrator})
    assert main(["inspect", str(tmp_path / "mine" / "3")]) == 0
    text = capsys.readouterr().out
    assert "12 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …)" in text
    assert "input       logits only" in text
    assert "at a gap of 8.00 nats the temperature is 1.000" in text
    assert "baseline" not in text


def test_inspect_says_what_was_learnt_about_zeros(tmp_path, capsys):
    zeros = ZeroCells((0.0125, 0.08), (0.5, 0.3, 0.2))
    calibrator = replace(IdentityCalibrator(3), input_stage=InputStage(zeros, 43.7512))
    manifest = Manifest("mine", 1, 3, ("a", "b", "c"))
    ModelRepository(tmp_path).add(manifest, {"calibrator.json": dumps_calibrator(calibrator)})
    assert main(["inspect", str(tmp_path / "mine" / "1")]) == 0
    text = capsys.readouterr().out
    assert "share 1.2 %, 8 % of a row with 1, 2 or more other classes" in text
    assert "scores more than 43.75 nats below the top of a row are cut" in text
    assert main(["inspect", str(tmp_path / "mine" / "1"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["calibrator"]["input_stage"]
    assert shown == calibrator.input_stage.parameters()


def test_inspect_refuses_in_one_line(digits, capsys):
    assert "is not in the repository" in fails(capsys, "inspect", digits.parent / "2")
    assert "must end in NAME/VERSION" in fails(capsys, "inspect", digits.parent)
    (digits / "manifest.json").write_text("[]")
    assert "manifest" in fails(capsys, "inspect", digits)
