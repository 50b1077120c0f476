"""BatchNorm's running statistics move once a step: in the forward of the first pass.

The second pass of a sharpness-aware step sees the weights at w + ε, where the network never is
when it predicts. Its batch statistics describe another function; averaged into ``running_mean`` and
``running_var`` they would shift every evaluation and the exported graph, and the effective momentum
would double besides. In the second pass the *batch's* statistics still normalise (the gradient is
that of the training function); only the running averages stand still.

``momentum`` is left alone: the well-known trick of setting it to 0 needs the old value on the way
back, and writing a constant there (0.1) silently changes networks that were built with another.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


@contextmanager
def frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Hold the running statistics of every normalisation layer in training mode.

    Parameters
    ----------
    model : torch.nn.Module
        Layers in evaluation mode, or that track nothing, are left as they are. Nesting is harmless.

    Yields
    ------
    None
        On the way out, an exception included, exactly the flags that were switched off go back on.
    """
    held = _moving_layers(model)
    for layer in held:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in held:
            layer.track_running_stats = True


@contextmanager
def kept_running_statistics(model: nn.Module | None) -> Iterator[None]:
    """Let the running statistics move and put them back: for the *backward* of the first pass.

    Activation checkpointing runs layers again in the backward, and each run moves their statistics.
    There the flag of :func:`frozen_running_statistics` must not differ from the forward's: the
    layer would save other tensors than checkpointing expects.

    Parameters
    ----------
    model : torch.nn.Module, optional
        As there. Nothing is done without one.

    Yields
    ------
    None
    """
    moving = [] if model is None else _statistics(_moving_layers(model))
    before = [tensor.clone() for tensor in moving]
    try:
        yield
    finally:
        if moving:
            with torch.no_grad():
                torch._foreach_copy_(moving, before)


@torch.no_grad()
def average_running_statistics(
    model: nn.Module, group: torch.distributed.ProcessGroup | None = None
) -> None:
    """Set the running statistics to their mean over all ranks: before evaluation and export.

    Replicas see different rows, and under rank-local perturbation nothing else makes them agree;
    DDP's own broadcast keeps those of rank 0 and throws the others away. Variances are averaged
    as they are, without the spread of the means between ranks.

    Parameters
    ----------
    model : torch.nn.Module
        The same on all ranks.
    group : torch.distributed.ProcessGroup, optional
        All ranks unless told otherwise.
    """
    layers = [m for m in model.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
    averaged = [t for t in _statistics(layers) if t.is_floating_point()]
    if not averaged:
        return
    flat = torch.cat([t.reshape(-1) for t in averaged])
    torch.distributed.all_reduce(flat, group=group)
    flat /= torch.distributed.get_world_size(group)
    parts = torch.split(flat, [t.numel() for t in averaged])
    torch._foreach_copy_(averaged, [p.view_as(t) for p, t in zip(parts, averaged, strict=True)])


def _moving_layers(model: nn.Module) -> list[_NormBase]:
    return [
        layer
        for layer in model.modules()
        if isinstance(layer, _NormBase) and layer.training and layer.track_running_stats
    ]


def _statistics(layers: list[_NormBase]) -> list[Tensor]:
    return [
        tensor
        for layer in layers
        for tensor in (layer.running_mean, layer.running_var, layer.num_batches_tracked)
        if tensor is not None
    ]
