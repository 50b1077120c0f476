"""Activation checkpointing: a sharpness-aware step in the memory of a smaller network.

Two passes one after the other need no more activations than one, so SAM's own cost is a copy of the
weights. Where the activations are what does not fit, they can be thrown away and computed again in
each backward, for about a third more time. ``torch.utils.checkpoint`` does that; what it does not
know is that a layer run twice moves its BatchNorm statistics twice, in the first pass, too.
"""

import functools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from torch import nn
from torch.utils.checkpoint import checkpoint

from trueprob_trainer.sharpness_aware.batch_norm import kept_running_statistics


@contextmanager
def checkpointed(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Keep only the inputs of these layers, and run each again in the backward.

    Parameters
    ----------
    layers : iterable of torch.nn.Module
        Stages of a network, say; one whole network saves nothing. Outputs, gradients, dropout
        masks and BatchNorm statistics stay what they are without.

    Yields
    ------
    None
        Inside, their ``forward`` is checkpointed.
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
    """Around the forward, and around running it again."""
    return nullcontext(), kept_running_statistics(layer)
