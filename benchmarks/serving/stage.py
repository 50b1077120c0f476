"""The folder that all servers read: models, calibrators and a key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from benchmarks.calibration.speed import realistic
from benchmarks.serving.cases import CLASSES, model_name
from trueprob.calibrators import Calibrator, dumps_calibrator
from trueprob.fitting.methods import FITTERS
from trueprob.repository.manifest import Manifest
from trueprob.repository.model_repository import ModelRepository
from trueprob_service.edge.keys import new_key


@dataclass(frozen=True)
class Stage:
    """Paths of all files, and the key of our service."""

    folder: Path
    key: str
    calibrators: dict[int, Calibrator]

    @property
    def models(self) -> Path:
        return self.folder / "models"

    @property
    def keys(self) -> Path:
        return self.folder / "keys.jsonl"

    @property
    def network(self) -> Path:
        """The image network; `benchmarks.serving.network.add_network` puts it there."""
        return self.models / "images" / "1" / "model.onnx"


def make_stage(folder: Path) -> Stage:
    """Fit a calibrator for each number of classes and write what the servers need."""
    (folder / "calibrators").mkdir(parents=True)
    calibrators = {}
    for k in CLASSES:
        calibrator = FITTERS["smart"](*realistic(2_000, k), None, seed=0).calibrator
        document = dumps_calibrator(calibrator, None)
        manifest = Manifest(model_name(k), 1, k, tuple(map(str, range(k))))
        ModelRepository(folder / "models").add(manifest, {"calibrator.json": document})
        (folder / "calibrators" / f"{k}.json").write_bytes(document)
        calibrators[k] = calibrator
    key, line = new_key("benchmark", ["predict"])
    stage = Stage(folder, key, calibrators)
    stage.keys.write_text(line + "\n", "utf-8")
    (folder / "mlserver").mkdir()
    (folder / "mlserver" / "settings.json").write_text(
        # No worker process: MLServer 1.7.1's do not start beside uvloop 0.23.
        json.dumps({"parallel_workers": 0, "host": "127.0.0.1", "debug": False})
    )
    for k in CLASSES:
        _mlserver_model(folder, model_name(k), "Logits", {})
    return stage


def _mlserver_model(folder: Path, name: str, runtime: str, more: dict[str, object]) -> None:
    settings = {
        "name": name,
        "implementation": f"benchmarks.serving.applications.mlserver_runtime.{runtime}",
        **more,
    }
    (folder / "mlserver" / name).mkdir()
    (folder / "mlserver" / name / "model-settings.json").write_text(json.dumps(settings))


def add_mlserver_network(stage: Stage) -> None:
    """Its model for images, with its adaptive batching."""
    _mlserver_model(
        stage.folder, "images", "Images", {"max_batch_size": 32, "max_batch_time": 0.005}
    )
