"""`trueprob inspect models/NAME/VERSION`: describes a model version and verifies its files.

The exit code is 1 if a file does not match its digest; the calibrator and the baseline of such a
version are not read.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

import numpy as np

from trueprob.calibrators import Calibrator
from trueprob.calibrators.document import parse_json, read_fitted_on
from trueprob.calibrators.input_stage import InputStage
from trueprob.cli.output import print_json, print_line
from trueprob.errors import DigestMismatch, ModelVersionNotFound
from trueprob.repository.baseline import Baseline
from trueprob.repository.model_repository import MANIFEST, VERSION, ModelRepository
from trueprob.repository.model_version import CALIBRATOR, ModelVersion

__all__ = ["add_parser"]

# Temperatures are shown at these percentiles of the baseline's logit gap.
PERCENTILES: Final = (5, 25, 50, 75, 95)
GAPS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)  # in nats, for a version without a baseline
BASELINE_SCORES: Final = ("accuracy", "mean_confidence", "ece", "ece_floor", "mce")


def add_parser(commands: Any) -> None:
    """Add the command and its options."""
    parser = commands.add_parser(
        "inspect",
        help="show a model version and verify its files",
        description="Show a model version: its manifest, whether its files match their digests, "
        "its calibrator and its baseline. Exit code 1: a file does not match its digest.",
    )
    parser.add_argument(
        "path", metavar="models/NAME/VERSION", help="folder of the version in a model repository"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    path = Path(arguments.path).absolute()
    if VERSION.fullmatch(path.name) is None:
        raise ModelVersionNotFound(
            f"path must end in NAME/VERSION, VERSION a positive integer, got {arguments.path}"
        )
    version = ModelRepository(path.parent.parent).get(path.parent.name, int(path.name))
    document = _document(version)
    if arguments.json:
        print_json(document)
    else:
        for line in _lines(document):
            print_line(line)
    return 0 if document["digests"]["verified"] else 1


def _document(version: ModelVersion) -> dict[str, Any]:
    manifest = version.manifest
    reason, calibrator, baseline = None, None, None
    try:
        version.verify()
    except DigestMismatch as error:
        reason = str(error)
    else:
        baseline = version.baseline()
        calibrator = _calibrator(version, baseline)
    described = manifest.to_dict()
    return {
        "name": version.name,
        "version": version.version,
        "n_classes": manifest.n_classes,
        "class_names": list(manifest.class_names),
        "input": described["input"],
        "digests": {"verified": reason is None, "reason": reason},
        "files": _files(version),
        "calibrator": calibrator,
        "baseline": None if baseline is None else _baseline(baseline),
        "training": dict(manifest.training),
        "scores": dict(manifest.scores),
    }


def _files(version: ModelVersion) -> list[dict[str, Any]]:
    """The files of the manifest and of the folder, sorted by name."""
    present = {entry.name: entry.stat().st_size for entry in version.path.iterdir()}
    digests = version.manifest.files
    return [
        {"name": name, "bytes": present.get(name), "digest": digests.get(name)}
        for name in sorted({*present, *digests})
    ]


def _calibrator(version: ModelVersion, baseline: Baseline | None) -> dict[str, Any]:
    calibrator = version.calibrator()
    path = version.path / CALIBRATOR
    source = None
    if path.is_file():
        source = read_fitted_on(parse_json(path.read_bytes(), "calibrator"))
    return {
        "id": calibrator.id,
        "kind": calibrator.kind,
        "preserves_prediction": calibrator.preserves_prediction,
        "preserves_ranking": calibrator.preserves_ranking,
        "input_stage": None
        if calibrator.input_stage is None
        else calibrator.input_stage.parameters(),
        "fitted_on": None
        if source is None
        else {"digest": source.digest, "n": source.n, "created_at": source.created_at},
        "temperatures": _temperatures(calibrator, baseline),
    }


def _temperatures(
    calibrator: Calibrator, baseline: Baseline | None
) -> list[dict[str, float]] | None:
    """Temperatures at some logit gaps; None if the gap alone does not determine them."""
    if not calibrator.preserves_prediction:
        return None  # it depends on the gap after the linear stage
    gaps = np.array(GAPS)
    if baseline is not None:
        gaps = np.unique(baseline.gap_quantiles[list(PERCENTILES)])
    rows = np.zeros((gaps.shape[0], calibrator.n_classes), dtype=np.float32)
    rows[:, 0] = gaps
    temperatures = calibrator.temperature(rows)
    if temperatures is None:
        return None
    return [
        {"gap": float(gap), "temperature": float(temperature)}
        for gap, temperature in zip(gaps, temperatures, strict=True)
    ]


def _baseline(baseline: Baseline) -> dict[str, float]:
    binned = baseline.binned
    return {"n": binned.n} | {name: float(getattr(binned, name)()) for name in BASELINE_SCORES}


def _lines(document: dict[str, Any]) -> list[str]:
    digests, calibrator, spec = document["digests"], document["calibrator"], document["input"]
    verdict = "verified" if digests["verified"] else f"NOT verified: {digests['reason']}"
    names = ", ".join(document["class_names"][:10]) + (", …" * (document["n_classes"] > 10))
    accepted = "logits only" if spec is None else f"{spec['name']} {spec['dtype']} {spec['shape']}"
    lines = [
        f"{document['name']}/{document['version']}: {document['n_classes']} classes ({names})",
        f"input       {accepted}",
        f"digests     {verdict}",
    ]
    for file in document["files"]:
        size = "missing" if file["bytes"] is None else f"{file['bytes']:,} bytes"
        digest = file["digest"] or ("has the digests" if file["name"] == MANIFEST else "no digest")
        lines.append(f"file        {file['name']}, {size}, {digest}")
    if calibrator is not None:
        source = calibrator["fitted_on"]
        fitted = "" if source is None else f", fitted on {source['n']} rows, {source['created_at']}"
        kept = "keeps the prediction"
        if not calibrator["preserves_prediction"]:
            ranked = ", keeps the order of rows" * calibrator["preserves_ranking"]
            kept = f"may change the prediction{ranked}"
        lines.append(f"calibrator  {calibrator['id']}, {kept}{fitted}")
        stage = calibrator["input_stage"]
        if stage is not None:
            found = InputStage.from_parameters(document["n_classes"], stage)
            lines += [f"  {sentence}" for sentence in found.sentences()]
        lines += [
            f"  at a gap of {row['gap']:.2f} nats the temperature is {row['temperature']:.3f}"
            for row in calibrator["temperatures"] or ()
        ]
    if document["baseline"] is not None:
        s = document["baseline"]
        lines.append(
            f"baseline    {s['n']:.0f} rows, accuracy {100 * s['accuracy']:.2f} %, mean confidence "
            f"{100 * s['mean_confidence']:.2f} %, ECE {100 * s['ece']:.2f} % "
            f"(floor {100 * s['ece_floor']:.2f} %)"
        )
    for split, found in document["scores"].items():
        lines += [f"scores      {split}: {text}" for text in _score_texts(found)]
    return lines


def _score_texts(found: object) -> list[str]:
    """Lines for scores such as `{"n": …, "uncalibrated": {"ece": …}}`, or any other JSON."""
    if not isinstance(found, dict):
        return [str(found)]
    texts = []
    for name, values in found.items():
        if isinstance(values, dict):
            shown = [f"{k} {v:.4g}" for k, v in values.items() if isinstance(v, float)]
            texts.append(f"{name}: {', '.join(shown)}")
    return texts
