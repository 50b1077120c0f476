"""Registered versions: complete, verified, with the measured scores."""

import dataclasses
import functools
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from trueprob.errors import TrueprobError
from trueprob.repository.model_repository import ModelRepository
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import Split
from trueprob_trainer.errors import ParityError
from trueprob_trainer.export.graph import onnx_logits
from trueprob_trainer.export.registration import FACTORY_CALIBRATORS, Registration, register
from trueprob_trainer.training.finished_run import Training
from trueprob_trainer.training.loop import train_with

pytestmark = pytest.mark.slow

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@functools.cache
def trained() -> Training:
    return train_with(TrainConfig(epochs=4))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with version 1 of `tiny`."""
    return tmp_path_factory.mktemp("registered") / "models"


@pytest.fixture(scope="module")
def registered(models: Path) -> Registration:
    return register(trained(), "tiny", models, created_at=NOW)


@pytest.mark.parametrize("calibrator", FACTORY_CALIBRATORS)
def test_a_registered_version_verifies_and_reads_back(tmp_path: Path, calibrator: str) -> None:
    register(trained(), "tiny", tmp_path, created_at=NOW, calibrator=calibrator)
    version = ModelRepository(tmp_path).get("tiny", 1)
    version.verify()
    assert sorted(version.manifest.files) == [
        "MODEL_CARD.md",
        "baseline.npz",
        "calibrator.json",
        "model.onnx",
    ]
    assert version.calibrator().kind == calibrator
    assert version.calibrator().class_names == version.manifest.class_names
    document = json.loads((version.path / "calibrator.json").read_text())
    if calibrator == "identity":
        assert document["fitted_on"] is None
    else:
        assert document["fitted_on"]["n"] == len(trained().data.of(Split.CALIBRATION)[1])
        assert document["fitted_on"]["created_at"] == "2026-01-02T03:04:05+00:00"
    version.baseline()


def test_the_manifest_has_the_documented_form(registered: Registration) -> None:
    manifest = json.loads((registered.version.path / "manifest.json").read_text())
    assert manifest["input"] == {
        "name": "image",
        "dtype": "uint8",
        "shape": ["batch", 8, 8, 1],
        "layout": "NHWC",
        "preprocessing": {"mode": "L", "resize": [8, 8], "resample": "box"},
    }
    assert manifest["output"] == {"name": "logits"}
    assert manifest["class_names"] == [str(i) for i in range(10)]
    assert set(manifest["training"]) == {
        "dataset",
        "optimiser",
        "rho",
        "seed",
        "code_version",
        "config",
    }
    assert TrainConfig.from_dict(manifest["training"]["config"]) == trained().config
    test = manifest["scores"]["test"]
    assert test["n"] == len(trained().data.of(Split.TEST)[1])
    for state in ("uncalibrated", "temperature", "calibrated"):
        assert {"accuracy", "ece", "ece_floor", "nll", "brier", "auroc"} <= set(test[state])


def test_versions_count_up_and_none_changes(registered: Registration, models: Path) -> None:
    assert registered.version.path == models / "tiny" / "1"
    before = {p.name: p.read_bytes() for p in registered.version.path.iterdir()}
    assert register(trained(), "tiny", models, created_at=NOW).version.version == 2
    assert {p.name: p.read_bytes() for p in registered.version.path.iterdir()} == before


class DifferentWhenTraced(torch.nn.Module):
    """A network whose exported graph differs from it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(image)
        return logits + 1 if torch.compiler.is_compiling() else logits


def test_nothing_is_written_when_parity_fails(tmp_path: Path) -> None:
    training = dataclasses.replace(trained(), model=DifferentWhenTraced(trained().model))
    with pytest.raises(ParityError):
        register(training, "tiny", tmp_path / "models", created_at=NOW)
    assert not (tmp_path / "models").exists()


def test_an_impossible_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrueprobError, match="name"):
        register(trained(), "../elsewhere", tmp_path / "models", created_at=NOW)
    assert list(tmp_path.rglob("*")) == []


def test_the_card_states_data_figures_and_limits(registered: Registration) -> None:
    card = (registered.version.path / "MODEL_CARD.md").read_text()
    for heading in (
        "Data",
        "Training",
        "Scores",
        "Reliability",
        "Where the calibration error",
        "Limits",
    ):
        assert f"## {heading}" in card
    assert trained().data.description in card
    for scores in registered.evaluation.scores.values():
        assert f"{100 * scores.ece:.2f}" in card
    for panel in registered.evaluation.panels[::2]:  # uncalibrated and smart
        assert all(f"| {100 * b.accuracy:.1f} | {100 * b.band_low:.1f}" in card for b in panel.bins)


def test_the_card_names_the_options_that_were_on(tmp_path: Path) -> None:
    harder = TrainConfig(epochs=1, flip=True, label_smoothing=0.1, base="adamw", label_noise=0.2)
    training = train_with(dataclasses.replace(harder, learning_rate=0.001))
    registered = register(training, "tiny", tmp_path, created_at=NOW)
    card = (registered.version.path / "MODEL_CARD.md").read_text()
    for said in ("flip True", "label smoothing 0.1", "AdamW", "label noise 0.2", "on purpose"):
        assert said in card
    assert "no augmentation" not in card


def test_scores_are_those_of_the_registered_graph(registered: Registration) -> None:
    images, labels = trained().data.of(Split.TEST)
    logits = onnx_logits((registered.version.path / "model.onnx").read_bytes(), images)
    accuracy = float(np.mean(logits.argmax(axis=1) == labels))
    test = registered.version.manifest.scores["test"]
    assert test["uncalibrated"]["accuracy"] == pytest.approx(accuracy, abs=1e-12)
    assert test["calibrated"]["accuracy"] == pytest.approx(accuracy, abs=1e-12)
