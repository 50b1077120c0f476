"""A finished run, in memory after training or loaded from its folder."""

import json
from dataclasses import dataclass

import torch

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import LabelledImages
from trueprob_trainer.data.recipe import prepare
from trueprob_trainer.errors import BadInput
from trueprob_trainer.networks.classifier import ImageClassifier
from trueprob_trainer.training.building import build_model
from trueprob_trainer.training.run_folder import RunFolder


@dataclass(frozen=True)
class Training:
    """A finished run."""

    config: TrainConfig
    data: LabelledImages  # all splits
    # On the CPU, in evaluation mode, with the weights or their average.
    model: ImageClassifier
    # One entry per epoch: `epoch`, `loss` (mean over its batches before each step, in nats) and
    # `learning_rate` at its end.
    history: tuple[dict[str, float | int], ...]
    seconds: float


def load_training(run: RunFolder) -> Training:
    """Load a finished run from its folder."""
    config = run.config()
    data = prepare(config)
    checkpoint = run.checkpoint()
    model = build_model(config, data)
    try:
        model.load_state_dict(checkpoint.get("average") or checkpoint["model"])
        seconds, epoch = float(checkpoint["seconds"]), int(checkpoint["epoch"])
        if epoch < config.epochs:
            raise BadInput(
                f"run folder {run.path} does not hold a finished run: {epoch} of {config.epochs} "
                "epochs, --resume continues it"
            )
        lines = (run.path / "metrics.jsonl").read_text().splitlines()
        history = tuple(json.loads(line) for line in lines)
    except BadInput:
        raise
    except (OSError, KeyError, RuntimeError, ValueError) as problem:
        raise BadInput(f"run folder {run.path} does not hold a finished run") from problem
    return Training(config, data, prepare_for_evaluation(model), history, seconds)


def prepare_for_evaluation(model: ImageClassifier) -> ImageClassifier:
    """Prepare a network for evaluation and export: on the CPU, in the usual memory order."""
    model.to("cpu").to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    model.channels_last = False
    return model.eval()
