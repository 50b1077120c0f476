"""Residual networks for small images (He, Zhang, Ren, Sun: arXiv:1512.03385).

``resnet8`` is the paper's CIFAR family (section 4.2: three stages of 16, 32, 64 channels) with one
block a stage and projections as shortcuts; ``resnet10`` has a fourth stage, of 24 to 192 channels:
most of its weights work on 4x4 pixels, where they cost a CPU little. ``resnet18`` and ``resnet50``
are its ImageNet networks with the stem that 32x32 images want: one 3x3 convolution of stride 1 and
no pooling, in place of a 7x7 convolution and a pooling that would leave 8x8.

Wide residual networks (Zagoruyko, Komodakis: arXiv:1605.07146), without dropout.

Three stages of 16k, 32k, 64k channels; blocks normalise *before* each convolution, and where the
width changes the shortcut is a 1x1 convolution of the normalised input. WRN-d-k has (d - 4) / 6
blocks a stage.
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
        """Branch + shortcut; the projection, where there is one, sees the normalised input."""
        ready = self.before(x)
        shortcut = x if self.projection is None else self.projection(ready)
        total: Tensor = self.branch(ready) + shortcut
        return total


def wide_residual_network(
    depth: int, widening: int, *, channels: int, n_classes: int
) -> nn.Sequential:
    """WRN-depth-widening.

    Raises `ValueError`: no such depth.
    """
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
