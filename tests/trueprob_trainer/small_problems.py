"""A quadratic and a small network in float64, as the closures of the sharpness-aware optimisers.

Both have two groups with radii and weight decays of their own, and a parameter without gradient.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trueprob_trainer.sharpness_aware.wrapper import (
    Closure,
    PerSampleLoss,
    cross_entropy_per_sample,
)

RATE, MOMENTUM = 0.1, 0.9
RADII = {"body": 0.2, "head": 0.05}
DECAYS = {"body": 0.0, "head": 0.01}
CURVATURE = torch.tensor([9.0, 1.0, 0.1, 4.0], dtype=torch.float64)


class Bowl(nn.Module):
    """Row i of the logits is (Qw)_i, 0, 0, 0; the mean of :func:`bowl_loss` is wᵀQᵀAQw/2."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Parameter(torch.tensor([0.2, -0.3], dtype=torch.float64))
        self.head = nn.Parameter(torch.tensor([0.4, 0.1], dtype=torch.float64))
        self.unused = nn.Parameter(torch.ones(4, dtype=torch.float64))
        turn = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        self.register_buffer("turn", torch.linalg.qr(turn).Q)

    def forward(self, rows: Tensor) -> Tensor:
        assert isinstance(self.turn, Tensor)
        values = self.turn @ torch.cat([self.body, self.head])
        return nn.functional.pad(values[rows][:, None], (0, 3))


def bowl_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return 2 * CURVATURE[labels] * logits[:, 0] ** 2


class Small(nn.Module):
    """Two groups, BatchNorm, and a parameter that no output depends on."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        # No bias before BatchNorm: its gradient is rounding, which Adam would blow up.
        first = nn.Linear(5, 7, bias=False)
        layers = [first, nn.BatchNorm1d(7, momentum=0.3), nn.Tanh(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(7, 3)
        self.unused = nn.Parameter(torch.ones(4))

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(rows))
        return logits


class Problem(NamedTuple):
    build: Callable[[], nn.Module]
    loss: PerSampleLoss
    batches: list[tuple[Tensor, Tensor]]

    def closures(self, model: nn.Module) -> list[Closure]:
        return [closure_of(model, *batch) for batch in self.batches]


def closure_of(model: nn.Module, images: Tensor, labels: Tensor) -> Closure:
    def closure(rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        chosen = slice(None) if rows is None else rows
        return model(images[chosen]), labels[chosen]

    return closure


def small(seed: int = 0, dropout: float = 0.0) -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small(dropout).double()


def batches(n: int = 20, rows: int = 16) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(rows, 5, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (rows,), generator=generator),
        )
        for _ in range(n)
    ]


def problem(name: str, n: int = 20) -> Problem:
    if name == "quadratic":
        return Problem(Bowl, bowl_loss, [(torch.arange(4), torch.arange(4))] * n)
    return Problem(small, cross_entropy_per_sample, batches(n))


def groups_of(model: nn.Module) -> list[dict[str, Any]]:
    body = [p for name, p in model.named_parameters() if name.startswith("body")]
    rest = [p for name, p in model.named_parameters() if not name.startswith("body")]
    return [
        {"params": body, "rho": RADII["body"], "weight_decay": DECAYS["body"]},
        {"params": rest, "rho": RADII["head"], "weight_decay": DECAYS["head"]},
    ]


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(groups_of(model), lr=RATE, momentum=MOMENTUM)


def adam(model: nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(groups_of(model), lr=0.01)


def distance(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)
