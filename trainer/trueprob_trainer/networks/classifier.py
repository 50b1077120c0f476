"""A network with its preprocessing: uint8 images in, logits out.

The mean and the deviation of the training data are part of the exported graph, so a client sends
pixels and cannot standardise them wrongly.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class ImageClassifier(nn.Module):
    """Standardises uint8 NHWC images, then runs the network."""

    # Per channel, in grey levels. They are buffers: saved with the weights and not trained.
    mean: Tensor
    scale: Tensor

    def __init__(
        self, network: nn.Module, mean: NDArray[np.float64], deviation: NDArray[np.float64]
    ) -> None:
        super().__init__()
        self.network = network
        self.channels_last = False  # memory order of the network's input
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(1 / deviation, dtype=torch.float32))

    def forward(self, image: Tensor) -> Tensor:
        """Logits of uint8 images."""
        standardised = (image.to(torch.float32) - self.mean) * self.scale
        planes = standardised.permute(0, 3, 1, 2)
        if self.channels_last:
            planes = planes.contiguous(memory_format=torch.channels_last)
        else:
            planes = planes.contiguous()
        logits: Tensor = self.network(planes)
        return logits


def predict_logits(
    model: nn.Module, images: NDArray[np.uint8], batch_size: int = 512
) -> NDArray[np.float32]:
    """Logits of all images in evaluation mode; the mode of the model is restored."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        parts = [
            model(torch.from_numpy(images[i : i + batch_size]).to(device)).cpu().numpy()
            for i in range(0, len(images), batch_size)
        ]
    model.train(was_training)
    return np.concatenate(parts)
