"""The whole demo, on a service of its own, as `make demo` runs it; only quicker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.running_service import ROOT


def test_the_story_happens(tmp_path: Path) -> None:
    # The settings of a user's own service are not the demo's: its state stays untouched.
    state = tmp_path / "state"
    environment = {**os.environ, "TRUEPROB_STATE_DIR": str(state), "TRUEPROB_ALARM_TOLERANCE": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "service", "demo", "--own", "--speed", "1000", "--json"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    story = json.loads(run.stdout)
    assert run.stdout.count("\n") == 1
    assert story["happened"] is True
    assert story["complaints"] == []
    assert (story["model"], story["seed"], story["own_service"]) == ("digits", 0, True)
    assert not state.exists()
    assert "ALARM" in run.stderr

    calm, shifted, recalibrated = story["chapters"]
    last = calm["readings"][-1]
    assert (last["predictions"], last["labels"]) == (512, 384)
    assert last["ece"] < 2 * last["ece_floor"]
    assert last["evidence_log10"] < 0.5 * last["evidence_threshold_log10"]
    assert last["change_log10"] < last["change_threshold_log10"]
    assert last["alarm"] is None

    before = story["before_labels"]
    assert before["labels"] == 512
    assert before["expected_accuracy"] < last["expected_accuracy"] - 0.02
    assert before["alarm"] is None
    assert before["gap_shift"] > last["gap_shift"]

    risen = shifted["readings"][-1]
    assert risen["evidence_log10"] >= risen["evidence_threshold_log10"]
    assert risen["change_log10"] >= risen["change_threshold_log10"]
    assert story["alarm"]["alarm"]["statistic"] in ("evidence", "change")
    assert story["alarm"]["advice"].startswith("Miscalibrated")

    fit = story["fit"]
    assert fit["verdict"]["admitted"] is True
    assert (fit["promoted"], fit["revision"]) == (True, 2)
    first, end = recalibrated["readings"][0], recalibrated["readings"][-1]
    assert first["revision"] == end["revision"] == 2
    assert first["labels"] == 0
    assert (first["evidence_log10"], first["change_log10"]) == (0.0, 0.0)
    assert end["labels"] == 512
    assert end["miscalibrated"] is False
    assert end["alarm"] is None
    assert all(
        r["evidence_log10"] < r["evidence_threshold_log10"] for r in recalibrated["readings"]
    )
