"""The SAM that most repositories copy, rewritten: the baseline of this benchmark.

After the widely copied ``sam.py`` (davda54/sam on GitHub): a base optimiser class, one loop
over the parameters a step, the old value in the optimiser's own state, BatchNorm's momentum set to
zero for the second pass. Its faults are kept on purpose; tests/benchmarks names them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class UsualSAM(torch.optim.Optimizer):
    def __init__(
        self,
        parameters: Iterable[Tensor],
        base: type[torch.optim.Optimizer],
        rho: float = 0.05,
        **options: Any,
    ) -> None:
        super().__init__(parameters, {"rho": rho, **options})
        self.base = base(self.param_groups, **options)
        self.param_groups = self.base.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        gradients = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["old"] = p.data.clone()
                    p.add_(p.grad * (group["rho"] / (norm + 1e-12)))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.data = self.state[p]["old"]
        self.base.step()
        self.zero_grad()

    def step(self, closure: Any = None) -> None:
        raise NotImplementedError


def hold_statistics(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.backup_momentum = layer.momentum  # type: ignore[assignment]
            layer.momentum = 0


def release_statistics(model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, _BatchNorm):
            layer.momentum = layer.backup_momentum  # type: ignore[assignment]
