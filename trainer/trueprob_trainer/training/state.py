"""Everything that a run is made of while it goes on, and how it is saved and taken up again.

A checkpoint may lie between any two steps. It holds the order of the epoch under way and the losses
so far, and the states of all generators, so that the resumed run is the same run to the last bit.
"""

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from trueprob_trainer.errors import BadInput
from trueprob_trainer.networks.classifier import ImageClassifier
from trueprob_trainer.sharpness_aware import WrappedOptimizer
from trueprob_trainer.training.batches import Batches

History = list[dict[str, float | int]]


@dataclass
class LoopState:
    """A run between two steps."""

    model: ImageClassifier
    optimiser: WrappedOptimizer
    schedule: LRScheduler
    average: AveragedModel | None
    batches: Batches
    epoch: int = 0  # epochs that are finished
    step: int = 0  # steps of the next one that are done
    order: Tensor | None = None  # rows of the epoch under way
    losses: list[Tensor] = field(default_factory=list)  # of its steps
    history: History = field(default_factory=list)  # a row for each finished epoch
    seconds: float = 0.0  # spent before this process took the run up

    @property
    def scored(self) -> ImageClassifier:
        """The network that is evaluated and exported: the average, where there is one."""
        if self.average is None:
            return self.model
        return cast(ImageClassifier, self.average.module)

    def finish_epoch(self) -> dict[str, float | int]:
        """Close the epoch under way.

        Returns: its row of the history.
        """
        loss = float(torch.stack(self.losses).mean())
        self.epoch += 1
        self.step, self.order, self.losses = 0, None, []
        rate = float(self.optimiser.param_groups[0]["lr"])
        self.history.append({"epoch": self.epoch, "loss": loss, "learning_rate": rate})
        return self.history[-1]

    def checkpoint(self, seconds: float) -> dict[str, Any]:
        """Tensors and plain values from which :meth:`restore` goes on."""
        saved: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.step,
            "order": self.order,
            "losses": torch.stack(self.losses) if self.losses else None,
            "history": self.history,
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "shuffle": self.batches.shuffle.get_state(),
            "augment": self.batches.augment.get_state(),
            "torch": torch.get_rng_state(),
            "seconds": seconds,
        }
        if self.batches.rows.device.type == "cuda":
            saved["cuda"] = torch.cuda.get_rng_state(self.batches.rows.device)
        if self.average is not None:
            saved["average"] = self.scored.state_dict()
            saved["n_averaged"] = int(self.average.n_averaged)
        return saved

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on where :meth:`checkpoint` was made; the inverse of it.

        Raises `BadInput`: it is of another run.
        """
        try:
            self.model.load_state_dict(saved["model"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.schedule.load_state_dict(saved["schedule"])
            if self.average is not None:
                self.scored.load_state_dict(saved["average"])
                self.average.n_averaged.fill_(saved["n_averaged"])
            self.epoch, self.step, self.order = saved["epoch"], saved["step"], saved["order"]
            device = self.batches.rows.device
            losses = saved["losses"]
            self.losses = [] if losses is None else list(losses.to(device).unbind())
            self.history, self.seconds = list(saved["history"]), float(saved["seconds"])
            self.batches.shuffle.set_state(saved["shuffle"])
            self.batches.augment.set_state(saved["augment"])
            torch.set_rng_state(saved["torch"])
            if "cuda" in saved:
                torch.cuda.set_rng_state(saved["cuda"], device)
        except (KeyError, RuntimeError, TypeError, ValueError) as problem:
            raise BadInput("checkpoint.pt does not belong to config.json beside it") from problem
