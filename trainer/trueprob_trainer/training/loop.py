"""The training loop.

Seeded and, for a fixed number of threads on one machine, repeatable to the last bit, also when it
is stopped and taken up again. Only rows of the train split are looked at; nothing here is chosen by
calibration or test rows.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import LabelledImages
from trueprob_trainer.data.recipe import prepare
from trueprob_trainer.errors import BadInput, Interrupted
from trueprob_trainer.training.batches import Batches
from trueprob_trainer.training.building import (
    build_average,
    build_model,
    build_optimiser,
    build_schedule,
)
from trueprob_trainer.training.finished_run import Training, ready
from trueprob_trainer.training.interruption import Interruption
from trueprob_trainer.training.progress import silent
from trueprob_trainer.training.repeatable import device_of, repeatable
from trueprob_trainer.training.run_folder import RunFolder
from trueprob_trainer.training.state import LoopState
from trueprob_trainer.training.teacher import Teacher

Log = Callable[[Sequence[dict[str, float | int]]], None]

__all__ = ["Log", "begin", "checked_data", "train_with"]

CHECKPOINT_SECONDS = 60.0  # between checkpoints, at ends of epochs: what a power cut may cost


def train_with(
    config: TrainConfig,
    *,
    data: LabelledImages | None = None,  # what `prepare(config)` gave, where it was called before
    run: RunFolder | None = None,  # gets a line of metrics an epoch, and checkpoints
    resume: bool = False,  # go on from the run's checkpoint, where there is one
    logs: Sequence[Log] = (),  # each is called with the whole history after every epoch
    progress: Callable[[int, int, str], None] = silent,  # `progress(epochs_done, epochs, text)`
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> Training:
    """Train a network.

    Raises `BadInput`: unknown data or network, or fewer train rows than one batch. Raises
    `Interrupted`: SIGTERM or Ctrl-C, with a run folder; the run was saved.
    """
    begun = saved_at = time.perf_counter()
    device = device_of(config)
    data = prepare(config) if data is None else data
    with repeatable(config, device), Interruption(wanted=run is not None) as interruption:
        state = begin(config, data, device)
        if run is not None and resume and (run.path / "checkpoint.pt").exists():
            state.restore(run.checkpoint())
        if run is not None and resume:
            run.write_metrics(state.history)
        autocast = torch.autocast(device.type, torch.bfloat16, enabled=config.bf16)
        while state.epoch < config.epochs:
            state.order = state.batches.order() if state.order is None else state.order
            for images, targets in state.batches.of(state.order[state.step :]):
                forward = functools.partial(_forward, state.model, autocast)
                parts = zip(*(t.chunk(config.accumulation) for t in (images, targets)), strict=True)
                closures = [functools.partial(forward, *part) for part in parts]
                state.losses.append(state.optimiser.step(closures))
                state.schedule.step()
                if state.average is not None:
                    state.average.update_parameters(state.model)
                state.step += 1
                if interruption.signal is not None and run is not None:
                    run.save_checkpoint(state.checkpoint(_seconds(state, begun)))
                    raise Interrupted(
                        interruption.signal,
                        f"{interruption.signal.name} in epoch {state.epoch + 1}: "
                        f"saved in {run.path}, --resume goes on",
                    )
            row = state.finish_epoch()
            if not math.isfinite(row["loss"]):
                raise BadInput(
                    f"loss is {row['loss']} in epoch {state.epoch}: lower learning_rate or rho"
                )
            progress(state.epoch, config.epochs, f"loss {row['loss']:.5f} nats")
            if run is not None:
                run.append_metrics(row)
                if time.perf_counter() - saved_at > checkpoint_seconds:
                    run.save_checkpoint(state.checkpoint(_seconds(state, begun)))
                    saved_at = time.perf_counter()
            for log in logs:
                log(state.history)
        seconds = _seconds(state, begun)
        if run is not None:
            run.save_checkpoint(state.checkpoint(seconds))
    return Training(config, data, ready(state.scored), tuple(state.history), seconds)


def begin(config: TrainConfig, data: LabelledImages, device: torch.device) -> LoopState:
    """A run before its first step, under the seed that torch has."""
    model = build_model(config, data).to(device).train()
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        model.channels_last = True
    optimiser = build_optimiser(config, model)
    teacher = None
    if config.teacher:
        names = data.class_names
        teacher = Teacher.of(config.teacher, config.distill_temperature, device, names)
    batches = Batches(config, data, model.mean, device, teacher)
    schedule = build_schedule(config, optimiser.base, config.epochs * batches.n_batches)
    return LoopState(model, optimiser, schedule, build_average(config, model), batches)


def checked_data(config: TrainConfig) -> LabelledImages:
    """Data for :func:`train_with`, when it would come as far as its first step.

    Raises `BadInput`: the data, the network or the teacher is not usable.
    """
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
    """The optimisers' closure over one batch, or over some rows of it."""
    if rows is not None:
        images, targets = images[rows], targets[rows]
    with autocast:
        logits: Tensor = model(images)
    return logits.float(), targets


def _seconds(state: LoopState, begun: float) -> float:
    return state.seconds + time.perf_counter() - begun
