"""BatchNorm's running statistics move in the first pass only.

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

from torch import nn
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
    held = [
        layer
        for layer in model.modules()
        if isinstance(layer, _NormBase) and layer.training and layer.track_running_stats
    ]
    for layer in held:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in held:
            layer.track_running_stats = True
