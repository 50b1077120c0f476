"""ResNet-18 (He et al. 2015, table 1) with random weights, as an ONNX file that takes pixels."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.serving.pictures import SIDE
from trueprob_trainer.export.graph import onnx_of
from trueprob_trainer.networks.classifier import ImageClassifier

WIDTHS = (64, 128, 256, 512)


class Block(nn.Module):
    """Two 3 × 3 convolutions round a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = convolution(outputs, outputs, 3, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def resnet18(n_classes: int) -> nn.Module:
    """11.7 million weights for 1000 classes."""
    layers: list[nn.Module] = [convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for index, width in enumerate(WIDTHS):
        layers += [Block(inputs, width, 1 if index == 0 else 2), Block(width, width, 1)]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, n_classes))


def onnx_resnet18(n_classes: int, *, seed: int = 0) -> bytes:
    """The network behind the standardisation of uint8 pixels, any batch size."""
    torch.manual_seed(seed)
    grey = np.full(3, 128.0)
    model = ImageClassifier(resnet18(n_classes), grey, grey / 2).eval()
    return onnx_of(model, np.zeros((2, SIDE, SIDE, 3), np.uint8))
