"""Networks, batches and SAM written slowly, for the tests of SAM."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from trueprob_trainer.sharpness_aware import SAM, frozen_running_statistics

N_STEPS = 20
CURVATURE = torch.diag(torch.tensor([9.0, 1.0, 0.1, 4.0], dtype=torch.float64))


class Bowl(nn.Module):
    """L(w) = wᵀAw/2."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=torch.float64))

    def forward(self) -> Tensor:
        return self.w @ CURVATURE @ self.w / 2


class Small(nn.Module):
    """Two groups, BatchNorm, and a parameter that no output depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7, momentum=0.3), nn.Tanh())
        self.head = nn.Linear(7, 3)
        self.unused = nn.Parameter(torch.ones(4))

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.body(rows))


def small(seed: int = 0) -> Small:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Small().double()


def batches(n: int = N_STEPS) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(16, 5, generator=generator, dtype=torch.float64),
            torch.randint(0, 3, (16,), generator=generator),
        )
        for _ in range(n)
    ]


def groups_of(model: Small) -> list[dict[str, object]]:
    return [
        {"params": list(model.body.parameters()), "rho": 0.2, "weight_decay": 0.0},
        {"params": [*model.head.parameters(), model.unused]},
    ]


def sgd(groups: object) -> torch.optim.SGD:
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=0.01)  # type: ignore[arg-type]


def loss_of(model: Small, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def sam_steps(model: Small, optimiser: SAM, data: list[tuple[Tensor, Tensor]]) -> None:
    for batch in data:
        loss_of(model, batch).backward()
        optimiser.ascend()
        with frozen_running_statistics(model):
            loss_of(model, batch).backward()
        optimiser.descend()


def reference_steps(model: Small, data: list[tuple[Tensor, Tensor]], rhos: Callable[[str], float]):
    """SAM and SGD with momentum, one parameter at a time, from the papers' formulas."""
    buffers: dict[str, Tensor] = {}
    for batch in data:
        used = {n: p for n, p in model.named_parameters() if n != "unused"}
        gradient = dict(
            zip(used, torch.autograd.grad(loss_of(model, batch), list(used.values())), strict=True)
        )
        length = sum(float((g**2).sum()) for g in gradient.values()) ** 0.5
        climbed = copy.deepcopy(model)
        for name, p in climbed.named_parameters():
            if name in gradient:
                p.data = p.data + rhos(name) * gradient[name] / length
        up = {n: p for n, p in climbed.named_parameters() if n != "unused"}
        used_gradient = dict(
            zip(up, torch.autograd.grad(loss_of(climbed, batch), list(up.values())), strict=True)
        )
        for name, p in model.named_parameters():
            if name in used_gradient:
                decay = 0.0 if name.startswith("body") else 0.01
                d = used_gradient[name] + decay * p.data
                buffers[name] = d if name not in buffers else 0.9 * buffers[name] + d
                p.data = p.data - 0.1 * buffers[name]


def distance(a: nn.Module, b: nn.Module) -> float:
    pairs = zip(a.parameters(), b.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)
