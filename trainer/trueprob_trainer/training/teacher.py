"""The teacher of a distillation: one finished run, or the mean of several."""

from pathlib import Path

import torch
from torch import Tensor, nn

from trueprob_trainer.errors import BadInput
from trueprob_trainer.training.finished_run import load_training
from trueprob_trainer.training.run_folder import RunFolder


class Teacher:
    """Predicts probabilities at a temperature."""

    def __init__(self, models: list[nn.Module], temperature: float) -> None:
        self.models = models
        self.temperature = temperature

    @classmethod
    def of(
        cls, runs: str, temperature: float, device: torch.device, class_names: tuple[str, ...]
    ) -> "Teacher":
        """Load finished runs with the given classes; commas separate the folders."""
        models: list[nn.Module] = []
        for name in runs.split(","):
            training = load_training(RunFolder(Path(name)))
            if training.data.class_names != class_names:
                raise BadInput(f"teacher {name} was trained on other classes")
            models.append(training.model.to(device))
        return cls(models, temperature)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Mean over the teachers of the softmax of logits / temperature."""
        answers = [torch.softmax(model(images) / self.temperature, dim=1) for model in self.models]
        return torch.stack(answers).mean(dim=0)
