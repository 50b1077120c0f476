"""Batches of the train split on the device: from memory there while they fit, else streamed.

The order of an epoch comes from one generator and augmentation from another, so a run without
augmentation is the same run as before augmentation existed. Both states are in the checkpoint.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import LabelledImages, Split
from trueprob_trainer.errors import BadInput
from trueprob_trainer.training import augmentation
from trueprob_trainer.training.teacher import Teacher

RESIDENT_SHARE = 0.5  # of a GPU's free memory; the rest is for activations


class TrainRows:
    """Images and labels of the train split, by place in it."""

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
        if isinstance(self.images, np.memmap):  # did not even fit into memory
            return False
        if self.device.type != "cuda":
            return True
        needed = len(self.rows) * self.images[0].nbytes
        free, _ = torch.cuda.mem_get_info(self.device)
        return bool(needed < RESIDENT_SHARE * free)

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Batch after batch.

        Returns: images (rows, height, width, channels), uint8, and labels (rows,).
        """
        if self.resident is not None:
            for rows in order.to(self.device):
                yield self.resident[rows], self.labels[rows]
            return
        # Two batches are gathered while another is worked on.
        with ThreadPoolExecutor(1) as reader:
            coming = [reader.submit(self._gathered, rows.numpy()) for rows in order[:2]]
            for i, rows in enumerate(order):
                images = coming.pop(0).result()
                if i + 2 < len(order):
                    coming.append(reader.submit(self._gathered, order[i + 2].numpy()))
                labels = self.labels[rows.to(self.device)]
                yield images.to(self.device, non_blocking=True), labels

    def _gathered(self, rows: NDArray[np.int64]) -> Tensor:
        images = torch.from_numpy(np.ascontiguousarray(self.images[self.rows[rows]]))
        return images.pin_memory() if self.device.type == "cuda" else images


class Batches:
    """What the loop of a recipe is fed with.

    Raises `BadInput`: fewer train rows than one batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: LabelledImages,
        mean: Tensor,  # (channels,), colour that cutout fills with
        device: torch.device,
        teacher: Teacher | None = None,  # whose answers stand beside the labels
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
        self.augment = torch.Generator(device).manual_seed(config.seed)

    def order(self) -> Tensor:
        """Places of the next epoch's rows, (n_batches, batch_size); the rest is left out."""
        places = torch.randperm(len(self.rows), generator=self.shuffle)
        return places[: self.n_batches * self.config.batch_size].view(self.n_batches, -1)

    def of(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Augmented batches in that order.

        Returns: images, uint8 or float in grey levels, and targets as
        :mod:`trueprob_trainer.training.losses` takes them.
        """
        for images, labels in self.rows.batches(order):
            yield self._augmented(images, labels)

    def _augmented(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        c = self.config
        if c.crop:
            images = augmentation.crop(images, c.crop, self.augment)
        if c.flip:
            images = augmentation.flip(images, self.augment)
        if c.cutout:
            images = augmentation.cutout(images, c.cutout, self.mean, self.augment)
        if not c.mixup and self.teacher is None:
            return images, labels
        targets = functional.one_hot(labels, self.n_classes).to(torch.float32)
        if c.mixup:
            images, targets = augmentation.mixup(images, targets, c.mixup, self.augment)
        if self.teacher is not None:
            targets = torch.cat((targets, self.teacher.probabilities(images)), dim=1)
        return images, targets
