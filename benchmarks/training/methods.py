"""The optimisers of the benchmark and the limits of their cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trueprob_trainer.sharpness_aware import OPTIMISERS, WrappedOptimizer


@dataclass(frozen=True)
class Method:
    """An optimiser, its hyperparameters and the limit of its cost relative to plain SGD."""

    name: str
    optimiser: str
    options: dict[str, Any] = field(default_factory=dict)
    cycle: int = 1  # steps of which the first alone has two passes
    limit: float | None = None


METHODS = [
    Method("SGD", "sgd"),
    Method("SAM", "sam", limit=2.15),
    Method("SAM every 10", "periodic-sam", {"k": 10}, cycle=10, limit=1.15),
    Method("ASAM", "asam", limit=2.15),
    Method("Fisher-SAM", "fisher-sam"),
    Method("ESAM", "esam", limit=1.85),
    Method("LookSAM(5)", "looksam", {"k": 5}, cycle=5, limit=1.25),
    Method("Momentum-SAM", "momentum-sam", limit=1.05),
    Method("CSAM", "csam", limit=2.15),
    Method("Functional-SAM", "functional-sam", limit=2.15),
    Method("Preconditioned SAM", "preconditioned-sam"),
    Method("Preconditioned Functional-SAM", "preconditioned-functional-sam"),
]


def optimiser_of(method: Method, network: nn.Module) -> WrappedOptimizer:
    base = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    return OPTIMISERS[method.optimiser](base, 1e-3, model=network, **method.options)


def stepping(
    optimiser: WrappedOptimizer, network: nn.Module, images: Tensor, labels: Tensor
) -> Callable[[], Tensor]:
    def closure(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if rows is None:
            return network(images), labels
        return network(images[rows]), labels[rows]

    return lambda: optimiser.step(closure)
