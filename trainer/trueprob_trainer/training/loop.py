"""The training loop.

A run is seeded and, for a fixed number of threads on one machine, repeatable to the last bit, also
if it is stopped and resumed. SIGTERM and Ctrl-C make it save and stop; a second signal stops the
process at once. Only train rows decide anything: calibration rows are scored after each epoch, for
people to look at, and test rows are not touched.
"""

import functools
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import LabelledImages, Split
from trueprob_trainer.data.recipe import prepare
from trueprob_trainer.errors import BadInput, Interrupted
from trueprob_trainer.sharpness_aware import checkpointed
from trueprob_trainer.training.batches import Batches
from trueprob_trainer.training.building import (
    build_average,
    build_model,
    build_optimiser,
    build_schedule,
)
from trueprob_trainer.training.finished_run import Training, prepare_for_evaluation
from trueprob_trainer.training.progress import silent
from trueprob_trainer.training.ranks import ALONE, Ranks
from trueprob_trainer.training.run_folder import RunFolder
from trueprob_trainer.training.state import LoopState
from trueprob_trainer.training.teacher import Teacher

__all__ = ["Log", "begin", "checked_data", "train_with"]

CHECKPOINT_SECONDS = 60.0  # between checkpoints; a power cut costs this much work
SIGNALS = (signal.SIGTERM, signal.SIGINT)

Log = Callable[[Sequence[dict[str, float | int]]], None]


def train_with(
    config: TrainConfig,
    *,
    data: LabelledImages | None = None,  # the result of prepare(config), if it was called before
    run: RunFolder | None = None,  # gets checkpoints, and a line of metrics per epoch
    resume: bool = False,  # continue from the run's checkpoint, if there is one
    logs: Sequence[Log] = (),  # called with the whole history after every epoch
    progress: Callable[[int, int, str], None] = silent,  # progress(epochs_done, epochs, text)
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ranks: Ranks = ALONE,  # only the first writes and reports
) -> Training:
    """Train a network; with a run folder, a signal saves the run and raises `Interrupted`."""
    started = saved_at = time.perf_counter()
    device = device_of(config)
    data = prepare(config) if data is None else data

    def save(state: LoopState) -> None:
        saved = state.checkpoint(_seconds(state, started))  # by all ranks together
        if run is not None and ranks.first:
            run.save_checkpoint(saved)

    with repeatable(config, device), Interruption(enabled=run is not None) as interruption:
        state = begin(config, data, device, ranks)
        if run is not None and resume and (run.path / "checkpoint.pt").exists():
            state.restore(run.checkpoint())
        if run is not None and resume and ranks.first:
            run.write_metrics(state.history)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.bf16)
        held_out = data.of(Split.CALIBRATION)
        network = state.optimiser.model
        assert network is not None  # noqa: S101 - for types: begin() gave it
        while state.epoch < config.epochs:
            state.order = state.batches.order() if state.order is None else state.order
            for images, targets in state.batches.of(state.order[state.step :]):
                forward = functools.partial(_forward, network, autocast)
                parts = zip(*(t.chunk(config.accumulation) for t in (images, targets)), strict=True)
                closures = [functools.partial(forward, *part) for part in parts]
                with checkpointed(state.model.network.children() if config.checkpointing else ()):
                    loss = state.optimiser.step(closures)
                assert loss is not None  # noqa: S101 - for types: there are closures
                state.losses.append(loss)
                state.schedule.step()
                if state.average is not None:
                    state.average.update_parameters(state.model)
                state.step += 1
                if ranks.any(interruption.signal is not None) and run is not None:
                    save(state)
                    received = interruption.signal or signal.SIGTERM
                    raise Interrupted(
                        received,
                        f"{received.name} in epoch {state.epoch + 1}: "
                        f"saved in {run.path}, --resume continues it",
                    )
            row = state.finish_epoch(held_out)
            if not math.isfinite(row["loss"]):
                raise BadInput(
                    f"loss is {row['loss']} in epoch {state.epoch}: lower learning_rate or rho"
                )
            progress(state.epoch, config.epochs, _progress_text(row))
            if run is not None:
                if ranks.first:
                    run.append_metrics(row)
                if ranks.any(time.perf_counter() - saved_at > checkpoint_seconds):
                    save(state)
                    saved_at = time.perf_counter()
            for log in logs:
                log(state.history)
        seconds = _seconds(state, started)
        save(state)
    return Training(
        config, data, prepare_for_evaluation(state.scored), tuple(state.history), seconds
    )


def _progress_text(row: dict[str, float | int]) -> str:
    text = f"loss {row['loss']:.5f} nats"
    if "held_out_nll" in row:
        text += (
            f"; held out: accuracy {100 * row['held_out_accuracy']:.1f} %, NLL "
            f"{row['held_out_nll']:.4f} nats, debiased ECE {100 * row['held_out_ece']:.2f} %"
        )
    return text


def begin(
    config: TrainConfig, data: LabelledImages, device: torch.device, ranks: Ranks = ALONE
) -> LoopState:
    """The state of a run before its first step; torch must be seeded."""
    model = build_model(config, data).to(device).train()
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        model.channels_last = True
    optimiser = build_optimiser(config, model, ranks.distributed(model))
    teacher = None
    if config.teacher:
        names = data.class_names
        teacher = Teacher.of(config.teacher, config.distill_temperature, device, names)
    batches = Batches(config, data, model.mean, device, teacher, ranks)
    schedule = build_schedule(config, optimiser.base, config.epochs * batches.n_batches)
    if ranks.rank:
        torch.manual_seed(ranks.seed(config.seed))  # dropout masks of its own
    average = build_average(config, model)
    return LoopState(model, optimiser, schedule, average, batches, ranks=ranks)


def checked_data(config: TrainConfig) -> LabelledImages:
    """The data of a recipe, after a check that :func:`train_with` could start with them."""
    data, device = prepare(config), device_of(config)
    with repeatable(config, device):
        begin(config, data, device)
    return data


def _forward(
    model: nn.Module,
    autocast: torch.autocast,
    images: Tensor,
    targets: Tensor,
    rows: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The closure of the optimisers over one batch, or over some of its rows."""
    if rows is not None:
        images, targets = images[rows], targets[rows]
    with autocast:
        logits: Tensor = model(images)
    return logits.float(), targets


def _seconds(state: LoopState, started: float) -> float:
    return state.seconds + time.perf_counter() - started


def device_of(config: TrainConfig) -> torch.device:
    """The device of a recipe; a GPU is refused if torch finds none."""
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise BadInput("device must be cpu or auto here, torch finds no GPU, got cuda")
    on_gpu = config.device == "cuda" or (config.device == "auto" and available)
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


@contextmanager
def repeatable(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Seed torch, set its threads and kernels, and restore everything afterwards."""
    threads = torch.get_num_threads()
    strict = torch.are_deterministic_algorithms_enabled()
    benchmark = torch.backends.cudnn.benchmark
    if config.deterministic:
        # cuBLAS reads it at its first use; torch needs it in deterministic mode.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        torch.use_deterministic_algorithms(config.deterministic or strict)
        torch.backends.cudnn.benchmark = device.type == "cuda" and not config.deterministic
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = benchmark
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)


class Interruption:
    """Records a signal, which the loop checks after every step; for the main thread only."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        if self._enabled and threading.current_thread() is threading.main_thread():
            for each in SIGNALS:
                self._before[each] = signal.signal(each, self._record)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._restore_handlers()

    def _record(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal's form
        self.signal = signal.Signals(number)
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        while self._before:
            each, handler = self._before.popitem()
            signal.signal(each, handler)
