"""What each of several replicas says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families


def targets(state: Path) -> dict[str, str]:
    """Address of each replica's metrics, as Prometheus finds them."""
    groups = json.loads((state / "metrics-targets.json").read_text())
    return {group["labels"]["replica"]: f"http://{group['targets'][0]}" for group in groups}


def predictions(address: str) -> float:
    """Rows that one replica has answered."""
    text = httpx.get(f"{address}/metrics").text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "trueprob_predictions_total"
    )


def live_revision(address: str, model: str = "digits") -> str | None:
    """What a replica answers with, by its own metrics."""
    text = httpx.get(f"{address}/metrics").text
    return next(
        (
            sample.labels["revision"]
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "trueprob_calibrator_info" and sample.labels["model"] == model
        ),
        None,
    )
