"""White-box attacks with a bounded change of every pixel: FGSM and PGD.

FGSM (Goodfellow, Shlens, Szegedy: arXiv:1412.6572) takes one step of size ε along the sign of the
gradient of the loss. PGD (Madry et al.: arXiv:1706.06083) takes several smaller steps from a random
start and projects each back into the ball of radius ε. The results are images: whole grey levels
from 0 to 255, at most ε away from the original.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trueprob_trainer.errors import BadInput

EPSILON = 8  # grey levels; the usual bound for CIFAR
STEPS = 10  # of PGD; steps of 2.5·ε/STEPS can reach any point of the ball


def fgsm(
    model: nn.Module,  # takes grey levels, NHWC; run in evaluation mode
    images: NDArray[np.uint8],  # (n, height, width, channels)
    labels: NDArray[np.int64],  # (n,)
    *,
    epsilon: int = EPSILON,  # largest change of a value, in grey levels
) -> NDArray[np.uint8]:
    """Change images by one signed step that raises the loss."""
    return _attacked(model, images, labels, epsilon, steps=1, size=float(epsilon), rng=None)


def pgd(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    epsilon: int = EPSILON,
    steps: int = STEPS,
    seed: int = 0,  # of the random start
) -> NDArray[np.uint8]:
    """Change images by projected gradient ascent on the loss; parameters as :func:`fgsm`."""
    size = 2.5 * epsilon / steps
    rng = torch.Generator().manual_seed(seed)
    return _attacked(model, images, labels, epsilon, steps=steps, size=size, rng=rng)


def _attacked(
    model: nn.Module,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    epsilon: int,
    *,
    steps: int,
    size: float,
    rng: torch.Generator | None,
    batch_size: int = 256,
) -> NDArray[np.uint8]:
    if not 0 < epsilon < 256 or steps < 1:
        raise BadInput(f"epsilon must be 1 to 255 grey levels, got {epsilon}")
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    moved = np.empty_like(images)
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        original = torch.from_numpy(images[part]).to(device, torch.float32)
        truth = torch.from_numpy(labels[part]).to(device)
        x = original
        if rng is not None:
            noise = torch.rand(original.shape, generator=rng).to(device) * 2 - 1
            x = _into_ball(original + epsilon * noise, original, epsilon)
        for _ in range(steps):
            x = _into_ball(x + size * _gradient(model, x, truth).sign(), original, epsilon)
        moved[part] = x.round().to(torch.uint8).cpu().numpy()
    model.train(was_training)
    return moved


def _gradient(model: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        loss = functional.cross_entropy(model(x), labels, reduction="sum")
    return torch.autograd.grad(loss, x)[0]  # leaves the gradients of the weights alone


def _into_ball(x: Tensor, centre: Tensor, epsilon: int) -> Tensor:
    return x.clamp(centre - epsilon, centre + epsilon).clamp(0, 255)
