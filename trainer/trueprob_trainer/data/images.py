"""A data set: images, labels, class names, and the split of each row."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.data.splits import Split


@dataclass(frozen=True)
class LabelledImages:
    """A data set for classification."""

    images: NDArray[np.uint8]  # (n, height, width, channels), grey levels or RGB
    labels: NDArray[np.int64]  # (n,), indices of class_names
    split: NDArray[np.int64]  # (n,), values of Split
    class_names: tuple[str, ...]
    mode: str  # Pillow's name for the channels: L or RGB
    resample: str  # how other sizes are resized to this one: box, bilinear or bicubic
    description: str  # origin and processing, for the manifest and the model card
    notes: tuple[str, ...] = ()  # sentences for the model card: licence, choices

    def of(self, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images and labels of one split, in the order of the data set."""
        rows = self.split == split
        return self.images[rows], self.labels[rows]
