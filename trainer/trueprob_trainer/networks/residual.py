"""Residual networks for small images (He, Zhang, Ren, Sun: arXiv:1512.03385).

``resnet8`` is the paper's CIFAR family (section 4.2: three stages of 16, 32, 64 channels) with one
block a stage and projections as shortcuts; ``resnet10`` has a fourth stage, of 24 to 192 channels:
most of its weights work on 4x4 pixels, where they cost a CPU little. ``resnet18`` and ``resnet50``
are its ImageNet networks with the stem that 32x32 images want: one 3x3 convolution of stride 1 and
no pooling, in place of a 7x7 convolution and a pooling that would leave 8x8.
"""

from collections.abc import Sequence

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    widening = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *normalised(inputs, width, 3, stride),
            nn.ReLU(),
            *normalised(width, width, 3),
        )
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(branch + shortcut)."""
        return nn.functional.relu(self.branch(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; the stride is in the 3x3 one."""

    widening = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *normalised(inputs, width, 1),
            nn.ReLU(),
            *normalised(width, width, 3, stride),
            nn.ReLU(),
            *normalised(width, self.widening * width, 1),
        )
        self.shortcut = _shortcut(inputs, self.widening * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """ReLU(branch + shortcut)."""
        return nn.functional.relu(self.branch(x) + self.shortcut(x))


def residual_network(
    block: type[BasicBlock] | type[Bottleneck],  # :class:`BasicBlock` or :class:`Bottleneck`
    blocks: Sequence[int],
    width: int,  # channels of the first stage, before a bottleneck's widening
    *,
    channels: int,
    n_classes: int,
) -> nn.Module:
    """A residual network with the stem for small images."""
    layers: list[nn.Module] = [*normalised(channels, width, 3), nn.ReLU()]
    inputs = width
    for stage, n_blocks in enumerate(blocks):
        for i in range(n_blocks):
            stride = 2 if stage > 0 and i == 0 else 1
            layers.append(block(inputs, width * 2**stage, stride))
            inputs = block.widening * width * 2**stage
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, n_classes)]
    network = nn.Sequential(*layers)
    initialise(network)
    return network


def resnet8(*, channels: int, n_classes: int) -> nn.Module:
    """ResNet-8, 78 000 weights: for CPUs and a few thousand images."""
    return residual_network(BasicBlock, (1, 1, 1), 16, channels=channels, n_classes=n_classes)


def resnet10(*, channels: int, n_classes: int) -> nn.Module:
    """Narrow ResNet-10, 692 000 weights: CIFAR-10 on one CPU core, and 2.8 MB as a graph."""
    return residual_network(BasicBlock, (1, 1, 1, 1), 24, channels=channels, n_classes=n_classes)


def resnet18(*, channels: int, n_classes: int) -> nn.Module:
    """ResNet-18 with the stem for small images, 11.2 million weights."""
    return residual_network(BasicBlock, (2, 2, 2, 2), 64, channels=channels, n_classes=n_classes)


def resnet50(*, channels: int, n_classes: int) -> nn.Module:
    """ResNet-50 with the stem for small images, 23.5 million weights."""
    return residual_network(Bottleneck, (3, 4, 6, 3), 64, channels=channels, n_classes=n_classes)


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution, zero bias of every linear layer.

    Source: arXiv:1502.01852, eq. 10, by outputs (fan out), as the residual networks' authors use
    it.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)


def normalised(inputs: int, outputs: int, side: int, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps the sides (over the stride), without bias, and its BatchNorm."""
    convolution = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(*normalised(inputs, outputs, 1, stride))
