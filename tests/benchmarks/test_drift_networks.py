"""Shifts of our own networks, and classes made common."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.calibration.sets import of_arrays
from benchmarks.drift.networks import cifar10_cases, newest
from benchmarks.drift.shift_cases import hard_classes
from tests.trueprob_service.register.networks import network
from trueprob_service.register.command import main as register


def jpegs(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    files = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG")
        files.append(np.frombuffer(buffer.getvalue(), np.uint8))
    return np.concatenate(files), np.cumsum([0, *map(len, files)])


def test_corrupted_pictures_go_through_the_registered_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    data, models = tmp_path / "data", tmp_path / "models"
    models.mkdir()
    assert list(cifar10_cases(data, models, small=True)) == []
    assert "no model cifar10" in capsys.readouterr().err

    images = generator.integers(0, 256, (80, 32, 32, 3), np.uint8)
    labels = generator.integers(0, 3, 80)
    rows = tmp_path / "rows.npz"
    np.savez(rows, images=images, labels=labels)
    graph = network(tmp_path / "net.onnx", shape=("n", 32, 32, 3), dtype="uint8", n_classes=3)
    # The labels are drawn at random, so that the set is held.
    flags = ["--name", "cifar10", "--calibration", str(rows), "--models", str(models), "--force"]
    assert register([str(graph), *flags], {}) == 0
    assert list(cifar10_cases(data, models, small=True)) == []
    assert "cifar10_jpeg.npz" in capsys.readouterr().err

    (data / "images").mkdir(parents=True)
    train, places = jpegs(images[:40])
    test, test_places = jpegs(images[40:])
    np.savez(
        data / "images/cifar10_jpeg.npz",
        train_jpeg=train, train_offsets=places, train_labels=labels[:40],
        test_jpeg=test, test_offsets=test_places, test_labels=labels[40:],
    )  # fmt: skip
    cases = list(cifar10_cases(data, models, small=True))
    assert [case.name.partition(": ")[2] for case in cases] == [
        "none", "gaussian-noise 3", "contrast 3",
    ]  # fmt: skip
    assert all(case.calm.gap.shape == case.shifted.gap.shape == (40,) for case in cases)
    assert not np.array_equal(cases[2].calm.gap, cases[2].shifted.gap)
    version = newest(models, "cifar10")
    assert version is not None
    assert version.version == 1


def test_hard_classes_become_common_and_lower_the_accuracy() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, 4_000)
    logits = generator.normal(size=(4_000, 4))
    logits[np.arange(4_000), labels] += np.array([0.0, 1.0, 2.0, 4.0])[labels]
    data = of_arrays("made", logits[:2_000], labels[:2_000], logits[2_000:], labels[2_000:])
    shifted = hard_classes(data)
    assert shifted.test_labels.shape == data.test_labels.shape
    counts = np.bincount(shifted.test_labels, minlength=4)
    assert counts[0] > counts[1] > counts[2] > counts[3]
    assert counts[0] / counts[3] == pytest.approx(10.0, rel=0.4)

    def accuracy(rows) -> float:
        return float((rows.test_logits.argmax(axis=1) == rows.test_labels).mean())

    assert accuracy(shifted) < accuracy(data) - 0.1
    assert np.array_equal(shifted.val_labels, data.val_labels)
