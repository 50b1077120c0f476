"""The command: bad input is one line; on a running service, what was live is live again."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from service.__main__ import main
from service.demo.command import main as demo
from service.demo.stage import set_stage
from tests.running_service import ROOT, running_service
from trueprob.client import Client


@pytest.fixture
def stranger() -> Iterator[str]:
    """Something on a port that is no service of ours."""
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--speed", "0"], "--speed: expected a number above 0, got 0"),
        (["--speed", "nan"], "--speed: expected a number above 0, got nan"),
        (["--speed", "fast"], "--speed: invalid"),
        (["--seed", "-1"], "--seed: expected 0 or more, got -1"),
        (["--sped", "2"], "unrecognized arguments: --sped 2"),
        (["--own", "--url", "http://127.0.0.1:1"], "--own and --url exclude each other"),
        (["--url", "http://127.0.0.1:1"], "no service answers at http://127.0.0.1:1: start one"),
        (["--url", "nonsense"], "no service answers at nonsense"),
        (["--url", "http://127.0.0.1:1", "--key-file", "/no/such"], "--key-file /no/such:"),
    ],
)
def test_bad_input_is_one_line(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *flags]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("trueprob-service demo: error: ")
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_what_is_no_service_of_ours_is_refused(
    stranger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo(["--url", stranger]) == 2
    captured = capsys.readouterr()
    assert stranger in captured.err.splitlines()[-1]


def test_a_service_without_the_model_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    with running_service(tmp_path / "state", tmp_path / "models") as service:
        assert demo(["--url", service.url]) == 2
        assert "has no model 'digits'" in capsys.readouterr().err
        service.client.put("/v1/models/digits", json={"n_classes": 3}).raise_for_status()
        assert demo(["--url", service.url]) == 2
        assert "is not the demo model" in capsys.readouterr().err


def test_a_running_service_gets_back_what_was_live(tmp_path: Path) -> None:
    with (
        running_service(tmp_path / "state", ROOT / "models") as service,
        Client(service.url) as client,
    ):
        untouched = set_stage(client, "digits")
        assert (untouched.revision, untouched.made) == (1, set())
        assert untouched.put_back(client)
        assert client.calibration("digits").revision == 1

        factory = client.model("digits").calibrator
        with np.load(ROOT / "examples/digits_calibration.npz") as rows:
            fit = client.upload("digits", dict(rows), wait_seconds=60)
        assert fit.revision == 2
        stage = set_stage(client, "digits")
        assert client.model("digits").calibrator == factory
        assert stage.made == {3}
        assert stage.put_back(client)
        assert client.model("digits").calibrator == fit.calibrator

        stage = set_stage(client, "digits")
        somebody = client.promote("digits", fit.calibrator, revision=max(stage.made))
        assert not stage.put_back(client)
        assert client.calibration("digits").revision == somebody.revision

        stage = set_stage(client, "digits")
        answer = client.predict("digits", logits=np.eye(10)[:3])
        client.label("digits", answer.prediction_ids, [0, 1, 2])
        stage = set_stage(client, "digits")
        assert stage.earlier_labels == 3, "the window is the pair's, whatever the promotion"
        assert len(stage.made) == 1
