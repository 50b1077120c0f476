"""Weights away from their place: what is moved, where it was, and the way back by copy.

The saved start is the one extra copy of the weights that the family takes. It is allocated once and
kept, and before it is filled its memory serves the computation of ε.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

# Weights that the CPU works on at a time: with gradients and copies 1.5 MB, about a core's cache,
# from which the next of several operations reads them. A GPU takes all at once, in one kernel.
PIECE = 2**17

# A number that every floating type holds: torch refuses to add with a factor beyond the tensors'
# own, of which float16's is 65 504. Tiny gradients have such factors.
LARGEST_FACTOR = 2.0**15


class Part(NamedTuple):
    """Parameters of one group on one device, with their gradients; not empty."""

    group: dict[str, Any]
    parameters: list[Tensor]
    gradients: list[Tensor]  # at w, unscaled; to be overwritten by ε, or a multiple of it
    scratch: list[Tensor]  # of the parameters' shapes, of any content; free to use


class Displacement:
    """Moves parameters by their ε and brings them back, bit for bit."""

    def __init__(self) -> None:
        self._copies: dict[Tensor, Tensor] = {}
        self._moved: list[Tensor] = []

    def __bool__(self) -> bool:
        return bool(self._moved)

    def parts(
        self, groups: list[dict[str, Any]], gradient_of: Callable[[Tensor], Tensor | None]
    ) -> list[Part]:
        """Split what has a gradient by group and device, on the CPU also by :data:`PIECE`."""
        parts = []
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
                    parts.append(Part(group, moved, [g for _, g in piece], scratch))
        return parts

    def move(self, parts: list[Part], *, factors: list[float] | None = None) -> None:
        """Save the start and add what the gradients have become."""
        for part, factor in zip(parts, factors or [1.0] * len(parts), strict=True):
            torch._foreach_copy_(part.scratch, part.parameters)
            torch._foreach_add_(part.parameters, part.gradients, alpha=factor)
        self._moved = [p for part in parts for p in part.parameters]

    def put_back(self) -> None:
        """Copy the start back, if anything has moved."""
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
    """Neighbours together until they have :data:`PIECE` weights; larger tensors are not cut."""
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
    """The gradient in place, or None.

    Raises `RuntimeError`: it is sparse.
    """
    gradient = parameter.grad
    if gradient is not None and gradient.layout is not torch.strided:
        raise RuntimeError("ascend() takes dense gradients, got a sparse one")
    return gradient


def joint_norm(tensors: list[Tensor]) -> Tensor:
    """2-norm over all tensors together, in at least float32.

    Returns: 0-dimensional, on the first tensor's device, without waiting for it.
    """
    wide = torch.float64 if any(t.dtype == torch.float64 for t in tensors) else torch.float32
    norms = list(torch._foreach_norm(tensors, 2.0, dtype=wide))
    device = norms[0].device
    if any(norm.device != device for norm in norms):
        norms = [norm.to(device) for norm in norms]
    together: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return together


def scale_to_radius(parts: list[Part], norm: Tensor) -> list[float]:
    """What the gradients are to be multiplied by: rho over the norm, 0 where the norm is 0.

    On the CPU the norm is a number at once, and the product costs nothing in the sum with the
    weights that comes next. A GPU would have to be waited for: there it is done here.

    Returns: what remains to be multiplied by, for each part.
    """
    if norm.device.type == "cpu":
        length = float(norm)
        radii = [float(part.group["rho"]) for part in parts]
        if max(radii) <= length * LARGEST_FACTOR or not length > 0:
            return [radius / length if length > 0 else 0.0 for radius in radii]
    scale_in_place(parts, norm)
    return [1.0] * len(parts)


def scale_in_place(parts: list[Part], norm: Tensor) -> None:
    """:func:`scale_to_radius` on the gradients themselves, without waiting for the norm."""
    inverse = torch.where(norm > 0, 1 / norm, torch.zeros_like(norm))
    for part in parts:
        factor = (float(part.group["rho"]) * inverse).to(part.gradients[0].device)
        torch._foreach_mul_(part.gradients, factor)
