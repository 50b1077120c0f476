"""The loss of a row, by what its target is.

A target is a class (an integer), or a distribution over the classes (mixup), or two distributions
side by side: that over the classes and the teacher's. One tensor in every case, so that an
optimiser that asks for some rows of a batch gets their targets with them.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from trueprob_trainer.config import TrainConfig

PerSampleLoss = Callable[[Tensor, Tensor], Tensor]


def per_sample_loss(config: TrainConfig) -> PerSampleLoss | None:
    """The loss that a recipe asks for.

    Returns: ``loss(logits, targets)`` of shapes (n, k) and (n,), (n, k) or (n, 2k) to (n,); None
    for plain cross entropy, which is what every optimiser has by itself.
    """
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
    """Cross entropy of each row, nats."""
    return functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T²·KL(teacher ‖ softmax(logits/T)) of each row (Hinton, Vinyals, Dean: arXiv:1503.02531)."""
    student = torch.log_softmax(logits / temperature, dim=1)
    divergence = functional.kl_div(student, teacher, reduction="none").sum(dim=1)
    return divergence * temperature**2
