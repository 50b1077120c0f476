"""The command: bad input is one line; on a running service, what was live is live again."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.__main__ import main
from service.demo.command import main as demo
from service.demo.stage import set_stage, why_not
from tests.running_service import ROOT, running_service
from trueprob.client import (
    Client,
    ModelDescription,
    ServiceProblem,
    ServiceUnreachable,
    VersionSummary,
)


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
        (["--url", "nonsense"], "--url: expected http://HOST:PORT or https://…, got 'nonsense'"),
        (["--url", "http://[::1"], "--url: expected http://HOST:PORT"),
        (["--url", "http://127.0.0.1:99999"], "--url: expected http://HOST:PORT"),
        (["--url", ""], "--url: expected http://HOST:PORT"),
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


class Asked:
    """Answers with what it is given: a description, or a problem to raise."""

    def __init__(self, model: Any, metrics: Any = "") -> None:
        self._model, self._metrics = model, metrics

    def readiness(self) -> None: ...

    def model(self, name: str) -> Any:
        if isinstance(self._model, Exception):
            raise self._model
        return self._model

    def metrics(self) -> str:
        if isinstance(self._metrics, Exception):
            raise self._metrics
        return self._metrics


def described(**changes: Any) -> ModelDescription:
    live = VersionSummary(1, True, "smart-8af4e5cf4aaa", 10, True)
    values = {
        "model": "digits", "version": 1, "calibrator": "smart-8af4e5cf4aaa", "revision": 1,
        "n_classes": 10, "class_names": (), "declared": False, "versions": (live,),
        "unavailable": (),
    }  # fmt: skip
    return ModelDescription(**{**values, **changes})


NO_NETWORK = VersionSummary(1, True, "identity-0", 10, False)


@pytest.mark.parametrize(
    ("client", "said"),
    [
        (Asked(described()), None),
        (Asked(described(n_classes=3)), "is not the demo model"),
        (Asked(described(versions=(NO_NETWORK,))), "is not the demo model"),
        (Asked(ServiceProblem(404, "model_not_found", "…")), "has no model 'digits'"),
        (Asked(ServiceProblem(401, "unauthenticated", "a key is needed")), "a key is needed"),
        (Asked(described(), ServiceProblem(404, "not_found", "…")), "TRUEPROB_REPLICAS"),
        (Asked(ServiceUnreachable("…")), "no service answers at http://there"),
    ],
)
def test_why_a_service_will_not_do(client: Asked, said: str | None) -> None:
    reason = why_not(client, "http://there", "digits")
    assert (reason is None) if said is None else (said in (reason or ""))


def test_what_was_live_is_put_back_unless_somebody_else_promoted(tmp_path: Path) -> None:
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
        assert fit.calibrator is not None
        stage = set_stage(client, "digits")
        assert client.model("digits").calibrator == factory
        assert stage.put_back(client)
        assert client.model("digits").calibrator == fit.calibrator

        stage = set_stage(client, "digits")
        somebody = client.promote("digits", fit.calibrator, revision=max(stage.made))
        assert not stage.put_back(client)
        assert client.calibration("digits").revision == somebody.revision

        set_stage(client, "digits")
        answer = client.predict("digits", logits=np.eye(10)[:3])
        assert answer.prediction_ids is not None
        client.label("digits", answer.prediction_ids, [0, 1, 2])
        stage = set_stage(client, "digits")
        assert stage.earlier_labels == 3, "the window is the pair's, whatever the promotion"
        assert len(stage.made) == 1
