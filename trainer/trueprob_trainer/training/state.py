"""The state of a run between two steps, and its checkpoint.

A checkpoint can be made between any two steps. It has the order and the losses of the current epoch
and the states of all generators, so a resumed run gives the same result to the last bit.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from trueprob.arrays.logit_functions import softmax
from trueprob.scores.debiased_ece import debiased_ece
from trueprob.scores.score import negative_log_likelihood
from trueprob_trainer.errors import BadInput
from trueprob_trainer.networks.classifier import ImageClassifier, predict_logits
from trueprob_trainer.sharpness_aware import WrappedOptimizer, average_running_statistics
from trueprob_trainer.training.batches import Batches
from trueprob_trainer.training.ranks import ALONE, Ranks

History = list[dict[str, float | int]]
LabelledRows = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Images and their labels."""


@dataclass
class LoopState:
    """The state of a run between two steps."""

    model: ImageClassifier
    optimiser: WrappedOptimizer
    schedule: LRScheduler
    average: AveragedModel | None
    batches: Batches
    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the current epoch
    order: Tensor | None = None  # rows of the current epoch
    losses: list[Tensor] = field(default_factory=list)  # of its steps
    history: History = field(default_factory=list)  # a row per finished epoch
    seconds: float = 0.0  # spent before the run was resumed
    ranks: Ranks = ALONE

    @property
    def scored(self) -> ImageClassifier:
        """The network that is evaluated and exported: the average, if there is one."""
        if self.average is None:
            return self.model
        return cast(ImageClassifier, self.average.module)

    def finish_epoch(self, held_out: LabelledRows) -> dict[str, float | int]:
        """End the current epoch and return its row of the history.

        It has the scores of the network that will be exported, on rows that train nothing.
        """
        loss = float(self.ranks.mean(torch.stack(self.losses).mean()))
        if self.ranks.world > 1:
            average_running_statistics(self.model)
        self.epoch += 1
        self.step, self.order, self.losses = 0, None, []
        rate = float(self.optimiser.param_groups[0]["lr"])
        row = {"epoch": self.epoch, "loss": loss, "learning_rate": rate}
        self.history.append(row | held_out_scores(self.scored, held_out))
        return self.history[-1]

    def checkpoint(self, seconds: float) -> dict[str, Any]:
        """Tensors and plain values for :meth:`restore`."""
        saved: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "losses": torch.stack(self.losses) if self.losses else None,
            "history": self.history,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "shuffle": self.batches.shuffle.get_state(),
            "seconds": seconds,
            "ranks": self.ranks.gathered(self._of_this_rank()),
        }
        if self.average is not None:
            saved["average"] = self.scored.state_dict()
            saved["n_averaged"] = int(self.average.n_averaged)
        return saved

    def _of_this_rank(self) -> dict[str, Tensor | None]:
        device = self.batches.rows.device
        return {
            "order": self.order,
            "augment": self.batches.augment.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Inverse of :meth:`checkpoint`; a checkpoint of another run is refused."""
        if (n_ranks := len(saved.get("ranks", ()))) not in (0, self.ranks.world):
            raise BadInput(
                f"checkpoint.pt is of {n_ranks} ranks, got {self.ranks.world}: resume with as many"
            )
        try:
            own = saved["ranks"][self.ranks.rank]
            self.model.load_state_dict(saved["model"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.schedule.load_state_dict(saved["schedule"])
            if self.average is not None:
                self.scored.load_state_dict(saved["average"])
                self.average.n_averaged.fill_(saved["n_averaged"])
            self.epoch, self.step, self.order = saved["epoch"], saved["step"], own["order"]
            device = self.batches.rows.device
            losses = saved["losses"]
            self.losses = [] if losses is None else list(losses.to(device).unbind())
            self.history, self.seconds = list(saved["history"]), float(saved["seconds"])
            self.batches.shuffle.set_state(saved["shuffle"])
            self.batches.augment.set_state(own["augment"])
            torch.set_rng_state(own["torch"])
            if own["cuda"] is not None:
                torch.cuda.set_rng_state(own["cuda"], device)
        except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as problem:
            raise BadInput("checkpoint.pt does not belong to config.json beside it") from problem


def held_out_scores(model: ImageClassifier, rows: LabelledRows) -> dict[str, float]:
    """Accuracy, NLL in nats and debiased ECE, a fraction that may be negative; none of no rows."""
    images, labels = rows
    if not len(labels):
        return {}
    logits = predict_logits(model, images)
    if not np.isfinite(logits).all():
        return {}  # the loop refuses the loss
    probabilities = softmax(logits)
    correct = probabilities.argmax(axis=1) == labels
    return {
        "held_out_accuracy": float(correct.mean()),
        "held_out_nll": negative_log_likelihood(probabilities, labels),
        "held_out_ece": debiased_ece(probabilities.max(axis=1), correct),
    }
