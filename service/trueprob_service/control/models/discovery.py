"""Verifies the versions in the model repository; loads and registers nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from trueprob.calibrators import Calibrator, dumps_calibrator
from trueprob.errors import TrueprobError
from trueprob.repository.manifest import Manifest
from trueprob.repository.model_repository import ModelRepository
from trueprob_service.metrics.recent_traffic import TrafficReference

__all__ = ["Discovery", "FoundVersion", "Key", "discover"]

Key = tuple[str, int]  # model, version


@dataclass(frozen=True)
class FoundVersion:
    """A version on disk whose files match their digests."""

    manifest: Manifest
    calibrator: Calibrator  # the factory calibrator
    document: str  # its `calibrator.json`; the identity's for a version without one
    # `n`, `ece`, `ece_floor` and `accuracy` on the calibration split, from `baseline.npz`; empty
    # for a version without one.
    baseline: Mapping[str, float]
    # From the same file: traffic without labels is compared with it.
    reference: TrafficReference | None = None


@dataclass(frozen=True)
class Discovery:
    """The verified versions, and why the others are refused."""

    found: Mapping[Key, FoundVersion]
    refused: Mapping[Key, str]  # one sentence each


def discover(root: Path, only: Collection[Key] | None = None) -> Discovery:
    """Verify all versions under a folder, or the given ones; the folder need not exist."""
    found: dict[Key, FoundVersion] = {}
    refused: dict[Key, str] = {}
    if root.is_dir():
        repository = ModelRepository(root)
        for name in repository.models():
            for number in repository.versions(name):
                if only is not None and (name, number) not in only:
                    continue
                try:
                    found[name, number] = _verified(repository, name, number)
                except TrueprobError as error:
                    refused[name, number] = str(error)
                except OSError as error:
                    refused[name, number] = f"a file cannot be read: {error.strerror}"
    return Discovery(found, refused)


def _verified(repository: ModelRepository, name: str, number: int) -> FoundVersion:
    version = repository.get(name, number)
    version.verify(references=False)  # that is for the inspection of the network
    calibrator = version.calibrator()
    file = version.path / "calibrator.json"
    document = file.read_bytes() if file.exists() else dumps_calibrator(calibrator)
    scores: dict[str, float] = {}
    reference = None
    if (baseline := version.baseline()) is not None:
        binned = baseline.binned
        scores = {
            "n": int(binned.n),
            "ece": binned.ece(),
            "ece_floor": binned.ece_floor(),
            "accuracy": binned.accuracy(),
        }
        reference = TrafficReference.from_baseline(baseline, calibrator.id)
    return FoundVersion(version.manifest, calibrator, document.decode(), scores, reference)
