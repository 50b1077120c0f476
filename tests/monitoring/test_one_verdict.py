"""All places that state a verdict state the same one: a service, Prometheus, and the page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import listed, rendered, text_of
from tests.monitoring.monitoring_files import panels, with_variables
from tests.monitoring.prometheus_server import Prometheus, start_prometheus
from tests.running_service import ROOT, RunningService, running_service

pytestmark = [pytest.mark.integration, pytest.mark.slow]
MODEL, OTHER = "digits", "cifar10"
PATH = f"/v1/models/{MODEL}"
ALERTS = {"off": "TrueprobMiscalibrated", "changed_lately": "TrueprobChange"}
# The service reads its totals from the database at most every three seconds.
CACHE_SECONDS = 3.2
ROWS = 1_000  # labels a request
CALM_LABELS = 12_000  # enough to prove the tolerance of 0.05


@dataclass
class Places:
    """Reads the verdict in every place that states one."""

    service: RunningService
    prometheus: Prometheus
    profile: Path

    def check(self, state: str) -> str:
        """The sentence, if every place states this verdict on the model."""
        verdict = self.get(f"{PATH}/calibration")["verdict"]
        assert verdict["state"] == state, verdict
        items = {item["model"]: item["verdict"] for item in self.get("/v1/models")["items"]}
        assert items[MODEL] == self.get(PATH)["verdict"] == verdict
        assert items[OTHER]["state"] == "unknown"
        self.check_page(verdict)
        time.sleep(CACHE_SECONDS)
        self.prometheus.settle()
        self.check_dashboard(verdict)
        self.check_alerts(verdict)
        sentence = verdict["sentence"]
        assert isinstance(sentence, str)
        return sentence

    def get(self, path: str) -> Any:
        return self.service.client.get(path).raise_for_status().json()

    def check_page(self, verdict: dict[str, Any]) -> None:
        page = rendered(self.service, self.profile, MODEL)
        word = verdict["state"].replace("_", " ")
        assert text_of(page, "problem") == ""
        assert (text_of(page, "model"), text_of(page, "state")) == (MODEL, word)
        assert text_of(page, "sentence") == verdict["sentence"]
        rows = listed(page)
        assert rows[MODEL][0] == word
        assert rows[OTHER][0] == "unknown"

    def check_dashboard(self, verdict: dict[str, Any]) -> None:
        by_title = {panel["title"]: panel for panel in panels()}
        tile = by_title["Verdict"]
        texts = tile["fieldConfig"]["defaults"]["mappings"][0]["options"]
        for title in ("Verdict", "All models"):
            values = self.by_model(by_title[title])
            assert verdict["sentence"].startswith(texts[f"{values[MODEL]:.0f}"]["text"])
            assert texts[f"{values[OTHER]:.0f}"]["text"] == "Too few labels to tell"
        low, high = (self.by_model(by_title["Error (low to high)"], index) for index in (0, 1))
        assert (low[MODEL], high[MODEL]) == (verdict["error_low"], verdict["error_high"])
        assert self.by_model(by_title["Labels of the error"])[MODEL] == verdict["labels"]
        needed = self.by_model(by_title["Labels still needed"])
        assert needed.get(MODEL) == verdict["labels_needed"]

    def by_model(self, panel: dict[str, Any], target: int = 0) -> dict[str, float]:
        samples = self.prometheus.query(with_variables(panel["targets"][target]["expr"]))
        values = {sample.labels["model"]: sample.value for sample in samples}
        assert len(values) == len(samples)
        return values

    def check_alerts(self, verdict: dict[str, Any]) -> None:
        firing = {
            alert["labels"]["alertname"]: alert["annotations"]["summary"]
            for alert in self.prometheus.firing()
        }
        name = ALERTS.get(verdict["state"])
        assert firing == ({} if name is None else {name: f"{MODEL}: {verdict['sentence']}"})

    def send_labels(self, n: int, *, calibrated: bool) -> None:
        """Labels of n predictions: right as often as their confidence says, or never."""
        logits = RANDOM.normal(0, 3, (n, 10)).astype(np.float32)
        answer = self.service.client.post(
            f"{PATH}/probabilities?receipts=true", json={"logits": logits.astype(float).tolist()}
        ).json()
        predicted = np.array(answer["prediction"])
        right = (RANDOM.random(n) < np.array(answer["confidence"])) & calibrated
        labels = np.where(right, predicted, (predicted + 1) % 10).tolist()
        body = {"prediction_ids": answer["prediction_ids"], "labels": labels}
        counted = self.service.client.post(f"{PATH}/labels", json=body)
        assert counted.json()["accepted"] == n

    def send_until(self, state: str) -> None:
        for _ in range(200):
            self.send_labels(10, calibrated=False)
            if self.get(PATH)["verdict"]["state"] == state:
                return
        pytest.fail(f"2 000 wrong labels, and the model is not {state}")


RANDOM = np.random.default_rng(5)


def test_every_place_states_the_same_verdict(tmp_path: Path) -> None:
    with (
        running_service(
            tmp_path / "state", ROOT / "models", "--alarm-tolerance", "0.05"
        ) as service,
        start_prometheus(tmp_path, [service.url.removeprefix("http://")]) as prometheus,
    ):
        places = Places(service, prometheus, tmp_path / "profile")
        assert places.check("unknown") == "Too few labels to tell: none has come yet."
        places.send_labels(ROWS, calibrated=True)
        assert f"on average over {ROWS} labels" in places.check("unknown")
        for _ in range(CALM_LABELS // ROWS - 1):
            places.send_labels(ROWS, calibrated=True)
        assert f"over {CALM_LABELS} labels, tolerance 5.0 %" in places.check("within_tolerance")
        places.send_until("changed_lately")
        assert places.check("changed_lately") == "Changed lately: no labels since the alarm."
        places.send_labels(20, calibrated=False)
        assert "over the 20 labels since the alarm" in places.check("changed_lately")
        (alarm,) = places.get(f"{PATH}/alarms")["items"]
        service.client.post(f"{PATH}/alarms/{alarm['id']}/acknowledge").raise_for_status()
        assert "on average over 20 labels" in places.check("unknown")
        places.send_until("off")
        assert places.check("off").startswith("Off by ")
        rows = (ROOT / "examples" / "digits_calibration.npz").read_bytes()
        fit = service.client.post(
            f"{PATH}/calibration-sets?promote=always",
            content=rows,
            headers={"Content-Type": "application/x-npz", "Prefer": "wait=60"},
        ).json()
        assert fit["promoted"], fit
        assert places.check("unknown") == "Too few labels to tell: none has come yet."
