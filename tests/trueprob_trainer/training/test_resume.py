"""A run that is stopped and resumed gives the same result as one that was not stopped."""

import contextlib
import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.errors import BadInput, Interrupted
from trueprob_trainer.training.finished_run import load_training
from trueprob_trainer.training.loop import train_with
from trueprob_trainer.training.progress import CsvLog, TensorBoardLog
from trueprob_trainer.training.run_folder import RunFolder

pytestmark = pytest.mark.slow

PLAIN = TrainConfig(data="digits", epochs=3, batch_size=64, seed=5)
EVERYTHING = dataclasses.replace(
    PLAIN,
    network="tests.trueprob_trainer.training.test_resume:with_dropout",
    schedule="cosine",
    warmup=0.1,
    crop=1,
    flip=True,
    cutout=2,
    mixup=0.4,
    label_smoothing=0.1,
    ema=0.9,
    accumulation=2,
    label_noise=0.2,
)


def with_dropout(*, channels: int, n_classes: int) -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(64 * channels, 32), nn.BatchNorm1d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(0.3), nn.Linear(32, n_classes))


class StopAt:
    """Sends this process a signal while the loss of a certain step is computed."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __call__(self, *ignored: object) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def weights(path: Path) -> dict[str, torch.Tensor]:
    training = load_training(RunFolder(path))
    return training.model.state_dict()


def stopped_and_resumed(config: TrainConfig, path: Path, step: int) -> None:
    run = RunFolder.create(path, config)
    handle = nn.modules.module.register_module_forward_hook(StopAt(step))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(Interrupted, match="SIGTERM in epoch"):
            train_with(config, run=run)
    finally:
        handle.remove()
    assert signal.getsignal(signal.SIGTERM) is handler
    with pytest.raises(BadInput, match="epochs, --resume continues it"):
        load_training(run)
    train_with(config, run=run, resume=True)


@pytest.mark.parametrize("config", [PLAIN, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("modules_run", [40, 150])
def test_a_stopped_run_goes_on_to_the_same_network(
    tmp_path: Path, config: TrainConfig, modules_run: int
) -> None:
    whole = RunFolder.create(tmp_path / "whole", config)
    train_with(config, run=whole)
    stopped_and_resumed(config, tmp_path / "stopped", modules_run)
    expected = weights(tmp_path / "whole")
    for name, value in weights(tmp_path / "stopped").items():
        assert torch.equal(value, expected[name]), name
    texts = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "stopped")]
    assert texts[0] == texts[1]


def test_the_options_make_another_network() -> None:
    reference = train_with(dataclasses.replace(EVERYTHING, epochs=1)).model.state_dict()
    for option, value in (("crop", 0), ("flip", False), ("cutout", 0), ("mixup", 0.0),
                          ("label_smoothing", 0.0), ("ema", 0.0), ("warmup", 0.0),
                          ("label_noise", 0.0), ("accumulation", 1)):  # fmt: skip
        other = dataclasses.replace(EVERYTHING, epochs=1, **{option: value})
        changed = train_with(other).model.state_dict()
        assert any(not torch.equal(changed[n], reference[n]) for n in reference), option


def test_a_run_that_died_between_checkpoints_repeats_from_the_last(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", PLAIN)

    def die(history: Sequence[dict[str, float | int]]) -> None:
        if len(history) == 2:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        train_with(PLAIN, run=run, logs=[die], checkpoint_seconds=0)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "loss": 0}\n')  # written after the checkpoint
    resumed = train_with(PLAIN, run=run, resume=True)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(resumed.history)
    assert resumed.history == train_with(PLAIN).history


def test_a_run_without_a_checkpoint_begins_again(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", PLAIN)
    run.append_metrics({"epoch": 1, "loss": 9.0})
    assert train_with(PLAIN, run=run, resume=True).history == train_with(PLAIN).history


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", PLAIN)
    train_with(PLAIN, run=run)
    other = dataclasses.replace(PLAIN, ema=0.9)
    with pytest.raises(BadInput, match="does not belong to"):
        train_with(other, run=run, resume=True)


def test_logs_hold_the_history_also_after_a_resumption(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", PLAIN)
    steady = dataclasses.replace(PLAIN, schedule="constant")
    short = dataclasses.replace(steady, epochs=2)
    with contextlib.closing(TensorBoardLog(run)) as events_log:
        train_with(short, run=run, logs=[CsvLog(run), events_log])
    with contextlib.closing(TensorBoardLog(run)) as events_log:
        training = train_with(steady, run=run, resume=True, logs=[CsvLog(run), events_log])
    with (run.path / "metrics.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert rows == list(training.history)
    events = b"".join(p.read_bytes() for p in run.path.glob("events.out.tfevents.*"))
    assert events.count(b"train/loss") == 3
    for row in training.history:
        assert np.float32(row["loss"]).tobytes() in events
    RunFolder.create(tmp_path / "run", PLAIN, overwrite=True)
    assert [p.name for p in run.path.iterdir()] == ["config.json"]


def test_the_command_saves_on_sigterm_and_resumes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "trueprob_trainer",
        "train",
        "--run",
        str(tmp_path / "r"),
    ]
    process = subprocess.Popen(
        [*command, "--data", "digits", "--epochs", "100000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "trainer")},
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "r" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.startswith("trainer: SIGTERM in epoch")
    assert said.count("\n") == 1
    checkpoint = RunFolder(tmp_path / "r").checkpoint()
    assert checkpoint["epoch"] >= 1
    lines = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == checkpoint["epoch"]


def test_a_run_without_a_folder_leaves_the_signals_alone() -> None:
    seen = []
    train_with(TrainConfig(epochs=1), logs=[lambda _: seen.append(signal.getsignal(signal.SIGINT))])
    assert seen == [signal.getsignal(signal.SIGINT)]
