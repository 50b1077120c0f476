"""Graphs in fp16 and int8 and with the calibrator inside: close to the original, or refused."""

import dataclasses
import functools
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from trueprob.calibrators import TemperatureCalibrator
from trueprob.repository.model_repository import ModelRepository
from trueprob_trainer.__main__ import main
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import Split
from trueprob_trainer.errors import ParityError, PrecisionLoss
from trueprob_trainer.export.graph import onnx_logits, onnx_outputs
from trueprob_trainer.export.registration import register
from trueprob_trainer.export.variants import (
    ExportFiles,
    check_loss,
    compare_precisions,
    export_files,
    fuse,
)
from trueprob_trainer.training.finished_run import Training
from trueprob_trainer.training.loop import train_with

pytestmark = pytest.mark.slow


@functools.cache
def trained() -> Training:
    return train_with(TrainConfig(data="digits", epochs=6))


@functools.cache
def made() -> ExportFiles:
    return export_files(trained(), ["fp16", "int8"], calibrated=True)


def test_smaller_graphs_answer_nearly_the_same() -> None:
    images, _ = trained().data.of(Split.TEST)
    whole = onnx_logits(made().files["model.onnx"], images)
    size = len(made().files["model.onnx"])
    for name, share, tolerance in (("fp16", 0.6, 0.05), ("int8", 0.4, 1.5)):
        content = made().files[f"model.{name}.onnx"]
        assert len(content) < share * size
        logits = onnx_logits(content, images)
        assert 0 < np.abs(logits - whole).max() < tolerance
        assert np.mean(logits.argmax(axis=1) == whole.argmax(axis=1)) > 0.97
        stated = made().document["test"][name]
        hits = np.mean(logits.argmax(axis=1) == trained().data.of(Split.TEST)[1])
        assert stated["accuracy"] == pytest.approx(hits, abs=1e-6)
        assert {"ece", "ece_floor", "nll", "bytes"} <= set(stated)
        assert f"| {name} | {len(content)} |" in made().table


def test_the_fused_graph_gives_calibrated_probabilities() -> None:
    images, _ = trained().data.of(Split.TEST)
    fused = made().files["model.calibrated.onnx"]
    probabilities, logits = onnx_outputs(fused, images, ["probabilities", "logits"])
    np.testing.assert_allclose(logits, onnx_logits(made().files["model.onnx"], images), atol=1e-4)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(len(images)), abs=1e-5)
    assert np.array_equal(probabilities.argmax(axis=1), logits.argmax(axis=1))


class Mistaken(TemperatureCalibrator):
    """Predicts with another temperature than it exports."""

    def predict_proba(self, logits: np.ndarray) -> np.ndarray:  # type: ignore[override]
        return super().predict_proba(np.asarray(logits) / 2)


def test_a_fused_graph_that_differs_from_its_calibrator_is_refused() -> None:
    images, _ = trained().data.of(Split.CALIBRATION)
    right = TemperatureCalibrator(n_classes=10, value=1.5)
    assert fuse(made().files["model.onnx"], right, images)
    with pytest.raises(ParityError, match="at most 1e-05 is allowed"):
        fuse(made().files["model.onnx"], Mistaken(n_classes=10, value=1.5), images)


def test_a_graph_that_is_too_often_wrong_is_refused() -> None:
    images, labels = trained().data.of(Split.CALIBRATION)
    both = {name: made().files["model.onnx"] for name in ("fp32", "int8")}
    compared = compare_precisions(both, images, labels)
    check_loss(compared)
    scores = dataclasses.replace(compared[1].scores, accuracy=compared[0].scores.accuracy - 0.011)
    with pytest.raises(
        PrecisionLoss, match=r"int8 is right on .* at most 1 points less are allowed"
    ):
        check_loss([compared[0], dataclasses.replace(compared[1], scores=scores)])


def test_a_registered_version_in_int8_is_scored_as_it_will_run(tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    register(trained(), "tiny", tmp_path, created_at=now, precision="int8")
    version = ModelRepository(tmp_path).get("tiny", 1)
    version.verify()
    assert version.manifest.training["precision"] == "int8"
    images, labels = trained().data.of(Split.TEST)
    logits = onnx_logits((version.path / "model.onnx").read_bytes(), images)
    stated = version.manifest.scores["test"]["uncalibrated"]["accuracy"]
    assert stated == pytest.approx(np.mean(logits.argmax(axis=1) == labels), abs=1e-12)
    assert "converted to int8" in (version.path / "MODEL_CARD.md").read_text()


def test_the_command_writes_all_graphs_or_says_no(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    assert main(["train", "--data", "digits", "--epochs", "3", "--run", run]) == 0
    assert main(["export", "--run", run, "--fp16", "--calibrated"]) == 0
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"model.onnx", "model.fp16.onnx", "model.calibrated.onnx", "export.json"} <= names
    document = json.loads((tmp_path / "run" / "export.json").read_text())
    assert document["largest_difference"] < 1e-4
    assert "| fp16 |" in capsys.readouterr().out
