"""From an inspected network to a version on disk: run, calibrated, scored, written whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob import __version__
from trueprob.arrays.calibration_set import INPUTS, CalibrationSet
from trueprob.arrays.files import read_arrays
from trueprob.calibrators import FittedOn, dumps_calibrator
from trueprob.errors import VersionExists
from trueprob.fitting.fit import Fit, fit_calibration_set
from trueprob.repository.baseline import Baseline
from trueprob.repository.manifest import Manifest
from trueprob.repository.model_repository import ModelRepository, ModelVersion
from trueprob_service.inference.network.input import NetworkInput
from trueprob_service.inference.network.onnx_model import OnnxModel
from trueprob_service.register.card import model_card
from trueprob_service.register.graph import Network
from trueprob_service.register.options import Unusable

__all__ = ["Registered", "register"]

_BATCH_ROWS: Final = 32


@dataclass(frozen=True)
class Registered:
    """A version, and its fit when it came with a calibration set."""

    version: ModelVersion
    fit: Fit | None
    warnings: tuple[str, ...]


def register(
    content: bytes,  # the `model.onnx`
    network: Network,  # what it takes and gives
    *,
    repository: ModelRepository,
    name: str,
    number: int,  # the version
    names: Sequence[str],  # of the classes
    calibration: Path | None,
    method: str,  # of `trueprob.fitting.fit.METHODS`
    providers: Sequence[str],  # where the network is run, as the service will
    source: str,  # what the file was called
    created_at: datetime,  # with a time zone
) -> Registered:
    """Write a version; nothing is written when anything fails."""
    if number in repository.versions(name):
        raise VersionExists(f"model version {name}/{number} exists, and versions never change")
    manifest = Manifest(
        name=name,
        version=number,
        n_classes=network.n_classes,
        class_names=tuple(names),
        input=network.input,
        output_name=network.output_name,
        output_kind=network.output_kind,
        training={"source": source, "registered_with": __version__},
    )
    taken = NetworkInput.of(network.input)
    # As the service will load it: this is its first run, and a difference is refused here.
    model = OnnxModel(
        content,
        input_name=network.input.name,
        output_name=network.output_name,
        row_shape=taken.row_shape,
        dtype=taken.dtype,
        n_classes=network.n_classes,
        output_kind=network.output_kind,
        providers=providers,
        max_batch_rows=_BATCH_ROWS,
    )
    files = {"model.onnx": content}
    fitted: Fit | None = None
    warnings: tuple[str, ...] = ()
    if calibration is not None:
        rows, by_network = _rows(calibration, manifest, taken, model)
        fitted = fit_calibration_set(rows, method)
        warnings = _warnings(fitted, by_network)
        fitted_on = FittedOn(rows.digest, rows.n, created_at.isoformat(timespec="seconds"))
        files["calibrator.json"] = dumps_calibrator(fitted.calibrator, fitted_on)
        baseline = Baseline.of(fitted.calibrator, rows.logits, rows.labels)
        files["baseline.npz"] = baseline.to_bytes()
        manifest = _with_scores(manifest, fitted)
    files["MODEL_CARD.md"] = model_card(manifest, fitted, created_at).encode()
    return Registered(repository.add(manifest, files), fitted, warnings)


def _rows(
    source: Path, manifest: Manifest, taken: NetworkInput, model: OnnxModel
) -> tuple[CalibrationSet, bool]:
    """The calibration set, and whether its logits come from the network."""
    arrays: dict[str, NDArray[Any]] = dict(read_arrays(source, name=str(source)))
    by_network = "images" in arrays
    if by_network:
        both = sorted(set(INPUTS) & set(arrays))
        if both:
            raise Unusable(f"--calibration {source} must not hold images and {both[0]} together")
        images = taken.check(arrays.pop("images"))
        blocks = range(0, len(images), _BATCH_ROWS)
        arrays["logits"] = np.concatenate(
            [model.run(taken.tensor(images[start : start + _BATCH_ROWS])) for start in blocks]
        )
    rows = CalibrationSet.from_arrays(
        arrays, n_classes=manifest.n_classes, class_names=manifest.class_names
    )
    return rows, by_network


def _warnings(fitted: Fit, by_network: bool) -> tuple[str, ...]:
    report = fitted.report
    found = list(report.warnings)
    if by_network and report.before.accuracy < 1.5 / report.k:
        found.append(
            f"accuracy {report.before.accuracy:.3f} with {report.k} classes is near chance: check "
            "layout, mean, std and the order of the classes"
        )
    return tuple(found)


def _with_scores(manifest: Manifest, fitted: Fit) -> Manifest:
    report = fitted.report
    scores = {
        "n": report.n,
        "uncalibrated": report.before.to_dict(),
        "calibrated": report.after.to_dict(),
    }
    return Manifest.from_dict(manifest.to_dict() | {"scores": {"calibration": scores}})
