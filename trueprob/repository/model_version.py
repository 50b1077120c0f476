"""One model version on disk: reads its files and verifies their digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trueprob.arrays.class_names import require_order
from trueprob.calibrators import Calibrator, IdentityCalibrator, loads_calibrator
from trueprob.errors import DigestMismatch, InvalidDocument, InvalidInput
from trueprob.repository.baseline import Baseline
from trueprob.repository.manifest import Manifest

__all__ = ["BASELINE", "CALIBRATOR", "MODEL", "ModelVersion"]

MODEL: Final = "model.onnx"
CALIBRATOR: Final = "calibrator.json"
BASELINE: Final = "baseline.npz"


@dataclass(frozen=True)
class ModelVersion:
    """A model version on disk.

    Attributes
    ----------
    name : str
        Name of the model.
    version : int
        Positive.
    path : Path
        Directory of the version.
    manifest : Manifest
        Read from the directory.
    """

    name: str
    version: int
    path: Path
    manifest: Manifest

    @property
    def onnx_path(self) -> Path | None:
        """Path of the network; None for a logits-only model."""
        path = self.path / MODEL
        return path if path.is_file() else None

    def calibrator(self) -> Calibrator:
        """Read the factory calibrator; the identity if the version has none.

        Raises
        ------
        InvalidDocument
            The file is not a calibrator, or has other classes or another order of them.
        """
        path = self.path / CALIBRATOR
        if not path.is_file():
            return IdentityCalibrator(self.manifest.n_classes)
        calibrator = loads_calibrator(path.read_bytes())
        if calibrator.n_classes != self.manifest.n_classes:
            raise InvalidDocument(
                f"calibrator n_classes must be the manifest's {self.manifest.n_classes}, "
                f"got {calibrator.n_classes}"
            )
        if calibrator.class_names is not None:
            try:
                require_order(
                    calibrator.class_names,
                    self.manifest.class_names,
                    name="calibrator class_names",
                )
            except InvalidInput as error:
                raise InvalidDocument(error.message) from None
        return calibrator

    def baseline(self) -> Baseline | None:
        """Read the statistics of the calibration split; None if the version has none.

        Raises
        ------
        InvalidDocument
            The file is not a baseline.
        """
        path = self.path / BASELINE
        return Baseline.load(path) if path.is_file() else None

    def verify(self) -> None:
        """Compare every file with its digest in the manifest.

        Raises
        ------
        DigestMismatch
            A file is missing, was changed, or is used and has no digest.
        """
        where = f"{self.name}/{self.version}"
        for file, expected in self.manifest.files.items():
            try:
                with (self.path / file).open("rb") as stream:
                    actual = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError:
                raise DigestMismatch(f"{file} of {where} is missing") from None
            if f"sha256:{actual}" != expected:
                raise DigestMismatch(f"{file} of {where} does not match its digest")
        for file in (MODEL, CALIBRATOR, BASELINE):
            if file not in self.manifest.files and (self.path / file).exists():
                raise DigestMismatch(f"{file} of {where} has no digest in the manifest")
