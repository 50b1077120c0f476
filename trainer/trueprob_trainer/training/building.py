"""Builds the parts of a run from its recipe: network, optimiser, schedule, loss, weight average.

The loss of a row depends on its target: a class (an integer), a distribution over the classes
(mixup), or two distributions side by side, over the classes and the teacher's. It is one tensor in
every case, so an optimiser that needs some rows of a batch gets their targets too.
"""

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import LabelledImages, Split
from trueprob_trainer.errors import BadInput
from trueprob_trainer.networks import build_network
from trueprob_trainer.networks.classifier import ImageClassifier
from trueprob_trainer.sharpness_aware import WrappedOptimizer, optimiser_class, options_of
from trueprob_trainer.sharpness_aware.wrapper import PerSampleLoss

PREFIX = "network."  # of the weights of a network behind its preprocessing, in a run's checkpoint
CHUNK = 4096  # images at a time for their mean


def build_model(config: TrainConfig, data: LabelledImages) -> ImageClassifier:
    """The untrained network, or the one to fine-tune, with the preprocessing for this data."""
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
    """Mean and standard deviation of the train split per channel, in grey levels."""
    # Sums of integers are exact in any order. The deviation is at least 1e-6.
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
    # n·Σx² − (Σx)² in Python's integers, without cancellation.
    variance = [(n * int(s) - int(t) ** 2) / n**2 for s, t in zip(squares, total, strict=True)]
    return total / n, np.sqrt(np.array(variance)) + 1e-6


def start_from(network: nn.Module, path: Path) -> tuple[str, ...]:
    """Copy the weights of a checkpoint; return the names of the tensors that differ in shape."""
    # Those tensors are not copied: the last layer differs if the number of classes does. Neither is
    # the preprocessing: mean and deviation are those of the new data.
    weights = _weights(path / "checkpoint.pt" if path.is_dir() else path)
    own = network.state_dict()
    if set(weights) != set(own):
        mismatched = sorted(set(weights) ^ set(own))
        raise BadInput(
            f"start_from {path} is of another network: {len(mismatched)} names differ, such as "
            f"{mismatched[0]}"
        )
    not_copied = tuple(name for name, value in own.items() if weights[name].shape != value.shape)
    if len(not_copied) == len(own):
        raise BadInput(f"start_from {path} has no tensor of this network's shapes")
    network.load_state_dict(
        {name: own[name] if name in not_copied else weights[name] for name in own}
    )
    return not_copied


def _weights(file: Path) -> dict[str, Tensor]:
    if not zipfile.is_zipfile(file):  # torch.save writes zip; other files give unclear errors
        raise BadInput(f"start_from {file} cannot be read as a checkpoint")
    try:
        loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError) as problem:
        raise BadInput(f"start_from {file} cannot be read as a checkpoint") from problem
    if isinstance(loaded, dict) and isinstance(loaded.get("model"), dict):
        loaded = loaded.get("average") or loaded["model"]  # a run: use the weights that were scored
    if not (isinstance(loaded, dict) and all(isinstance(v, Tensor) for v in loaded.values())):
        raise BadInput(f"start_from {file} must hold named tensors")
    if any(name.startswith(PREFIX) for name in loaded):
        loaded = {k.removeprefix(PREFIX): v for k, v in loaded.items() if k.startswith(PREFIX)}
    weights: dict[str, Tensor] = loaded
    return weights


def build_optimiser(
    config: TrainConfig,
    model: nn.Module,
    run: nn.Module | None = None,  # what the closures run, if it is not the model itself
) -> WrappedOptimizer:
    """The optimiser of the recipe around SGD or AdamW."""
    base: torch.optim.Optimizer
    groups = _groups(config, model)
    if config.base == "adamw":
        base = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            betas=(config.momentum, 0.999),
            weight_decay=config.weight_decay,
        )
    else:
        base = torch.optim.SGD(
            groups,
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
        return optimiser_class(config.optimiser)(
            base, rho=cast(float, config.rho), model=model if run is None else run, **given
        )
    except (TypeError, ValueError) as problem:
        raise BadInput(f"optimiser {config.optimiser}: {problem}") from problem


def _groups(config: TrainConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Parameter groups: one for each radius of its own, in the order of the recipe."""
    layers: dict[str, list[Tensor]] = {layer: [] for layer in config.layer_rho}
    rest: list[Tensor] = []
    for name, parameter in model.named_parameters():
        place = f"{name.removeprefix(PREFIX)}."
        layer = next((x for x in layers if place.startswith(f"{x}.")), None)
        (rest if layer is None else layers[layer]).append(parameter)
    for layer, parameters in layers.items():
        if not parameters:
            names = dict.fromkeys(
                name.removeprefix(PREFIX).partition(".")[0] for name, _ in model.named_parameters()
            )
            raise BadInput(
                f"rho of {layer}: the network has no such layer that is not named before it; its "
                f"layers are {', '.join(names)}"
            )
    groups: list[dict[str, Any]] = [
        {"params": parameters, "rho": config.layer_rho[layer]}
        for layer, parameters in layers.items()
    ]
    return [*groups, {"params": rest}] if rest else groups


def build_schedule(config: TrainConfig, base: torch.optim.Optimizer, n_steps: int) -> LRScheduler:
    """Schedule of the base optimiser's learning rate over the steps of a run."""
    if config.schedule == "constant":
        return ConstantLR(base, factor=1.0)
    if config.schedule == "cosine":
        return LambdaLR(base, lambda step: cosine(step, n_steps, config.warmup))
    return OneCycleLR(base, config.learning_rate, total_steps=n_steps, cycle_momentum=False)


def cosine(step: int, n_steps: int, warmup: float) -> float:
    """Fraction of the highest rate: a linear rise, then half a cosine down to zero."""
    rising = round(warmup * n_steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, n_steps - rising)))


def build_average(config: TrainConfig, model: ImageClassifier) -> AveragedModel | None:
    """A copy of the model that averages weights and running statistics, if the recipe has ema."""
    if not config.ema:
        return None
    averaging = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=averaging, use_buffers=True)


def per_sample_loss(config: TrainConfig) -> PerSampleLoss | None:
    """``loss(logits, targets)`` of each row, or None for cross entropy, the optimisers' default."""
    # Shapes: (n, k) and (n,), (n, k) or (n, 2k) to (n,).
    if not (config.label_smoothing or config.teacher):
        return None

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        k = logits.shape[1]
        if targets.ndim == 2 and targets.shape[1] == 2 * k:
            hard = cross_entropy(logits, targets[:, :k], config.label_smoothing)
            soft = distillation(logits, targets[:, k:], config.distill_temperature)
            return config.distill_alpha * soft + (1 - config.distill_alpha) * hard
        return cross_entropy(logits, targets, config.label_smoothing)

    return loss


def cross_entropy(logits: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of each row, in nats."""
    return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL(teacher ‖ softmax(logits/T)) of each row (Hinton, Vinyals, Dean: arXiv:1503.02531)."""
    student = torch.log_softmax(logits / temperature, dim=1)
    divergence = functional.kl_div(student, teacher, reduction="none").sum(dim=1)
    return divergence * temperature**2
