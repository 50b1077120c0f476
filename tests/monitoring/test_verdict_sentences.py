"""The summaries of the alerts, on a real Prometheus, are the sentences of the verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.monitoring.exporter import serve_exporter, verdict_of
from tests.monitoring.prometheus_server import start_prometheus
from trueprob.drift import ErrorSums, LiveVerdict, VerdictState

pytestmark = pytest.mark.integration
ALERTS = {
    VerdictState.OFF: "TrueprobMiscalibrated",
    VerdictState.CHANGED_LATELY: "TrueprobChange",
}


def sums(n: int, too_sure: float, *, seed: int) -> ErrorSums:
    """Labels of predictions with confidences of 0.5 to 1 that are too high by so much."""
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.5, 1.0, n)
    return ErrorSums.of(confidence, random.random(n) < confidence - too_sure)


def verdicts() -> Iterator[LiveVerdict]:
    """Every form of the sentence, and numbers to round."""
    calm = sums(60_000, 0.0, seed=0)
    yield verdict_of(ErrorSums())
    yield verdict_of(calm)
    yield verdict_of(calm, ErrorSums(), change_alarm=True)
    yield verdict_of(calm, evidence_alarm=True)
    for seed, n in enumerate((1, 30, 4_321)):
        for too_sure in (0.0, 0.3):
            recent = sums(n, too_sure, seed=seed)
            yield verdict_of(recent)
            yield verdict_of(recent, evidence_alarm=True)
            yield verdict_of(calm + recent, recent, change_alarm=True)
            yield verdict_of(calm + recent, recent, evidence_alarm=True, change_alarm=True)


def test_prometheus_says_the_same_sentences(tmp_path: Path) -> None:
    stated = list(verdicts())
    with serve_exporter() as exporter, start_prometheus(tmp_path, [exporter.address]) as prometheus:
        exporter.state(stated)
        prometheus.settle()
        summaries: dict[str, set[str]] = {}
        for alert in prometheus.firing():
            if alert["labels"]["alertname"] in ALERTS.values():
                summary = alert["annotations"]["summary"]
                summaries.setdefault(alert["labels"]["alertname"], set()).add(summary)
        for state, name in ALERTS.items():
            expected = {
                f"{model}: {verdict.sentence}"
                for model, verdict in enumerate(stated)
                if verdict.state is state
            }
            assert len(expected) > 5
            assert summaries[name] == expected
        states = {
            int(sample.labels["model"]): list(VerdictState)[int(sample.value)]
            for sample in prometheus.query("trueprob_verdict")
        }
        assert states == {model: verdict.state for model, verdict in enumerate(stated)}
        needed = {
            int(sample.labels["model"]): int(sample.value)
            for sample in prometheus.query("trueprob_labels_needed")
        }
        assert needed == {
            model: verdict.labels_needed
            for model, verdict in enumerate(stated)
            if verdict.labels_needed is not None
        }
        assert set(states.values()) == set(VerdictState)
