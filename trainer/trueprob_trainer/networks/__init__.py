"""Networks by name, or a user's own by ``module:function``.

A network is built by a function of keyword arguments ``channels`` and ``n_classes`` and maps float
images (n, channels, height, width) of about zero mean and unit variance to logits (n, n_classes).
A function that also has a parameter ``image_size`` is given (height, width).
"""

import importlib
import inspect
from collections.abc import Callable

from torch import nn

from trueprob_trainer.errors import BadInput
from trueprob_trainer.networks.convolutional import densenet121
from trueprob_trainer.networks.digits_cnn import digits_cnn
from trueprob_trainer.networks.residual import resnet8, resnet10, resnet18, resnet50
from trueprob_trainer.networks.vision_transformer import vit_small_4
from trueprob_trainer.networks.wide_residual import wrn_16_4, wrn_28_10

NetworkFunction = Callable[..., nn.Module]

NETWORKS: dict[str, NetworkFunction] = {
    "digits-cnn": digits_cnn,
    "resnet-8": resnet8,
    "resnet-10": resnet10,
    "resnet-18": resnet18,
    "resnet-50": resnet50,
    "wrn-16-4": wrn_16_4,
    "wrn-28-10": wrn_28_10,
    "densenet-121": densenet121,
    "vit-s-4": vit_small_4,
}


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


def build_network(
    name: str, *, channels: int, n_classes: int, image_size: tuple[int, int]
) -> nn.Module:
    """Untrained network of that name for images of that shape.

    Parameters
    ----------
    name : str
        As for :func:`network_function`.
    channels, n_classes : int
    image_size : tuple of int
        Height and width.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    BadInput
        No such network, or it refuses these images, or the function does not return a network.
    """
    function = network_function(name)
    size = {"image_size": image_size} if "image_size" in _parameters(function) else {}
    try:
        network = function(channels=channels, n_classes=n_classes, **size)
    except (TypeError, ValueError) as problem:
        raise BadInput(f"network {name} cannot be built: {problem}") from problem
    if not isinstance(network, nn.Module):
        raise BadInput(f"network {name} must return a torch module, got {type(network).__name__}")
    return network


def _parameters(function: NetworkFunction) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(function).parameters)
    except ValueError:  # a builtin has none to show
        return ()


__all__ = ["NETWORKS", "NetworkFunction", "build_network", "network_function"]
