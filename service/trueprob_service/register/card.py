"""``MODEL_CARD.md`` of a registered network: what is known of it, and what is not."""

from __future__ import annotations

from datetime import datetime

from trueprob.fitting.fit import Fit
from trueprob.repository.manifest import Manifest
from trueprob.scores.score import Scores

__all__ = ["model_card"]


def model_card(manifest: Manifest, fitted: Fit | None, created_at: datetime) -> str:
    """Text of the card, Markdown."""
    spec = manifest.input
    if spec is None:
        raise ValueError("a registered network has an input")
    names = ", ".join(manifest.class_names[:10]) + (", …" if manifest.n_classes > 10 else "")
    preprocessing = ", ".join(f"{key} {value}" for key, value in spec.preprocessing.items())
    parts = [
        f"# {manifest.name}, version {manifest.version}",
        _origin(manifest, created_at),
        f"- {manifest.n_classes} classes: {names}\n"
        f"- input `{spec.name}`: {spec.dtype}, {spec.layout}, {list(spec.shape)}"
        + (f"; {preprocessing}" if preprocessing else "")
        + f"\n- output `{manifest.output_name}`: {manifest.output_kind}",
        "## Calibration",
        _calibration(fitted),
    ]
    return "\n\n".join(parts) + "\n"


def _origin(manifest: Manifest, created_at: datetime) -> str:
    return (
        f"Registered from `{manifest.training['source']}` on {created_at.date().isoformat()}. How "
        "it was trained, and on what, this card does not know."
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
