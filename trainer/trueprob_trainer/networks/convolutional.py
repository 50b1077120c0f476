"""Convolutional networks for small images: a digits CNN, ResNets, wide ResNets and DenseNet.

- ``digits_cnn``: three convolutions with BatchNorm, for 8x8 images.
- ResNets (arXiv:1512.03385). ``resnet8`` is the paper's CIFAR family (section 4.2) with one block
  per stage and projections as shortcuts, ``resnet10`` has a fourth stage. ``resnet18`` and
  ``resnet50`` are the ImageNet networks with another stem.
- Wide ResNets (arXiv:1605.07146), without dropout. Blocks normalise *before* each convolution.
- DenseNet-BC (arXiv:1608.06993): each layer sees all earlier outputs of its block.

All but ``digits_cnn`` start with one 3x3 convolution of stride 1 and no pooling; the ImageNet stem
would reduce 32x32 images to 8x8.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def normalised(inputs: int, outputs: int, side: int, stride: int = 1) -> list[nn.Module]:
    """A padded convolution without bias, and its BatchNorm."""
    convolution = nn.Conv2d(inputs, outputs, side, stride, padding=side // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs)]


def initialise(network: nn.Module) -> None:
    """He initialisation of every convolution, zero bias of every linear layer."""
    # arXiv:1502.01852, eq. 10, by outputs (fan out), as the authors of ResNet use it.
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.Linear):
            nn.init.zeros_(layer.bias)


def digits_cnn(*, channels: int, n_classes: int, width: int = 32) -> nn.Module:
    """Three convolutions for 8x8 images, 58 000 weights; sizes from 4x4 work too."""
    return nn.Sequential(
        *normalised(channels, width, 3),
        nn.ReLU(),
        *normalised(width, 2 * width, 3, 2),
        nn.ReLU(),
        *normalised(2 * width, 2 * width, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, n_classes),
    )


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(*normalised(inputs, outputs, 1, stride))


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
    block: type[BasicBlock] | type[Bottleneck],
    blocks: Sequence[int],  # of each stage
    width: int,  # channels of the first stage, before a bottleneck's widening
    *,
    channels: int,
    n_classes: int,
) -> nn.Module:
    """ResNet; stage i has width·2^i channels and, after the first, halves the sides."""
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
    # 24 to 192 channels: most weights work on 4x4 pixels, where they cost a CPU little.
    return residual_network(BasicBlock, (1, 1, 1, 1), 24, channels=channels, n_classes=n_classes)


def resnet18(*, channels: int, n_classes: int) -> nn.Module:
    """ResNet-18 with the stem for small images, 11.2 million weights."""
    return residual_network(BasicBlock, (2, 2, 2, 2), 64, channels=channels, n_classes=n_classes)


def resnet50(*, channels: int, n_classes: int) -> nn.Module:
    """ResNet-50 with the stem for small images, 23.5 million weights."""
    return residual_network(Bottleneck, (3, 4, 6, 3), 64, channels=channels, n_classes=n_classes)


class PreactivationBlock(nn.Module):
    """BatchNorm, ReLU, 3x3 convolution, twice, around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        )
        self.projection: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Branch + shortcut; a projection sees the normalised input."""
        ready = self.before(x)
        shortcut = x if self.projection is None else self.projection(ready)
        total: Tensor = self.branch(ready) + shortcut
        return total


def wide_residual_network(
    depth: int, widening: int, *, channels: int, n_classes: int
) -> nn.Sequential:
    """WRN-depth-widening: three stages of (depth - 4) / 6 blocks, 16 to 64 channels, widened."""
    n_blocks, rest = divmod(depth - 4, 6)
    if rest or n_blocks < 1:
        raise ValueError(f"depth must be 6b + 4 with b >= 1, got {depth}")
    layers: list[nn.Module] = [nn.Conv2d(channels, 16, 3, padding=1, bias=False)]
    inputs = 16
    for stage in range(3):
        outputs = 16 * widening * 2**stage
        for i in range(n_blocks):
            stride = 2 if stage > 0 and i == 0 else 1
            layers.append(PreactivationBlock(inputs, outputs, stride))
            inputs = outputs
    layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(inputs, n_classes))
    initialise(network)
    return network


def wrn_16_4(*, channels: int, n_classes: int) -> nn.Module:
    """WRN-16-4, 2.7 million weights."""
    return wide_residual_network(16, 4, channels=channels, n_classes=n_classes)


def wrn_28_10(*, channels: int, n_classes: int) -> nn.Module:
    """WRN-28-10, 36.5 million weights: the network of SAM's CIFAR figures."""
    return wide_residual_network(28, 10, channels=channels, n_classes=n_classes)


class DenseLayer(nn.Module):
    """A 1x1 and a 3x3 convolution that append ``growth`` channels to the input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            *normalised(inputs, 4 * growth, 1),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The input and the new channels."""
        return torch.cat((x, self.branch(x)), dim=1)


def dense_network(
    blocks: Sequence[int], growth: int, *, channels: int, n_classes: int
) -> nn.Module:
    """DenseNet-BC; between blocks a transition halves channels and sides."""
    width = 2 * growth
    layers: list[nn.Module] = [*normalised(channels, width, 3), nn.ReLU()]
    for i, n_layers in enumerate(blocks):
        if i > 0:
            halved = nn.Conv2d(width, width // 2, 1, bias=False)
            layers += [nn.BatchNorm2d(width), nn.ReLU(), halved, nn.AvgPool2d(2)]
            width //= 2
        for _ in range(n_layers):
            layers.append(DenseLayer(width, growth))
            width += growth
    layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(width, n_classes))
    initialise(network)
    return network


def densenet121(*, channels: int, n_classes: int) -> nn.Module:
    """DenseNet-121 with the stem for small images, 7.0 million weights."""
    return dense_network((6, 12, 24, 16), 32, channels=channels, n_classes=n_classes)
