"""Two processes of torchrun: one run folder, the same network, saved and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from trueprob_trainer.__main__ import main
from trueprob_trainer.errors import BadInput
from trueprob_trainer.training.ranks import Ranks
from trueprob_trainer.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

# No layer that mixes rows, so that two processes are one with two micro-batches.
NETWORK = """
import torch

def linear(channels, n_classes, image_size):
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(channels * image_size[0] * image_size[1], n_classes)
    )
"""
TRAIN = [
    "train", "--data", "digits", "--network", "own_network:linear", "--optimiser", "sam",
    "--learning-rate", "0.02", "--device", "cpu",
]  # fmt: skip
TORCHRUN = [
    sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
    "-m", "trueprob_trainer", "--",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own_network.py").write_text(NETWORK)
    return tmp_path


def train(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, *TRAIN, *options], cwd=folder, env=environment(), timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def weights(run: Path) -> dict[str, torch.Tensor]:
    return RunFolder(run).checkpoint()["model"]  # type: ignore[no-any-return]


def test_two_processes_train_as_one_also_when_they_are_stopped_and_resumed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    process = subprocess.Popen(
        [*TORCHRUN, *TRAIN, "--run", "stopped", "--epochs", "20"], cwd=folder, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (folder / "stopped" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) != 0
    saved = RunFolder(folder / "stopped").checkpoint()
    assert (saved["epoch"] < 20, len(saved["ranks"])) == (True, 2)

    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["train", "--run", "stopped", "--resume"]) == 2
    assert "checkpoint.pt is of 2 ranks, got 1: resume with as many" in capsys.readouterr().err
    resumed = train(folder, "--run", "stopped", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stdout.count("trained 20 epochs") == 1
    assert len((folder / "stopped" / "metrics.jsonl").read_text().splitlines()) == 20
    assert main([*TRAIN, "--run", "alone", "--epochs", "20", "--accumulation", "2"]) == 0
    expected = weights(folder / "alone")
    for name, value in weights(folder / "stopped").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    rows = torch.arange(60).view(2, 30)
    assert torch.equal(Ranks(1, 3).part_of(rows), rows[:, 10:20])
    with pytest.raises(BadInput, match="batch_size must be a multiple of the 4 ranks"):
        Ranks(0, 4).part_of(rows)
