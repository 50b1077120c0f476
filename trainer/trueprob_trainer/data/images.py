"""What a data set is: images, labels, class names, and which split each row is in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.data.splits import Split


@dataclass(frozen=True)
class LabelledImages:
    """A data set for classification.

    Parameters
    ----------
    images : ndarray of shape (n, height, width, channels), uint8
        Grey level or RGB, 0 to 255.
    labels : ndarray of shape (n,), int64
        Indices into ``class_names``.
    split : ndarray of shape (n,), int64
        Values of :class:`~trueprob_trainer.data.splits.Split`.
    class_names : tuple of str
    mode : str
        Pillow's name for the channels: ``L`` or ``RGB``.
    resample : str
        How a picture of another size is brought to this one: ``box``, ``bilinear`` or ``bicubic``.
    description : str
        Origin and everything done to the images, for the manifest and the model card.
    notes : tuple of str
        Sentences for the model card: licence, what was chosen and how.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    split: NDArray[np.int64]
    class_names: tuple[str, ...]
    mode: str
    resample: str
    description: str
    notes: tuple[str, ...] = ()

    def of(self, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images and labels of one split.

        Parameters
        ----------
        split : Split

        Returns
        -------
        tuple of ndarray
            Shapes (m, height, width, channels) and (m,), in the data set's order.
        """
        rows = self.split == split
        return self.images[rows], self.labels[rows]
