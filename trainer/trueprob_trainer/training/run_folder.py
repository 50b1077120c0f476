"""A run on disk: ``config.json``, ``metrics.jsonl``, ``checkpoint.pt``.

Files appear whole: each is written under a temporary name in the same folder and renamed. Metrics
are one JSON object a line, appended epoch by epoch.
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

PARTIAL = ".partial"  # left behind by a run that was killed while writing
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
EVENT_FILES = "events.out.tfevents."  # beginnings of TensorBoard's names


@dataclass(frozen=True)
class RunFolder:
    """Where one training run lives."""

    path: Path

    @classmethod
    def create(cls, path: Path, config: TrainConfig, *, overwrite: bool = False) -> "RunFolder":
        """Start a run.

        Raises `BadInput`: the place is taken.
        """
        run = cls(path)
        if path.exists() and not path.is_dir():
            raise BadInput(f"run folder {path} is a file")
        path.mkdir(parents=True, exist_ok=True)
        present = {file.name for file in path.iterdir()}
        if any(name not in RUN_FILES and not name.startswith(EVENT_FILES) for name in present):
            raise BadInput(f"run folder {path} exists and holds something else")
        if present and not overwrite:
            raise BadInput(f"run folder {path} exists: choose another or pass --overwrite")
        for name in present:
            (path / name).unlink()
        run.write("config.json", config.to_json().encode())
        return run

    def config(self) -> TrainConfig:
        """Recipe of the run.

        Raises `BadInput`: there is no run here.
        """
        try:
            document = json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError) as problem:
            raise BadInput(f"run folder {self.path} has no readable config.json") from problem
        return TrainConfig.from_dict(document)

    def write(self, name: str, content: bytes) -> Path:
        """Write a file so that it is there whole or not at all."""
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
        """Replace ``metrics.jsonl``: a run that is taken up may have lines after its checkpoint."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        self.write("metrics.jsonl", lines.encode())

    def save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write ``checkpoint.pt``."""
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        self.write("checkpoint.pt", buffer.getvalue())

    def checkpoint(self) -> dict[str, Any]:
        """The last checkpoint.

        Raises `BadInput`: none was written, or it is damaged.
        """
        path = self.path / "checkpoint.pt"
        if not zipfile.is_zipfile(path):  # what torch.save writes; anything else fails in odd ways
            raise BadInput(f"run folder {self.path} has no readable checkpoint.pt")
        try:
            loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError) as problem:
            raise BadInput(f"run folder {self.path} has no readable checkpoint.pt") from problem
        return loaded
