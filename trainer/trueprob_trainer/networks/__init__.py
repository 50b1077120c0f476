"""Networks by name, or a user's own by ``module:function``.

A function with the keyword arguments ``channels`` and ``n_classes`` builds the network. If it has a
parameter ``image_size``, it gets (height, width). The network maps float images (n, channels,
height, width), of about zero mean and unit variance, to logits (n, n_classes).
"""

import inspect
from collections.abc import Callable

from torch import nn

from trueprob_trainer.errors import BadInput
from trueprob_trainer.importing import imported
from trueprob_trainer.networks.convolutional import (
    densenet121,
    digits_cnn,
    resnet8,
    resnet10,
    resnet18,
    resnet50,
    wrn_16_4,
    wrn_28_10,
)
from trueprob_trainer.networks.vision_transformer import vit_small_4

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
    """The function that builds a network; importing ``module:function`` runs the module's code."""
    if name in NETWORKS:
        return NETWORKS[name]
    if ":" not in name:
        raise BadInput(
            f"network must be one of {', '.join(NETWORKS)} or module:function, got {name}"
        )
    try:
        function = imported(name)
    except ValueError as problem:
        raise BadInput(f"network {problem}") from problem
    if not callable(function):
        raise BadInput(f"network {name} must be a function, got {type(function).__name__}")
    return function  # type: ignore[no-any-return]  # the caller's module is untyped


def build_network(
    name: str, *, channels: int, n_classes: int, image_size: tuple[int, int]
) -> nn.Module:
    """Build an untrained network for images of ``image_size`` (height, width)."""
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
    except ValueError:  # some builtins have no signature
        return ()


__all__ = ["NETWORKS", "NetworkFunction", "build_network", "network_function"]
