"""Wide residual networks (Zagoruyko, Komodakis: arXiv:1605.07146), without dropout.

Three stages of 16k, 32k, 64k channels; blocks normalise *before* each convolution, and where the
width changes the shortcut is a 1x1 convolution of the normalised input. WRN-d-k has (d - 4) / 6
blocks a stage.
"""

from torch import Tensor, nn

from trueprob_trainer.networks.residual import initialise


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
