"""Tensors that are kept per parameter between steps, and their form in a checkpoint.

Checkpoints refer to parameters by position, as torch's do: a resumed process has new parameters.
"""

from collections.abc import Sequence

from torch import Tensor

PerParameter = dict[Tensor, Tensor]


def to_positions(kept: PerParameter, parameters: Sequence[Tensor]) -> dict[int, Tensor]:
    """The kept tensors by the position of their parameter."""
    return {i: kept[p] for i, p in enumerate(parameters) if p in kept}


def from_positions(saved: dict[int, Tensor], parameters: Sequence[Tensor]) -> PerParameter:
    """Inverse of :func:`to_positions`, as copies on the parameters' devices."""
    return {parameters[i]: tensor.to(parameters[i].device).clone() for i, tensor in saved.items()}
