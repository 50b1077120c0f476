"""Writes an inspected network as a version of the repository, calibrated and scored.

`register` runs the network, fits the factory calibrator if there is a calibration set, and adds all
files at once; `model_card` writes ``MODEL_CARD.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob import __version__
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.files import read_arrays
from trueprob.calibrators import FittedOn, IdentityCalibrator, dumps_calibrator
from trueprob.calibrators.input_stage import InputStage
from trueprob.errors import VersionExists
from trueprob.findings.finding import Finding, Severity
from trueprob.findings.incumbent_check import held_in_service
from trueprob.fitting.fit import fit_calibration_set
from trueprob.fitting.report import Fit
from trueprob.repository.baseline import Baseline
from trueprob.repository.manifest import InputSpec, Manifest
from trueprob.repository.model_repository import ModelRepository
from trueprob.repository.model_version import CARD, ModelVersion
from trueprob.scores.score import Scores
from trueprob_service.errors import InvalidRequest
from trueprob_service.inference.network.inputs import NetworkInputs
from trueprob_service.inference.network.onnx_model import OnnxModel
from trueprob_service.inspection.inspector import Inspector
from trueprob_service.inspection.worker import TryNetwork
from trueprob_service.register.files import NetworkFiles
from trueprob_service.register.graph import InspectedGraph
from trueprob_service.register.options import CannotRegister

__all__ = ["RegisteredVersion", "SetHeld", "described", "model_card", "one_score_of", "register"]

_BATCH_ROWS: Final = 32


@dataclass(frozen=True)
class RegisteredVersion:
    """A new version, and its fit if there was a calibration set."""

    version: ModelVersion
    fit: Fit | None
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]  # besides the findings
    one_score: bool = False  # whether the network gives one number per row, of class 1


class SetHeld(Exception):
    """A finding holds the calibration set, and `force` was not given; nothing was written."""

    def __init__(self, findings: tuple[Finding, ...], warnings: tuple[str, ...]) -> None:
        super().__init__("nothing was registered, because a finding holds the calibration set")
        self.findings = findings
        self.warnings = warnings  # besides the findings


def register(
    files: NetworkFiles,
    graph: InspectedGraph,
    *,
    repository: ModelRepository,
    name: str,
    number: int,  # of the version
    class_names: Sequence[str],
    # An `.npz` of `labels` and `logits` (or `probabilities`, `log_probabilities`), or what the
    # network takes: `images`, `rows` or arrays with the names of its inputs.
    calibration: Path | None,
    method: str,  # one of `trueprob.fitting.fit.METHODS`
    inspector: Inspector,
    max_batch_rows: int,  # of the service
    providers: Sequence[str],  # execution providers of the service
    force: bool,  # register even what a finding holds
    masks: InputStage | None = None,  # what its calibrators take for masks besides −inf
    created_at: datetime,  # with a time zone
) -> RegisteredVersion:
    """Write a version. Nothing is written if anything fails; raises `SetHeld` unless forced."""
    if number in repository.versions(name):
        raise VersionExists(f"model version {name}/{number} exists, and versions never change")
    manifest = Manifest(
        name=name,
        version=number,
        n_classes=graph.n_classes,
        class_names=tuple(class_names),
        input=graph.inputs[0] if len(graph.inputs) == 1 else None,
        inputs=graph.inputs if len(graph.inputs) > 1 else (),
        output_name=graph.output_name,
        output_kind=graph.output_kind,
        training={"source": files.source, "registered_with": __version__},
    )
    accepted = NetworkInputs.from_manifest(manifest)
    # As the service will look at it and load it, so that an unusable version is refused here.
    inspector.check(
        TryNetwork(
            files.path,
            inputs=accepted.specs,
            output_name=graph.output_name,
            output_kind=graph.output_kind,
            n_classes=graph.n_classes,
            max_batch_rows=max_batch_rows,
        ),
        providers=providers,
    )
    model = OnnxModel(
        files.path,
        inputs=accepted.specs,
        output_name=graph.output_name,
        n_classes=graph.n_classes,
        output_kind=graph.output_kind,
        providers=providers,
        max_batch_rows=_BATCH_ROWS,
    )
    written: dict[str, bytes | Path] = {"model.onnx": files.content, **files.weights}
    fitted: Fit | None = None
    findings: tuple[Finding, ...] = ()
    warnings: tuple[str, ...] = ()
    if calibration is not None:
        rows, by_network = _rows(calibration, manifest, accepted, model)
        fitted = fit_calibration_set(rows, method, masks=masks)
        # A new model is live at once, with this calibrator.
        findings = held_in_service(fitted.report.findings)
        warnings = _warnings(fitted, by_network)
        if not force and any(each.severity is Severity.HOLD for each in findings):
            raise SetHeld(findings, warnings)
        fitted_on = FittedOn.of(rows, created_at.isoformat(timespec="seconds"), masks=masks)
        written["calibrator.json"] = dumps_calibrator(fitted.calibrator, fitted_on)
        baseline = Baseline.of(fitted.calibrator, rows.logits, rows.labels)
        written["baseline.npz"] = baseline.to_bytes()
        manifest = _with_scores(manifest, fitted)
    elif masks is not None:
        uncalibrated = IdentityCalibrator(graph.n_classes).with_masks(masks)
        written["calibrator.json"] = dumps_calibrator(uncalibrated)
    card = model_card(manifest, fitted, created_at, one_score=graph.one_score)
    written[CARD] = card.encode()
    version = repository.add(manifest, written)
    return RegisteredVersion(version, fitted, findings, warnings, graph.one_score)


def _rows(
    source: Path, manifest: Manifest, accepted: NetworkInputs, model: OnnxModel
) -> tuple[CalibrationSet, bool]:
    """The calibration set, and whether the network computed its logits."""
    arrays: dict[str, NDArray[Any]] = dict(read_arrays(source, name=str(source)))
    try:
        given = accepted.take(arrays)
    except InvalidRequest as error:
        raise CannotRegister(f"--calibration {source}: {error.detail}") from None
    if given is not None:
        blocks = (given[i : i + _BATCH_ROWS] for i in range(0, len(given), _BATCH_ROWS))
        arrays["logits"] = np.concatenate([model.run(accepted.tensors(block)) for block in blocks])
    rows = CalibrationSet.from_arrays(
        arrays, n_classes=manifest.n_classes, class_names=manifest.class_names
    )
    return rows, given is not None


def _warnings(fitted: Fit, by_network: bool) -> tuple[str, ...]:
    report = fitted.report
    if not by_network or report.before.accuracy >= 1.5 / report.k:
        return ()
    sentence = (
        f"accuracy {report.before.accuracy:.3f} with {report.k} classes is near chance: check "
        "layout, mean, std and the order of the classes"
    )
    return (sentence,)


def _with_scores(manifest: Manifest, fitted: Fit) -> Manifest:
    report = fitted.report
    scores = {
        "n": report.n,
        "uncalibrated": report.before.to_dict(),
        "calibrated": report.after.to_dict(),
    }
    return Manifest.from_dict(manifest.to_dict() | {"scores": {"calibration": scores}})


def described(registered: RegisteredVersion) -> dict[str, Any]:
    """The registered version as a JSON document."""
    version, fitted = registered.version, registered.fit
    document = version.manifest.to_dict()
    return {
        "model": version.name,
        "version": version.version,
        "path": str(version.path),
        "n_classes": version.manifest.n_classes,
        "input": document["input"],
        **({"inputs": document["inputs"]} if "inputs" in document else {}),
        "output": {"name": version.manifest.output_name, "kind": version.manifest.output_kind},
        "calibrator": None if fitted is None else fitted.calibrator.id,
        "scores": None if fitted is None else fitted.report.to_dict()["scores"],
        "findings": [finding.to_dict() for finding in registered.findings],
        "warnings": list(registered.warnings),
    }


def one_score_of(manifest: Manifest) -> str:
    """What one number per row of a network stands for."""
    p = f"P({manifest.class_names[1]})"
    return p if manifest.output_kind == "probabilities" else f"the logit of {p}"


def model_card(
    manifest: Manifest, fitted: Fit | None, created_at: datetime, *, one_score: bool = False
) -> str:
    """Content of ``MODEL_CARD.md``: what is known about the network, and what is not."""
    names = ", ".join(manifest.class_names[:10]) + (", …" if manifest.n_classes > 10 else "")
    parts = [
        f"# {manifest.name}, version {manifest.version}",
        _origin(manifest, created_at),
        f"- {manifest.n_classes} classes: {names}\n"
        + "".join(map(_input_line, manifest.network_inputs))
        + f"- output `{manifest.output_name}`: {manifest.output_kind}"
        + (f", one number per row: {one_score_of(manifest)}" if one_score else ""),
        "## Calibration",
        _calibration(fitted),
    ]
    return "\n\n".join(parts) + "\n"


def _input_line(spec: InputSpec) -> str:
    preprocessing = ", ".join(f"{key} {value}" for key, value in spec.preprocessing.items())
    shape = f"{spec.dtype}, {spec.layout}, {list(spec.shape)}"
    return f"- input `{spec.name}`: {shape}{'; ' * bool(preprocessing)}{preprocessing}\n"


def _origin(manifest: Manifest, created_at: datetime) -> str:
    return (
        f"Registered from `{manifest.training['source']}` on {created_at.date().isoformat()}. How "
        "it was trained, and on which data, is not recorded."
    )


def _calibration(fitted: Fit | None) -> str:
    if fitted is None:
        return (
            "None: the probabilities are the network's own. Upload a calibration set to the "
            "service, or register a further version with `--calibration`."
        )
    report = fitted.report
    rows = [
        "| | accuracy | ECE | ECE floor | NLL |",
        "|---|---|---|---|---|",
        _line("uncalibrated", report.before),
        _line("calibrated, out of fold", report.after),
    ]
    warnings = "".join(f"\n- {warning}" for warning in report.warnings)
    return (
        f"`{fitted.calibrator.id}`, method `{report.method}`, fitted on {report.n} rows. Each row "
        "is scored by a calibrator that was fitted without it; the floor is the ECE that a "
        "perfectly calibrated model would show on as many rows.\n\n"
        + "\n".join(rows)
        + (f"\n{warnings}" if warnings else "")
    )


def _line(name: str, scores: Scores) -> str:
    return (
        f"| {name} | {100 * scores.accuracy:.2f} % | {100 * scores.ece:.2f} % | "
        f"{100 * scores.ece_floor:.2f} % | {scores.nll:.4f} nats |"
    )
