"""Versions of models on disk, for tests."""

from __future__ import annotations

from pathlib import Path

from tests.trueprob_service.control.harness import rows
from trueprob.calibrators import TemperatureCalibrator, dumps_calibrator
from trueprob.repository.baseline import Baseline
from trueprob.repository.manifest import InputSpec, Manifest
from trueprob.repository.model_repository import ModelRepository

__all__ = ["add_version"]


def add_version(
    root: Path,
    name: str = "blocks",
    version: int = 1,
    *,
    temperature: float = 1.0,
    class_names: tuple[str, ...] | None = None,  # of the calibrator
    classes: tuple[str, ...] = ("a", "b", "c"),  # of the version
) -> str:
    """A version on disk whose network is `BlockNetwork`; its factory calibrator's id."""
    manifest = Manifest(
        name=name,
        version=version,
        n_classes=3,
        class_names=classes,
        input=InputSpec(
            "image", "uint8", ("batch", 3, 2, 1), "NHWC", {"mode": "L", "resize": [3, 2]}
        ),
    )
    calibrator = TemperatureCalibrator(3, temperature, class_names=class_names)
    logits, labels = rows(40, 200)
    files = {
        "model.onnx": b"not a network",
        "calibrator.json": dumps_calibrator(calibrator),
        "baseline.npz": Baseline.of(calibrator, logits, labels).to_bytes(),
    }
    ModelRepository(root).add(manifest, files)
    return calibrator.id
