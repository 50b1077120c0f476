"""Buffers that move in training mode, once per step; and activation checkpointing.

BatchNorm's running statistics move in the forward of the first pass. The second pass is at w + ε,
where the network never predicts. Its statistics in ``running_mean`` and ``running_var`` would shift
every evaluation and the exported graph, and double the effective momentum. Layers still normalise
by the *batch* in the second pass, since the gradient is that of the training function; only the
averages are held. The same holds for any buffer that a layer moves while it trains: the vectors of
spectral normalisation, a code book, a counter.

Two passes one after the other need no more activations than one, so SAM costs one copy of the
weights. If the activations do not fit, :func:`checkpointed` computes them again in each backward,
for about a third more time. It uses ``torch.utils.checkpoint`` and adds what that lacks: a layer
that runs twice must not move its buffers twice.
"""

import functools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


@contextmanager
def frozen_running_statistics(model: nn.Module | None) -> Iterator[None]:
    """Restore all buffers of the layers in training mode afterwards.

    For the forward and backward of a second pass, and for the *backward* of the first where
    activation checkpointing runs layers again.

    Parameters
    ----------
    model : torch.nn.Module, optional
        Layers in evaluation mode are left alone; without a network nothing is done. Calls may be
        nested.

    Yields
    ------
    None
        Afterwards, also after an exception, the buffers are the same tensors with the same values.
    """
    layers = [] if model is None else [layer for layer in model.modules() if layer.training]
    held = [
        (layer, name, buffer, buffer.clone())
        for layer in layers
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for layer, name, buffer, before in held:
                buffer.copy_(before)
                layer._buffers[name] = buffer


@torch.no_grad()
def average_running_statistics(
    model: nn.Module, group: torch.distributed.ProcessGroup | None = None
) -> None:
    """Set the running statistics to their mean over all ranks, before evaluation and export.

    Replicas see different rows, and with rank-local perturbation nothing else makes them agree.
    DDP's own broadcast keeps the statistics of rank 0 and drops the others. Variances are averaged
    without the spread of the means between ranks.

    Parameters
    ----------
    model : torch.nn.Module
        The same network on all ranks.
    group : torch.distributed.ProcessGroup, optional
        All ranks by default.
    """
    layers = [m for m in model.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
    averaged = [
        t for layer in layers for t in (layer.running_mean, layer.running_var) if t is not None
    ]
    if not averaged:
        return
    flat = torch.cat([t.reshape(-1) for t in averaged])
    torch.distributed.all_reduce(flat, group=group)
    flat /= torch.distributed.get_world_size(group)
    parts = torch.split(flat, [t.numel() for t in averaged])
    torch._foreach_copy_(averaged, [p.view_as(t) for p, t in zip(parts, averaged, strict=True)])


@contextmanager
def checkpointed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Keep only the inputs of these layers, and run each again in the backward.

    Parameters
    ----------
    layers : iterable of torch.nn.Module
        For example the stages of a network; the whole network as one layer saves nothing.
        Outputs, gradients, dropout masks and buffers do not change.

    Yields
    ------
    None
        Inside the block their ``forward`` is checkpointed.
    """
    wrapped = [layer for layer in layers if "forward" not in vars(layer)]
    for layer in wrapped:
        layer.forward = functools.partial(
            checkpoint,
            layer.forward,
            use_reentrant=False,
            context_fn=functools.partial(_contexts, layer),
        )
    try:
        yield
    finally:
        for layer in wrapped:
            del layer.forward


def _contexts(
    layer: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """The contexts of the forward and of its repetition in the backward."""
    return nullcontext(), frozen_running_statistics(layer)
