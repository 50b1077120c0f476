"""A convolutional network for 8x8 images: three convolutions with BatchNorm, 58 000 weights."""

from torch import nn


def digits_cnn(*, channels: int, n_classes: int, width: int = 32) -> nn.Module:
    """Build the network.

    Returns: (n, channels, 8, 8) float to (n, n_classes); other sizes from 4x4 work, too.
    """
    return nn.Sequential(
        *_block(channels, width, stride=1),
        *_block(width, 2 * width, stride=2),
        *_block(2 * width, 2 * width, stride=1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, n_classes),
    )


def _block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
