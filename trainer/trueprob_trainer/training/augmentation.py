"""Random crops, flips, squares and mixtures of whole batches, on the device where the batch is.

Images stay uint8 NHWC until they are mixed: the network's own preprocessing comes after all of it.
Every draw is from one generator, whose state is part of a checkpoint.
"""

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional


def crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Each image moved by up to ``padding`` pixels in both directions, black coming in."""
    n, height, width, _ = images.shape
    device = images.device
    padded = functional.pad(images, (0, 0, padding, padding, padding, padding))
    moves = torch.randint(0, 2 * padding + 1, (2, n, 1, 1), generator=generator, device=device)
    rows = torch.arange(height, device=device).view(1, -1, 1) + moves[0]
    columns = torch.arange(width, device=device).view(1, 1, -1) + moves[1]
    return padded[torch.arange(n, device=device).view(-1, 1, 1), rows, columns]


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Each image mirrored, left and right, with probability one half."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(2), images)


def cutout(images: Tensor, side: int, fill: Tensor, generator: Generator) -> Tensor:
    """Each image with one square set to a colour (DeVries, Taylor: arXiv:1708.04552)."""
    n, height, width, _ = images.shape
    device = images.device
    inside = []
    for axis, length in ((1, height), (2, width)):
        centres = torch.randint(0, length, (n, 1), generator=generator, device=device)
        place = torch.arange(length, device=device) - centres + side // 2
        shape = (n, length, 1, 1) if axis == 1 else (n, 1, length, 1)
        inside.append(((place >= 0) & (place < side)).view(shape))
    colour = fill.round().to(device, images.dtype)
    return torch.where(inside[0] & inside[1], colour, images)


def mixup(
    images: Tensor, targets: Tensor, alpha: float, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Images and targets averaged with those of another row (arXiv:1710.09412), one weight a batch.

    Returns: float images in grey levels, and targets.
    """
    seed = torch.randint(0, 2**62, (1,), generator=generator, device=images.device)
    weight = float(np.random.default_rng(int(seed)).beta(alpha, alpha))  # torch draws no Beta so
    other = torch.randperm(len(images), generator=generator, device=images.device)
    pixels = images.to(torch.float32)
    return (
        torch.lerp(pixels[other], pixels, weight),
        torch.lerp(targets[other], targets, weight),
    )
