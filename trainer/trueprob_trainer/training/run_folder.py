"""The folder of a run: ``config.json``, ``metrics.jsonl``, ``checkpoint.pt``.

A file is written under a temporary name in the same folder and renamed, so it is complete or
absent. Metrics have one JSON object per line and epoch, and are appended.
"""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.errors import BadInput

PARTIAL = ".partial"  # name of a file that is being written
RUN_FILES = frozenset(
    (
        "config.json",
        "metrics.jsonl",
        "metrics.csv",
        "checkpoint.pt",
        "evaluation.json",
        "reliability.svg",
        "export.json",
        "model.onnx",
        "model.fp16.onnx",
        "model.int8.onnx",
        "model.calibrated.onnx",
        PARTIAL,
    )
)
EVENT_FILES = "events.out.tfevents."  # prefix of TensorBoard's files


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training run."""

    path: Path

    @classmethod
    def create(cls, path: Path, config: TrainConfig, *, overwrite: bool = False) -> "RunFolder":
        """Make the folder of a new run; an existing run is replaced only with ``overwrite``."""
        run = cls(path)
        if path.exists() and not path.is_dir():
            raise BadInput(f"run folder {path} is a file")
        path.mkdir(parents=True, exist_ok=True)
        present = {file.name for file in path.iterdir()}
        if any(name not in RUN_FILES and not name.startswith(EVENT_FILES) for name in present):
            raise BadInput(f"run folder {path} exists and has files that are not of a run")
        if present and not overwrite:
            raise BadInput(f"run folder {path} exists: choose another or pass --overwrite")
        for name in present:
            (path / name).unlink()
        run.write("config.json", config.to_json().encode())
        return run

    def config(self) -> TrainConfig:
        """The recipe of the run."""
        try:
            document = json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError) as problem:
            raise BadInput(f"run folder {self.path} has no readable config.json") from problem
        return TrainConfig.from_dict(document)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file completely or not at all."""
        temporary = self.path / PARTIAL
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return temporary.replace(self.path / name)

    def append_metrics(self, row: dict[str, float | int]) -> None:
        """Add a line to ``metrics.jsonl``."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def write_metrics(self, rows: Sequence[dict[str, float | int]]) -> None:
        """Replace ``metrics.jsonl``: a resumed run may have lines after its checkpoint."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        self.write("metrics.jsonl", lines.encode())

    def save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write ``checkpoint.pt``."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        self.write("checkpoint.pt", buffer.getvalue())

    def checkpoint(self) -> dict[str, Any]:
        """Load the last checkpoint."""
        path = self.path / "checkpoint.pt"
        if not zipfile.is_zipfile(path):  # torch.save writes zip; other files give unclear errors
            raise BadInput(f"run folder {self.path} has no readable checkpoint.pt")
        try:
            loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError) as problem:
            raise BadInput(f"run folder {self.path} has no readable checkpoint.pt") from problem
        return loaded
