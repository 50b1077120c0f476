"""Moves weights by ε and restores them by copying the saved start.

The saved start is the only additional copy of the weights. It is allocated once and kept; before it
is filled, its memory is scratch space for ε.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Weights that the CPU works on at a time: 1.5 MB with gradients and copies, about a core's cache,
# so that the next operation reads them from there. A GPU takes all in one kernel.
PIECE = 2**17

# Below the largest number of every floating type (float16: 65 504). torch refuses a factor that the
# tensors' type cannot hold, and tiny gradients would need one.
LARGEST_FACTOR = 2.0**15


class ParameterBlock(NamedTuple):
    """Parameters of one group on one device, with their gradients; not empty."""

    group: dict[str, Any]
    parameters: list[Tensor]
    gradients: list[Tensor]  # at w, unscaled; ε or a multiple of it overwrites them
    scratch: list[Tensor]  # of the parameters' shapes, with any content


class Displacement:
    """Moves parameters by ε and restores them bit for bit."""

    def __init__(self) -> None:
        self._copies: dict[Tensor, Tensor] = {}
        self._moved: list[Tensor] = []

    def __bool__(self) -> bool:
        return bool(self._moved)

    def blocks(
        self, groups: list[dict[str, Any]], gradient_of: Callable[[Tensor], Tensor | None]
    ) -> list[ParameterBlock]:
        """Group the parameters with a gradient by group and device, on the CPU by :data:`PIECE`."""
        blocks = []
        for group in groups:
            by_device: dict[torch.device, list[tuple[Tensor, Tensor]]] = {}
            for p in group["params"]:
                gradient = gradient_of(p)
                if gradient is not None:
                    by_device.setdefault(p.device, []).append((p, gradient))
            for device, pairs in by_device.items():
                for piece in _in_cache(pairs) if device.type == "cpu" else [pairs]:
                    moved = [p for p, _ in piece]
                    scratch = [self._copy_of(p) for p in moved]
                    blocks.append(ParameterBlock(group, moved, [g for _, g in piece], scratch))
        return blocks

    def move(self, blocks: list[ParameterBlock], *, factors: list[float] | None = None) -> None:
        """Save the start and add the overwritten gradients, times a factor per block."""
        for block, factor in zip(blocks, factors or [1.0] * len(blocks), strict=True):
            torch._foreach_copy_(block.scratch, block.parameters)
            torch._foreach_add_(block.parameters, block.gradients, alpha=factor)
        self._moved = [p for block in blocks for p in block.parameters]

    def restore(self) -> None:
        """Copy the start back if anything was moved."""
        if self._moved:
            torch._foreach_copy_(self._moved, [self._copies[p] for p in self._moved])
            self._moved = []

    def _copy_of(self, parameter: Tensor) -> Tensor:
        copy = self._copies.get(parameter)
        fits = copy is not None and (copy.shape, copy.dtype, copy.device, copy.stride()) == (
            parameter.shape, parameter.dtype, parameter.device, parameter.stride()
        )  # fmt: skip
        if copy is None or not fits:
            copy = self._copies[parameter] = torch.empty_like(parameter, requires_grad=False)
        return copy


def _in_cache(pairs: list[tuple[Tensor, Tensor]]) -> list[list[tuple[Tensor, Tensor]]]:
    """Join neighbours up to :data:`PIECE` weights; larger tensors are not cut."""
    pieces: list[list[tuple[Tensor, Tensor]]] = []
    size = PIECE
    for pair in pairs:
        if size >= PIECE:
            pieces.append([])
            size = 0
        pieces[-1].append(pair)
        size += pair[0].numel()
    return pieces


def dense_gradient(parameter: Tensor) -> Tensor | None:
    """The gradient of a parameter, or None; a sparse one is refused."""
    gradient = parameter.grad
    if gradient is not None and gradient.layout is not torch.strided:
        raise RuntimeError("ascend() takes dense gradients, got a sparse one")
    return gradient


def joint_norm(tensors: list[Tensor]) -> Tensor:
    """2-norm over all tensors together, in at least float32, without waiting for a GPU."""
    wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    norms = list(torch._foreach_norm(tensors, 2.0, dtype=wide))
    device = norms[0].device
    if any(norm.device != device for norm in norms):
        norms = [norm.to(device) for norm in norms]
    together: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return together


def scale_to_radius(blocks: list[ParameterBlock], norm: Tensor) -> list[float]:
    """Scale the gradients to length rho; return the factor of each block still to be applied."""
    # On the CPU the norm is known, and a factor costs nothing in the sum with the weights. A GPU
    # would have to wait for the norm, so there the gradients are scaled here. A zero norm gives 0.
    if norm.device.type == "cpu":
        length = float(norm)
        radii = [float(block.group["rho"]) for block in blocks]
        if max(radii) <= length * LARGEST_FACTOR or not length > 0:
            return [radius / length if length > 0 else 0.0 for radius in radii]
    scale_in_place(blocks, norm)
    return [1.0] * len(blocks)


def scale_in_place(blocks: list[ParameterBlock], norm: Tensor) -> None:
    """Multiply the gradients by rho over the norm, without waiting for the norm."""
    inverse = torch.where(norm > 0, 1 / norm, torch.zeros_like(norm))
    for block in blocks:
        factor = (float(block.group["rho"]) * inverse).to(block.gradients[0].device)
        torch._foreach_mul_(block.gradients, factor)
