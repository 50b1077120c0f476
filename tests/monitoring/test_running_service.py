"""A real Prometheus scrapes the running service: its ECE is ours, on the same labels."""

import time
from pathlib import Path

import numpy as np
import pytest

from tests.monitoring.prometheus_server import start_prometheus
from tests.running_service import ROOT, running_service
from trueprob.scores.binned import BinnedCalibration

pytestmark = pytest.mark.integration
# The service reads its totals from the database at most every three seconds.
CACHE_SECONDS = 3.2


def test_the_scraped_ece_is_the_librarys(tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    totals = BinnedCalibration.zeros()
    with running_service(tmp_path / "state", ROOT / "models") as service:
        address = service.url.removeprefix("http://")
        with start_prometheus(tmp_path, [address]) as prometheus:
            assert prometheus.query("trueprob:ece_ratio:total") == []
            # A pair has its bins from its first answered rows on.
            service.client.post("/v1/models/digits/probabilities", json={"logits": [[0.0] * 10]})
            prometheus.settle()
            for _ in range(3):
                logits = random.normal(0, 4, (400, 10)).astype(np.float32)
                answer = service.client.post(
                    "/v1/models/digits/probabilities?receipts=true",
                    json={"logits": logits.astype(float).tolist()},
                ).json()
                # Right three times in four: far from what these confidences say.
                predicted = np.array(answer["prediction"])
                wrong = random.random(400) < 0.25
                labels = np.where(wrong, (predicted + 1) % 10, predicted)
                counted = service.client.post(
                    "/v1/models/digits/labels",
                    json={"prediction_ids": answer["prediction_ids"], "labels": labels.tolist()},
                )
                assert counted.json()["accepted"] == 400
                confidence = np.float32(answer["confidence"]).astype(np.float64)
                totals = totals.update(confidence, predicted == labels)
                time.sleep(CACHE_SECONDS)
                prometheus.settle()
            (ece,) = prometheus.query("trueprob:ece_ratio:total")
            assert ece.value == pytest.approx(totals.ece(), abs=1e-9)
            assert ece.labels["calibrator"] == answer["calibrator"]
            assert prometheus.value("trueprob:labels:total") == totals.n
            for window in ("1h", "24h"):
                value = prometheus.value(f"trueprob:ece_ratio:increase{window}")
                assert value == pytest.approx(totals.ece(), rel=0.02)
            unhealthy = [rule["name"] for rule in prometheus.rules() if rule["health"] != "ok"]
            assert unhealthy == []
