"""The trainer's ResNet-8 and ResNet-18, and their batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trueprob_trainer.networks.convolutional import BasicBlock, resnet8, resnet18

NETWORKS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "ResNet-8": (resnet8, 128),
    "ResNet-18": (resnet18, 32),
}
"""Name → builder, images per batch."""


def built(name: str, *, small: bool = False) -> tuple[nn.Module, Tensor, Tensor]:
    """Network in training mode and its batch, always the same; on the GPU if there is one."""
    build, rows = NETWORKS[name]
    rows = rows // 8 if small else rows
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    network = build(channels=3, n_classes=10).train()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stub
    images = torch.randn(rows, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    return network, images, torch.randint(0, 10, (rows,), device=device)


def blocks(network: nn.Module) -> list[nn.Module]:
    """The residual blocks, which activation checkpointing computes again."""
    return [layer for layer in network.modules() if isinstance(layer, BasicBlock)]
