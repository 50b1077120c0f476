"""One model version on disk: reads its files and verifies their digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from trueprob.arrays.class_names import require_order
from trueprob.arrays.files import is_lfs_pointer
from trueprob.calibrators import Calibrator, IdentityCalibrator, loads_calibrator
from trueprob.errors import DigestMismatch, InvalidDocument, InvalidInput
from trueprob.onnx_export.graph_content import weight_files
from trueprob.repository.baseline import Baseline
from trueprob.repository.manifest import Manifest

__all__ = ["BASELINE", "CALIBRATOR", "CARD", "MODEL", "ModelVersion", "file_digest"]

MODEL: Final = "model.onnx"
CALIBRATOR: Final = "calibrator.json"
BASELINE: Final = "baseline.npz"
CARD: Final = "MODEL_CARD.md"


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

    @property
    def network_digests(self) -> dict[str, str]:
        """Digests of the network and of the further files that it may read, by their names."""
        others = (CALIBRATOR, BASELINE, CARD)
        return {name: d for name, d in self.manifest.files.items() if name not in others}

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

    def verify(self, *, references: bool = True) -> None:
        """Compare every file with its digest in the manifest.

        Parameters
        ----------
        references : bool, default True
            Whether the network is read for the further files that it needs. Reading a network from
            an unknown source may take much time and memory.

        Raises
        ------
        DigestMismatch
            A file is missing, was changed, or is used and has no digest.
        """
        where = f"{self.name}/{self.version}"
        for file, expected in self.manifest.files.items():
            try:
                actual = file_digest(self.path / file)
            except OSError:
                raise DigestMismatch(f"{file} of {where} is missing") from None
            if actual != expected:
                with (self.path / file).open("rb") as stream:
                    pointer = is_lfs_pointer(stream.read(100))
                raise DigestMismatch(
                    f"{file} of {where} is a Git LFS pointer, not the file itself: run "
                    "`git lfs pull`"
                    if pointer
                    else f"{file} of {where} does not match its digest"
                )
        further = self._weight_files(where) if references else []
        for file in (MODEL, CALIBRATOR, BASELINE, *further):
            if file not in self.manifest.files and (self.path / file).exists():
                raise DigestMismatch(f"{file} of {where} has no digest in the manifest")

    def _weight_files(self, where: str) -> list[str]:
        """Names of the further files that the network reads."""
        path = self.onnx_path
        if path is None or path.stat().st_size == 0:
            return []
        with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
            # Every reference to another file has this word; most networks have none.
            if content.find(b"location") < 0:
                return []
        try:
            return [*weight_files(path.read_bytes(), self.path)]
        except InvalidInput as error:
            raise DigestMismatch(f"{MODEL} of {where}: {error.message}") from None


def file_digest(path: Path) -> str:
    """The digest of a file as manifests have it."""
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
