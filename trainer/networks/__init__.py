"""Networks by name, or a user's own by ``module:function``.

A network is built by a function of keyword arguments ``channels`` and ``n_classes`` and maps float
images (n, channels, height, width) of about zero mean and unit variance to logits (n, n_classes).
"""

import importlib
from collections.abc import Callable

from torch import nn

from trainer.errors import BadInput
from trainer.networks.digits_cnn import digits_cnn

NetworkFunction = Callable[..., nn.Module]

NETWORKS: dict[str, NetworkFunction] = {"digits-cnn": digits_cnn}


def network_function(name: str) -> NetworkFunction:
    """The function that builds the network of that name.

    Parameters
    ----------
    name : str
        A key of :data:`NETWORKS`, or ``module:function`` for one of the caller's. The module is
        imported, which runs its code.

    Returns
    -------
    callable
        ``function(channels=…, n_classes=…)`` to :class:`torch.nn.Module`.

    Raises
    ------
    BadInput
        No such name, module or function.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    module_name, separator, function_name = name.partition(":")
    if not separator:
        raise BadInput(
            f"network must be one of {', '.join(NETWORKS)} or module:function, got {name}"
        )
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as problem:
        raise BadInput(f"network {name} cannot be imported: {problem}") from problem
    if not callable(function):
        raise BadInput(f"network {name} must be a function, got {type(function).__name__}")
    return function  # type: ignore[no-any-return]  # whatever the caller's module holds


__all__ = ["NETWORKS", "NetworkFunction", "network_function"]
