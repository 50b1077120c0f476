"""The whole demo on a real service, as `make demo` runs it; only quicker."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.demo.command import main as demo
from service.demo.own_service import own_service
from tests.running_service import ROOT, running_service
from trueprob.client import Client, ServiceUnreachable


def test_the_story_happens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_service(tmp_path / "state", ROOT / "models") as service:
        code = demo(["--url", service.url, "--speed", "1000", "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert captured.out.count("\n") == 1
        story = json.loads(captured.out)
        assert (story["happened"], story["complaints"]) == (True, [])
        assert (story["model"], story["seed"], story["own_service"]) == ("digits", 0, False)
        assert "ALARM" in captured.err
        calm, shifted, recalibrated = (chapter["readings"] for chapter in story["chapters"])
        it_is_calm(calm[-1])
        it_falls_before_the_labels(calm[-1], story["before_labels"])
        both_rise(shifted[-1])
        assert story["alarm"]["alarm"]["statistic"] in ("evidence", "change")
        assert story["alarm"]["advice"].startswith("Miscalibrated")
        fit = story["fit"]
        assert fit["verdict"]["admitted"] is True
        assert (fit["promoted"], fit["revision"]) == (True, 2)
        it_stays_low(recalibrated)

        quickstart_shows(captured.err)

        # The numbers are the service's own, and it answers as before the demo.
        with Client(service.url) as client:
            alarms = service.client.get("/v1/models/digits/alarms").json()["items"]
            assert story["alarm"]["alarm"]["id"] in [alarm["id"] for alarm in alarms]
            causes = [promotion.cause for promotion in client.promotions("digits")]
            assert causes == ["rollback", "admitted", "factory"]
            assert client.model("digits").calibrator == calm[-1]["calibrator"]


def quickstart_shows(printed: str) -> None:
    """All lines of the quickstart page, apart from numbers and ids, which vary by machine."""
    varying = re.compile(r"smart-[0-9a-f]{12}|[-−]?\d+(\.\d+)?")
    lines = {" ".join(varying.sub("#", line).split()) for line in printed.splitlines()}
    page = (ROOT / "docs/quickstart.md").read_text("utf-8")
    shown = page.split("## Watch it happen")[1].split("```\n")[2]
    assert len(shown.splitlines()) > 20
    # What the alarm's advice says is the service's own business, and its tests'.
    shown = re.sub(r"^   Alarm\..*?\n(?=   +\d)", "", shown, flags=re.M | re.S)
    for line in shown.splitlines():
        assert " ".join(varying.sub("#", line).split()) in lines, line


def it_is_calm(last: dict[str, Any]) -> None:
    assert (last["predictions"], last["labels"]) == (512, 384)
    assert last["ece"] < 2 * last["ece_floor"]
    assert last["evidence_log10"] < 0.5 * last["evidence_threshold_log10"]
    assert last["change_log10"] < last["change_threshold_log10"]
    assert last["alarm"] is None


def it_falls_before_the_labels(last: dict[str, Any], before: dict[str, Any]) -> None:
    assert before["labels"] == 512
    assert before["expected_accuracy"] < last["expected_accuracy"] - 0.02
    assert before["alarm"] is None


def both_rise(last: dict[str, Any]) -> None:
    for statistic in ("evidence", "change"):
        assert last[f"{statistic}_log10"] >= last[f"{statistic}_threshold_log10"]


def it_stays_low(readings: list[dict[str, Any]]) -> None:
    first, last = readings[0], readings[-1]
    assert {reading["revision"] for reading in readings} == {2}
    assert (first["labels"], first["change_log10"]) == (0, 0.0)
    assert first["evidence_log10"] == pytest.approx(0.0, abs=1e-12)
    assert last["labels"] == 512
    assert last["miscalibrated"] is False
    assert all(reading["alarm"] is None for reading in readings)


def test_a_service_of_its_own_has_default_settings_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEPROB_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("TRUEPROB_PORT", "not a port")
    with own_service(ROOT / "models") as url, Client(url) as client:
        assert client.model("digits").revision == 1
    assert not (tmp_path / "state").exists()
    with Client(url) as client, pytest.raises(ServiceUnreachable):
        client.readiness()
