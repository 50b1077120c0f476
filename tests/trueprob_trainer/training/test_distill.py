"""Distillation: a student learns the probabilities of its teacher, not only the labels."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from trueprob.arrays.logit_functions import softmax
from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import Split
from trueprob_trainer.errors import BadInput
from trueprob_trainer.networks.classifier import predict_logits
from trueprob_trainer.training.loop import train_with
from trueprob_trainer.training.run_folder import RunFolder
from trueprob_trainer.training.teacher import Teacher

pytestmark = pytest.mark.slow

SHORT = TrainConfig(data="digits", epochs=5, batch_size=64, optimiser="sgd")


def divergence(teacher: np.ndarray, student: np.ndarray) -> float:
    p, q = softmax(teacher).astype(float), softmax(student).astype(float)
    return float(np.mean(np.sum(p * np.log((p + 1e-12) / (q + 1e-12)), axis=1)))


def test_a_student_comes_closer_to_its_teacher_than_another_network_does(tmp_path: Path) -> None:
    noisy = dataclasses.replace(SHORT, label_noise=0.3, seed=7)
    runs = [RunFolder.create(tmp_path / name, noisy) for name in ("a", "b")]
    teacher = train_with(noisy, run=runs[0])
    train_with(dataclasses.replace(noisy, seed=8), run=runs[1])
    images, _ = teacher.data.of(Split.TEST)
    answers = predict_logits(teacher.model, images)
    student_recipe = dataclasses.replace(SHORT, teacher=str(runs[0].path), distill_alpha=1.0)
    student = predict_logits(train_with(student_recipe).model, images)
    alone = predict_logits(train_with(SHORT).model, images)
    assert divergence(answers, student) < 0.5 * divergence(answers, alone)
    both = ",".join(str(run.path) for run in runs)
    mean = Teacher.of(both, 2.0, torch.device("cpu"), teacher.data.class_names)
    logits = [model(torch.from_numpy(images[:5])) for model in mean.models]
    expected = (torch.softmax(logits[0] / 2, 1) + torch.softmax(logits[1] / 2, 1)) / 2
    assert torch.allclose(mean.probabilities(torch.from_numpy(images[:5])), expected, atol=1e-6)
    with pytest.raises(BadInput, match="was trained on other classes"):
        Teacher.of(str(runs[0].path), 2.0, torch.device("cpu"), ("cat", "dog"))
