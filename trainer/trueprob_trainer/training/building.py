"""The parts of a run, made from its recipe: network, optimiser, schedule, weights' average."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import LabelledImages, Split
from trueprob_trainer.errors import BadInput
from trueprob_trainer.networks import build_network
from trueprob_trainer.networks.classifier import ImageClassifier
from trueprob_trainer.networks.fine_tuning import start_from
from trueprob_trainer.sharpness_aware import OPTIMISERS, WrappedOptimizer, options_of
from trueprob_trainer.training.losses import per_sample_loss

CHUNK = 4096  # images at a time when their mean is taken


def build_model(config: TrainConfig, data: LabelledImages) -> ImageClassifier:
    """Untrained network behind the preprocessing for this data, or one to fine-tune.

    Raises `BadInput`: no such network, or nothing to start from.
    """
    _, height, width, channels = data.images.shape
    network = build_network(
        config.network,
        channels=channels,
        n_classes=len(data.class_names),
        image_size=(height, width),
    )
    if config.start_from:
        start_from(network, Path(config.start_from))
    return ImageClassifier(network, *train_moments(data))


def train_moments(data: LabelledImages) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of the train split, per channel, grey levels.

    Returns: from sums of integers, so exact whatever the order, and never more than a few images
    in memory twice. The deviation is at least 1e-6.
    """
    rows = np.flatnonzero(data.split == Split.TRAIN)
    if not len(rows):
        raise BadInput("the train split is empty")
    total = np.zeros(data.images.shape[3], dtype=np.int64)
    squares = np.zeros_like(total)
    for start in range(0, len(rows), CHUNK):
        part = data.images[rows[start : start + CHUNK]].astype(np.int64)
        total += part.sum(axis=(0, 1, 2))
        squares += (part * part).sum(axis=(0, 1, 2))
    n = len(rows) * data.images.shape[1] * data.images.shape[2]
    # n·Σx² − (Σx)² in Python's integers: nothing cancels.
    variance = [(n * int(s) - int(t) ** 2) / n**2 for s, t in zip(squares, total, strict=True)]
    return total / n, np.sqrt(np.array(variance)) + 1e-6


def build_optimiser(config: TrainConfig, model: nn.Module) -> WrappedOptimizer:
    """SGD or AdamW inside the optimiser that the recipe names.

    Raises `BadInput`: an option of the optimiser is impossible.
    """
    base: torch.optim.Optimizer
    if config.base == "adamw":
        base = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
        )
    else:
        base = torch.optim.SGD(
            model.parameters(),
            lr=config.learning_rate,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    given: dict[str, Any] = dict(config.optimiser_options)
    if "seed" in options_of(config.optimiser):
        given.setdefault("seed", config.seed)
    loss = per_sample_loss(config)
    if loss is not None:
        given["loss"] = loss
    try:
        return OPTIMISERS[config.optimiser](base, rho=config.rho, model=model, **given)
    except (TypeError, ValueError) as problem:
        raise BadInput(f"optimiser {config.optimiser}: {problem}") from problem


def build_schedule(config: TrainConfig, base: torch.optim.Optimizer, n_steps: int) -> LRScheduler:
    """Learning rate over the steps of a run, on the base optimiser."""
    if config.schedule == "constant":
        return ConstantLR(base, factor=1.0)
    if config.schedule == "cosine":
        return LambdaLR(base, lambda step: cosine(step, n_steps, config.warmup))
    return OneCycleLR(base, config.learning_rate, total_steps=n_steps, cycle_momentum=False)


def cosine(step: int, n_steps: int, warmup: float) -> float:
    """Share of the peak rate: rising linearly at first, then half a cosine down to zero."""
    rising = round(warmup * n_steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, n_steps - rising)))


def build_average(config: TrainConfig, model: ImageClassifier) -> AveragedModel | None:
    """Exponential moving average of weights and running statistics, where the recipe asks for it.

    Returns: a copy; ``update_parameters(model)`` after each step.
    """
    if not config.ema:
        return None
    averaging = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)
