"""Tensors kept for each parameter from step to step, and their way through a checkpoint.

Checkpoints know parameters by position, as torch's do: the process that resumes has others.
"""

from collections.abc import Sequence

from torch import Tensor

PerParameter = dict[Tensor, Tensor]


def to_positions(kept: PerParameter, parameters: Sequence[Tensor]) -> dict[int, Tensor]:
    """What is kept, by the position of its parameter."""
    return {i: kept[p] for i, p in enumerate(parameters) if p in kept}


def from_positions(saved: dict[int, Tensor], parameters: Sequence[Tensor]) -> PerParameter:
    """Inverse of :func:`to_positions`, as copies on the parameters' devices."""
    return {parameters[i]: tensor.to(parameters[i].device).clone() for i, tensor in saved.items()}
