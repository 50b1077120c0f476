"""The networks of this repository's models on changed pictures.

`models/digits/1` on turned and noisy digits, and the registered CIFAR-10 model, where there is one,
on the common corruptions (arXiv:1903.12261) of pictures of the test set.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.sets import ROOT
from benchmarks.drift.shift_cases import Case, Rows
from trueprob import ModelRepository
from trueprob.repository.model_version import ModelVersion

ROWS, SEVERITY = 4_000, 3  # of the CIFAR-10 test set; of 5
SMALL_ROWS, SMALL_CORRUPTIONS = 600, ("gaussian-noise", "contrast")
BATCH = 250

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Shifts:
    """A network of ours, and pictures with and without a shift."""

    title: str
    version: ModelVersion
    labels: NDArray[np.int64]
    calm: Pictures
    shifted: dict[str, Pictures]


def logits_of(version: ModelVersion, pictures: Pictures) -> NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(version.onnx_path))
    name = session.get_inputs()[0].name
    parts = [pictures[i : i + BATCH] for i in range(0, pictures.shape[0], BATCH)]
    logits = [session.run([version.manifest.output_name], {name: part})[0] for part in parts]
    return np.concatenate(logits).astype(np.float32)


def cases_of_network(shifts: Shifts) -> Iterator[Case]:
    """A version with its calibrator and baseline, on pictures with and without a shift."""
    baseline, calibrator = shifts.version.baseline(), shifts.version.calibrator()
    if baseline is None or shifts.version.manifest.input is None:
        return

    def rows(pictures: Pictures) -> Rows:
        return Rows.of(calibrator, logits_of(shifts.version, pictures), shifts.labels)

    before = rows(shifts.calm)
    yield Case(f"{shifts.title}: none", before, before, baseline)
    for name, pictures in shifts.shifted.items():
        yield Case(f"{shifts.title}: {name}", before, rows(pictures), baseline)


def digits_shifts() -> Shifts:
    """Turned and noisy digits for the shipped network."""
    from scipy.ndimage import rotate

    from trueprob_trainer.data import Split, load

    images, labels = load("noisy-digits").of(Split.TEST)
    noise = np.random.default_rng(0).normal(scale=40.0, size=images.shape)
    turned = rotate(images.astype(float), 20.0, axes=(1, 2), reshape=False, order=1)
    shifts = {
        "turned by 20 degrees": turned,
        "noise of 40 grey levels": images + noise,
        "turned and noisy": turned + noise,
    }
    bytes_of = {name: np.clip(np.rint(x), 0, 255).astype(np.uint8) for name, x in shifts.items()}
    version = ModelRepository(ROOT / "models").get("digits", 1)
    return Shifts("digits network", version, labels, images, bytes_of)


def digits_cases() -> Iterator[Case]:
    yield from cases_of_network(digits_shifts())


def cifar10_cases(data: Path, models: Path = ROOT / "models", *, small: bool) -> Iterator[Case]:
    shifts = cifar10_shifts(data, models, small=small)
    if shifts is not None:
        yield from cases_of_network(shifts)


def cifar10_shifts(data: Path, models: Path = ROOT / "models", *, small: bool) -> Shifts | None:
    """Corrupted CIFAR-10 images for the newest version of `cifar10`, if there is one."""
    from trueprob_trainer.data import Split, load
    from trueprob_trainer.evaluation.corruptions import CORRUPTIONS, corrupt

    version, file = newest(models, "cifar10"), data / "images" / "cifar10_jpeg.npz"
    if version is None or not file.is_file():
        why = f"no model cifar10 in {models}" if version is None else f"no {file}"
        print(f"CIFAR-10 through our network is left out: {why}", file=sys.stderr)
        return None
    # Given as test set: neither trained on nor fitted on, whatever the seed.
    images, labels = load(f"npz:{file}").of(Split.TEST)
    n = SMALL_ROWS if small else ROWS
    # Some copies of the data are sorted by class.
    chosen = np.random.default_rng(0).permutation(labels.shape[0])[:n]
    images, labels = images[chosen], labels[chosen]
    names = SMALL_CORRUPTIONS if small else tuple(CORRUPTIONS)
    shifted = {f"{name} {SEVERITY}": corrupt(images, name, SEVERITY) for name in names}
    network = version.manifest.training.get("config", {}).get("network", "network")
    return Shifts(f"CIFAR-10, our {network}", version, labels, images, shifted)


def newest(models: Path, name: str) -> ModelVersion | None:
    """The highest version of a model, or None."""
    repository = ModelRepository(models)
    versions = repository.versions(name) if name in repository.models() else []
    return repository.get(name, max(versions)) if versions else None
