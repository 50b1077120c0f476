"""A service that runs finds what is registered beside it."""

import time
from pathlib import Path

import httpx
import pytest

from tests.running_service import ROOT, running_service
from trueprob_service.register.command import main

pytestmark = pytest.mark.integration


def test_a_registered_network_is_served_without_a_restart(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    with running_service(
        tmp_path / "state", models, "--repository-poll-seconds", "0.05"
    ) as service:
        demo, rows = ROOT / "models/digits/1/model.onnx", ROOT / "examples/digits_calibration.npz"
        flags = ["--name", "mine", "--calibration", str(rows), "--models", str(models)]
        assert main([str(demo), *flags], {}) == 0
        answer = until_found(service.client)
        assert (answer["version"], answer["revision"]) == (1, 1)
        assert answer["calibrator"].startswith("smart-")
        assert service.interrupt() == 0


def until_found(client: httpx.Client) -> dict:
    for _ in range(600):
        picture = (ROOT / "examples/seven.png").read_bytes()
        answer = client.post(
            "/v1/models/mine/probabilities", content=picture, headers={"content-type": "image/png"}
        )
        if answer.status_code == 200:
            return answer.json()
        assert answer.status_code == 404, answer.text
        time.sleep(0.05)
    raise AssertionError("the model was not found within half a minute")
