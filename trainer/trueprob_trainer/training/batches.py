"""Batches of the train split on the device, with augmentation.

The rows stay on the device if they fit there; otherwise batches are streamed. One generator draws
the order of an epoch and another the augmentation, so a run without augmentation does not depend on
it. Both states are in the checkpoint.

Augmentation (random crops, flips, squares, mixtures of rows) works on batches of uint8 images,
NHWC, on the device; only mixtures are float. The preprocessing of the network comes afterwards.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import LabelledImages, Split
from trueprob_trainer.errors import BadInput
from trueprob_trainer.training.ranks import ALONE, Ranks
from trueprob_trainer.training.teacher import Teacher

RESIDENT_SHARE = 0.5  # of a GPU's free memory for the rows; the rest is for activations


class TrainRows:
    """Images and labels of the train split, by position in it."""

    def __init__(
        self, data: LabelledImages, device: torch.device, *, resident: bool | None = None
    ) -> None:
        self.device = device
        self.rows = np.flatnonzero(data.split == Split.TRAIN)
        self.images = data.images
        self.labels = torch.from_numpy(data.labels[self.rows]).to(device)
        self.resident: Tensor | None = None
        if self._fits() if resident is None else resident:
            self.resident = torch.from_numpy(data.images[self.rows]).to(device)

    def _fits(self) -> bool:
        if isinstance(self.images, np.memmap):  # too large even for main memory
            return False
        if self.device.type != "cuda":
            return True
        needed = len(self.rows) * self.images[0].nbytes
        free, _ = torch.cuda.mem_get_info(self.device)
        return bool(needed < RESIDENT_SHARE * free)

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield uint8 images (rows, height, width, channels) and labels of each batch."""
        if self.resident is not None:
            for rows in order.to(self.device):
                yield self.resident[rows], self.labels[rows]
            return
        # Two batches are gathered while the caller works on another.
        with ThreadPoolExecutor(1) as reader:
            pending = [reader.submit(self._gather, rows.numpy()) for rows in order[:2]]
            for i, rows in enumerate(order):
                images = pending.pop(0).result()
                if i + 2 < len(order):
                    pending.append(reader.submit(self._gather, order[i + 2].numpy()))
                labels = self.labels[rows.to(self.device)]
                yield images.to(self.device, non_blocking=True), labels

    def _gather(self, rows: NDArray[np.int64]) -> Tensor:
        images = torch.from_numpy(np.ascontiguousarray(self.images[self.rows[rows]]))
        return images.pin_memory() if self.device.type == "cuda" else images


class Batches:
    """The shuffled and augmented batches of a recipe."""

    def __init__(
        self,
        config: TrainConfig,
        data: LabelledImages,
        mean: Tensor,  # (channels,), colour of the squares of cutout
        device: torch.device,
        teacher: Teacher | None = None,  # its probabilities become part of the targets
        ranks: Ranks = ALONE,
    ) -> None:
        self.config = config
        self.rows = TrainRows(data, device)
        self.n_classes = len(data.class_names)
        self.n_batches = len(self.rows) // config.batch_size
        if self.n_batches == 0:
            raise BadInput(
                f"batch_size must be at most {len(self.rows)} rows, got {config.batch_size}"
            )
        self.mean = mean
        self.teacher = teacher
        self.shuffle = torch.Generator().manual_seed(config.seed)
        self.augment = torch.Generator(device).manual_seed(ranks.seed(config.seed))
        self.ranks = ranks

    def order(self) -> Tensor:
        """Positions of the next epoch's rows, (n_batches, batch_size); the rest is left out.

        Of several ranks each has its part of every batch.
        """
        places = torch.randperm(len(self.rows), generator=self.shuffle)
        whole = places[: self.n_batches * self.config.batch_size].view(self.n_batches, -1)
        return self.ranks.part_of(whole)

    def of(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches in that order: images in grey levels, and targets.

        The targets are as in :mod:`trueprob_trainer.training.building`.
        """
        for images, labels in self.rows.batches(order):
            yield self._augmented(images, labels)

    def _augmented(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        if c.crop:
            images = random_crop(images, c.crop, self.augment)
        if c.flip:
            images = random_flip(images, self.augment)
        if c.cutout:
            images = random_cutout(images, c.cutout, self.mean, self.augment)
        if not c.mixup and self.teacher is None:
            return images, labels
        targets = functional.one_hot(labels, self.n_classes).to(torch.float32)
        if c.mixup:
            images, targets = mixup(images, targets, c.mixup, self.augment)
        if self.teacher is not None:
            targets = torch.cat((targets, self.teacher.probabilities(images)), dim=1)
        return images, targets


# ----- Augmentation -----


def random_crop(images: Tensor, padding: int, generator: Generator) -> Tensor:
    """Shift each image by up to ``padding`` pixels in both directions; the border is black."""
    n, height, width, _ = images.shape
    device = images.device
    padded = functional.pad(images, (0, 0, padding, padding, padding, padding))
    moves = torch.randint(0, 2 * padding + 1, (2, n, 1, 1), generator=generator, device=device)
    rows = torch.arange(height, device=device).view(1, -1, 1) + moves[0]
    columns = torch.arange(width, device=device).view(1, 1, -1) + moves[1]
    return padded[torch.arange(n, device=device).view(-1, 1, 1), rows, columns]


def random_flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image, left and right, with probability 1/2."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(2), images)


def random_cutout(images: Tensor, side: int, fill: Tensor, generator: Generator) -> Tensor:
    """Set one square of each image to a colour (DeVries, Taylor: arXiv:1708.04552)."""
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
    """Average each row with another one (arXiv:1710.09412); the images become float."""
    seed = torch.randint(0, 2**62, (1,), generator=generator, device=images.device)
    weight = float(
        np.random.default_rng(int(seed)).beta(alpha, alpha)
    )  # torch has no Beta with a generator
    other = torch.randperm(len(images), generator=generator, device=images.device)
    pixels = images.to(torch.float32)
    return (
        torch.lerp(pixels[other], pixels, weight),
        torch.lerp(targets[other], targets, weight),
    )
