"""Scores under shifts, attacks and corruptions; ensembles; files of the command."""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trueprob.arrays.logit_functions import softmax
from trueprob.scores.score import mean_entropy, score
from trueprob_trainer.__main__ import main
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import Split
from trueprob_trainer.errors import BadInput
from trueprob_trainer.evaluation.adversarial import fgsm, pgd
from trueprob_trainer.evaluation.conditions import (
    attacked,
    exponential_weights,
    measure,
    rows_to_test,
    shifted,
    thirds_by_frequency,
)
from trueprob_trainer.evaluation.network_scores import evaluate
from trueprob_trainer.evaluation.report import ensemble_logits, members, report
from trueprob_trainer.networks.classifier import predict_logits
from trueprob_trainer.training.finished_run import Training
from trueprob_trainer.training.loop import train_with
from trueprob_trainer.training.run_folder import RunFolder

CONFIG = TrainConfig(data="digits", epochs=8)


@functools.cache
def trained() -> Training:
    return train_with(CONFIG)


class Linear(nn.Module):
    """Logits (x·w, 0), for which the best attack is known."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([0.01, -0.02, 0.03, 0.0]))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        first = image.float().flatten(1) @ self.weights
        return torch.stack((first, torch.zeros_like(first)), dim=1)


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_attacks_of_a_linear_model_go_to_the_corner_of_the_ball(attack: object) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 2, 2, 1), dtype=np.uint8)
    labels = np.arange(30) % 2
    moved = attack(Linear(), images, labels, epsilon=7).astype(int)  # type: ignore[operator]
    direction = np.sign([0.01, -0.02, 0.03]) * np.where(labels == 0, -1, 1)[:, None]
    expected = np.clip(images.reshape(30, 4)[:, :3] + 7 * direction, 0, 255)
    assert np.array_equal(moved.reshape(30, 4)[:, :3], expected)
    assert np.abs(moved - images).max() <= 7


@pytest.mark.slow
def test_attacks_fool_the_network_within_their_bound_and_leave_it_alone() -> None:
    model = trained().model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = rows_to_test(trained().data, 100)
    accuracy = []
    for attack in (fgsm, pgd):
        moved = attack(model, images, labels, epsilon=24)
        assert np.abs(moved.astype(int) - images).max() <= 24
        accuracy.append(np.mean(predict_logits(model, moved).argmax(axis=1) == labels))
    clean = np.mean(predict_logits(model, images).argmax(axis=1) == labels)
    assert accuracy[0] < clean - 0.1
    assert accuracy[1] <= accuracy[0]
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())
    with pytest.raises(BadInput, match="epsilon must be 1 to 255"):
        fgsm(model, images, labels, epsilon=0)


def test_label_shift_weighs_as_rows_drawn_so_would() -> None:
    labels = np.repeat(np.arange(3), (50, 100, 200))
    weights = exponential_weights(labels, 3, 4.0)
    shares = np.bincount(labels, weights) / weights.sum()
    assert shares == pytest.approx(np.array([4, 2, 1]) / 7)
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(3), 350)
    drawn = rng.choice(350, 60_000, p=weights / weights.sum())
    weighted = score(probabilities, labels, weights=weights)
    assert weighted.accuracy == pytest.approx(
        score(probabilities[drawn], labels[drawn]).accuracy, abs=0.01
    )


def test_thirds_follow_the_train_rows() -> None:
    labels = np.repeat(np.arange(6), (5, 50, 40, 3, 60, 10))
    assert thirds_by_frequency(labels, 6).tolist() == [2, 0, 1, 2, 0, 1]


@pytest.mark.slow
def test_conditions_are_scored_by_the_clean_calibrators() -> None:
    training = trained()
    clean = report(training)
    splits = [training.data.of(split) for split in (Split.CALIBRATION, Split.TEST)]
    logits = [(predict_logits(training.model, images), labels) for images, labels in splits]
    evaluation = evaluate(*logits)
    measured = measure(
        functools.partial(predict_logits, training.model), evaluation, shifted(training.data)
    )
    assert len(measured) == 5
    labels = splits[1][1]
    weights = exponential_weights(labels, 10, 10.0)
    by_hand = evaluation.calibrators["smart"].predict_proba(logits[1][0])
    expected = score(by_hand, labels, weights=weights)
    assert measured["first classes common"]["smart"] == expected
    assert sum(measured[n]["smart"].n for n in measured if n.endswith("classes")) == len(labels)
    raw = softmax(logits[1][0])
    assert clean.document["uncalibrated"]["entropy"] == pytest.approx(mean_entropy(raw), abs=1e-6)
    assert list(clean.document) == ["uncalibrated", "temperature", "smart"]
    with pytest.raises(BadInput, match="attack must be one of fgsm, pgd, got cw"):
        list(attacked(training.data, training.model, ["cw"], 8))


@pytest.mark.slow
def test_an_ensemble_is_the_mean_of_its_members_probabilities(tmp_path: Path) -> None:
    other = dataclasses.replace(CONFIG, seed=1, epochs=2)
    run = RunFolder.create(tmp_path / "b", other)
    train_with(other, run=run)
    models = [trained().model, *members([run.path], trained().data)]
    images, labels = trained().data.of(Split.TEST)
    by_hand = softmax(predict_logits(models[0], images)) + softmax(
        predict_logits(models[1], images)
    )
    logits = ensemble_logits(models, images)
    np.testing.assert_allclose(softmax(logits), by_hand / 2, atol=1e-5)
    document = report(trained(), ensemble=[run.path], shifts=True).document
    assert document["ensemble"]["uncalibrated"]["nll"] == pytest.approx(
        score(by_hand / 2, labels).nll, abs=1e-4
    )
    assert set(document["ensemble"]["conditions"]) == set(document["conditions"])
    elsewhere = dataclasses.replace(other, split_seed=1)
    stranger = RunFolder.create(tmp_path / "c", elsewhere)
    train_with(elsewhere, run=stranger)
    with pytest.raises(BadInput, match="another split"):
        members([stranger.path], trained().data)


@pytest.mark.slow
def test_the_command_writes_tables_json_and_a_diagram(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder.create(tmp_path / "run", dataclasses.replace(CONFIG, epochs=2))
    train_with(run.config(), run=run)
    command = ["evaluate", "--run", str(run.path), "--attacks", "fgsm", "--rows", "60"]
    command += ["--corruptions", "contrast,fog", "--severities", "1,5", "--shifts"]
    assert main(command) == 0
    text = capsys.readouterr().out
    document = json.loads((run.path / "evaluation.json").read_text())
    names = list(document["conditions"])
    assert names[5:] == ["contrast 1", "contrast 5", "fog 1", "fog 5", "fgsm 8/255"]
    assert all(f"| {name} |" in text for name in names)
    assert document["conditions"]["fog 5"]["uncalibrated"]["n"] == 60
    assert (run.path / "reliability.svg").read_text().startswith("<svg")
    for wrong in (["--corruptions", "rain"], ["--severities", "6"], ["--attacks", "cw"]):
        with pytest.raises(SystemExit):
            main(["evaluate", "--run", str(run.path), *wrong])
        assert "got " in capsys.readouterr().err
