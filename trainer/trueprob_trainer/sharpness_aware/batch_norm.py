"""BatchNorm's running statistics, which must move once per step, and activation checkpointing.

They move in the forward of the first pass. The second pass is at w + ε, where the network never
predicts. Its statistics in ``running_mean`` and ``running_var`` would shift every evaluation and
the exported graph, and double the effective momentum. Layers still normalise by the *batch* in the
second pass, since the gradient is that of the training function; only the averages are held.

Two passes one after the other need no more activations than one, so SAM costs one copy of the
weights. If the activations do not fit, :func:`checkpointed` computes them again in each backward,
for about a third more time. It uses ``torch.utils.checkpoint`` and adds what that lacks: a layer
that runs twice must not move its statistics twice.
"""

import functools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


@contextmanager
def frozen_running_statistics(model: nn.Module) -> Iterator[None]:
    """Hold the running statistics of every normalisation layer in training mode.

    Parameters
    ----------
    model : torch.nn.Module
        Layers in evaluation mode or without statistics are not changed. Calls may be nested.

    Yields
    ------
    None
        Afterwards, also after an exception, exactly the changed flags are set back.
    """
    # `momentum` is not set to 0 instead: its old value would have to be restored, and a constant
    # (0.1) would change networks that were built with another value.
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
    """Restore the running statistics afterwards: for the *backward* of the first pass.

    Activation checkpointing runs layers again in the backward, and each run moves their statistics.
    :func:`frozen_running_statistics` does not work there: the layer would save other tensors than
    in the forward, which checkpointing refuses.

    Parameters
    ----------
    model : torch.nn.Module, optional
        The network; without one nothing is done.

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


@contextmanager
def checkpointed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Keep only the inputs of these layers, and run each again in the backward.

    Parameters
    ----------
    layers : iterable of torch.nn.Module
        For example the stages of a network; the whole network as one layer saves nothing.
        Outputs, gradients, dropout masks and BatchNorm statistics do not change.

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
    return nullcontext(), kept_running_statistics(layer)
