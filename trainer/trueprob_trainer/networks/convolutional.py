"""DenseNet-121 for small images (Huang, Liu, van der Maaten, Weinberger: arXiv:1608.06993).

Every layer sees all earlier outputs of its block; a layer is BatchNorm, ReLU, 1x1 convolution to
four growths, BatchNorm, ReLU, 3x3 convolution to one growth (DenseNet-B), and between blocks
channels and sides are halved (C = 0.5). The stem is one 3x3 convolution of stride 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trueprob_trainer.networks.residual import initialise, normalised


class DenseLayer(nn.Module):
    """Appends ``growth`` channels to its input."""

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
        """Input and what this layer adds, along the channels."""
        return torch.cat((x, self.branch(x)), dim=1)


def dense_network(
    blocks: Sequence[int], growth: int, *, channels: int, n_classes: int
) -> nn.Module:
    """A DenseNet-BC with the stem for small images."""
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
