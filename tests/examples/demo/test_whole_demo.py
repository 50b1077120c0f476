"""The whole demo on a real service, as `make demo` runs it, but faster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from examples.demo.__main__ import factory_calibrator, main, own_service
from examples.demo.screen import COLUMNS
from tests.running_service import ROOT, RunningService, running_service
from trueprob.client import Client, ServiceUnreachable


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    with running_service(tmp_path / "state", ROOT / "models") as running:
        yield running


@pytest.mark.integration
def test_the_story_happens_on_the_running_service(
    service: RunningService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEPROB_PORT", str(service.port))
    code = main(["--speed", "1000"])
    shown = capsys.readouterr().out
    assert code == 0, shown
    assert service.url in shown
    calm, shifted, recalibrated = (rows_of(shown, step) for step in "124")
    last = calm[-1]
    assert (last["predictions"], last["labels"]) == (512, 384)
    assert last["ECE"] < 2 * last["floor"]
    assert last["evidence"] < 1
    assert all(row["change"] < 5 for row in calm)
    before = shifted[1]  # the last one before any label of the new conditions
    assert before["labels"] == 512
    assert before["expected"] < last["expected"] - 2
    assert shifted[-1]["evidence"] >= 2
    assert shifted[-1]["change"] >= 5
    assert [row["labels"] for row in recalibrated[:2]] == [0, 0]
    assert recalibrated[0]["change"] == 0
    assert recalibrated[-1]["labels"] == 512
    step_2, step_4 = shown.split("\n2. ")[1].split("\n4. ")
    assert "  ALARM\n   Alarm: change reached" in step_2
    assert "Off by" in step_2
    assert "ALARM" not in step_4
    assert "Too few labels to tell" in step_4
    docs_show(shown)

    # It has happened on the service, which answers as before the demo.
    with Client(service.url) as client:
        assert service.client.get("/v1/models/digits/alarms").json()["items"]
        causes = [promotion.cause for promotion in client.promotions("digits")]
        assert causes == ["rollback", "admitted", "factory"]
        live = client.model("digits")
        (factory,) = (c for c in client.calibrators("digits") if c.origin == "factory")
        assert live.calibrator == factory.calibrator


def rows_of(shown: str, step: str) -> list[dict[str, float]]:
    """What was printed in a step; a dash is not a number."""
    (lines,) = re.findall(rf"^{step}\. .*?(?=^\d\. |\Z)", shown, flags=re.M | re.S)
    rows = re.findall(r"^ +(\d+ +\d+ .*?)(?:  ALARM)?$", lines, flags=re.M)
    cells = [row.replace(" %", "").replace("–", "nan").split() for row in rows]
    return [dict(zip(COLUMNS, map(float, row), strict=True)) for row in cells]


def docs_show(printed: str) -> None:
    """All of docs/demo.md, numbers and ids aside: those are of the machine and the run."""
    page = (ROOT / "docs" / "demo.md").read_text("utf-8")
    shown = page.split("## What it prints")[1].split("```\n")[1]
    assert len(shown.splitlines()) > 20
    # What the alarm's advice says is the service's own business, and its tests'.
    shown = re.sub(r"^   Alarm: .*?\n(?=   +\d)", "", shown, flags=re.M | re.S)
    for part in re.split(r"(^ {5}.*\n)", shown, flags=re.M):  # rows, and paragraphs between them
        assert without_numbers(part) in without_numbers(printed), part


def without_numbers(text: str) -> str:
    varying = re.compile(r"[a-z-]+-[0-9a-f]{12}|[-−]?\d+(\.\d+)?")
    return " ".join(varying.sub("#", text).split())


@pytest.mark.integration
def test_what_was_live_is_put_back_unless_somebody_else_promoted(
    service: RunningService, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(service.url) as client:
        with factory_calibrator(client, set()):
            pass
        factory = client.calibration("digits")
        assert factory.revision == 1, "nothing to change, nothing to put back"

        with np.load(ROOT / "examples/digits_drifted.npz") as rows:
            fit = client.upload("digits", dict(rows), wait_seconds=60)
        assert fit.calibrator is not None
        with factory_calibrator(client, set()):
            assert client.model("digits").calibrator == factory.calibrator
        assert client.model("digits").calibrator == fit.calibrator

        promoted = set[int]()
        with factory_calibrator(client, promoted):
            somebody = client.promote("digits", fit.calibrator, revision=max(promoted))
        assert client.calibration("digits").revision == somebody.revision
        assert "Somebody else promoted meanwhile" in capsys.readouterr().out

        client.promote("digits", factory.calibrator, revision=somebody.revision)
        answer = client.predict("digits", logits=np.eye(10)[:3])
        client.label("digits", answer.prediction_ids or (), [0, 1, 2])
        with factory_calibrator(client, promoted):
            assert "hold 3 labels of earlier traffic" in capsys.readouterr().out


@pytest.mark.integration
def test_a_service_of_its_own_has_default_settings_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEPROB_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TRUEPROB_PORT", "not a port")
    with own_service() as url, Client(url) as client:
        assert client.model("digits").revision == 1
    assert not (tmp_path / "state").exists()
    with Client(url) as client, pytest.raises(ServiceUnreachable):
        client.readiness()


@pytest.mark.parametrize(
    ("flags", "port", "said"),
    [
        (["--speed", "0"], "1", "--speed: expected a number above 0, got 0"),
        (["--speed", "nan"], "1", "--speed: expected a number above 0, got nan"),
        (["--seed", "-1"], "1", "--seed: expected 0 or more, got -1"),
        (["--sped", "2"], "1", "unrecognized arguments: --sped 2"),
        ([], "tcp://10.0.0.1:8000", "TRUEPROB_PORT: expected a port, 0 to 65535, got 'tcp:"),
    ],
)
def test_bad_input_is_one_line(
    flags: list[str],
    port: str,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRUEPROB_PORT", port)
    with pytest.raises(SystemExit) as ended:
        main(flags)
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (2, "")
    assert captured.err.startswith(f"demo: error: {said}")
    assert captured.err.count("\n") == 1
