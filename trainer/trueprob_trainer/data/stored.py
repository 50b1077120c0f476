"""Rows as a reader returns them, and how they are split.

A test set in the source is kept, so that scores stay comparable with published ones. Digests divide
the other rows into train and calibration; a row that also occurs in the test set is in no split.
Without a test set, digests divide the rows into all three.

Digests are of the bytes *as stored*: another version of a decoder may change a JPEG by one grey
level, and that must not move a row from calibration to train.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.data.images import LabelledImages
from trueprob_trainer.data.splits import Split, assign
from trueprob_trainer.errors import BadInput

CALIBRATION_SHARE = 0.1  # default for a source with a test set
SHARES = (0.2, 0.2)  # defaults for one without: calibration and test


@dataclass(frozen=True)
class StoredRows:
    """Rows as a reader returns them, checked to be a data set for classification."""

    path: Path  # only its name is stored in manifests
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    given_test: NDArray[np.bool_] | None = None  # rows of the source's own test set
    # Bytes of each row as stored, if they are not the image itself.
    encoded: list[NDArray[np.uint8]] | None = None

    def __post_init__(self) -> None:
        """Check shapes, classes and labels."""
        name, n, k = self.path.name, len(self.images), len(self.class_names)
        if self.images.ndim != 4 or self.images.shape[3] not in (1, 3):
            raise BadInput(
                f"{name}: images must have shape (n, height, width, 1 or 3), "
                f"got {self.images.shape}"
            )
        if self.labels.shape != (n,) or n == 0:
            raise BadInput(
                f"{name}: labels must have shape ({n},) with n > 0, got {self.labels.shape}"
            )
        if k < 2:
            raise BadInput(f"{name}: there must be at least two classes, got {k}")
        if self.labels.min() < 0 or self.labels.max() >= k:
            raise BadInput(
                f"{name}: labels must be between 0 and {k - 1}, got {self.labels.min()} to "
                f"{self.labels.max()}"
            )

    def split(self, *, calibration_share: float, test_share: float, seed: int) -> LabelledImages:
        """Assign each row to a split; a share of 0 means the default."""
        given_test = self.given_test
        if given_test is not None and test_share:
            raise BadInput(f"test_share must be 0: {self.path.name} has its own test set")
        if given_test is None:
            calibration_share = calibration_share or SHARES[0]
            test_share = test_share or SHARES[1]
        calibration_share = calibration_share or CALIBRATION_SHARE
        if not 0 < calibration_share + test_share < 1:
            raise BadInput(
                "calibration_share and test_share must leave rows to train on, got "
                f"{calibration_share} and {test_share}"
            )
        shares = {
            Split.TRAIN: 1 - calibration_share - test_share,
            Split.CALIBRATION: calibration_share,
            Split.TEST: test_share,
        }
        keys = self.images if self.encoded is None else self.encoded
        split = assign(keys, shares, seed)
        if given_test is not None:
            test_rows = {keys[row].tobytes() for row in np.flatnonzero(given_test)}
            copies = np.array([key.tobytes() in test_rows for key in keys])
            split = np.where(copies, int(Split.UNUSED), split)
            split[given_test] = Split.TEST
        n, height, width, channels = self.images.shape
        mode = "L" if channels == 1 else "RGB"
        origin = (
            "with the test set that it brings" if given_test is not None else "divided by digest"
        )
        return LabelledImages(
            images=self.images,
            labels=self.labels,
            split=split,
            class_names=self.class_names,
            mode=mode,
            resample="bilinear",
            description=f"{self.path.name} ({n} images of {height}x{width} pixels, {mode}, "
            f"{origin}, content {self.content_digest()})",
        )

    def content_digest(self) -> str:
        """12 hex digits over images and labels; they distinguish data sets of the same name."""
        digest = hashlib.sha256(self.labels.tobytes())
        for start in range(0, len(self.images), 4096):  # memory-mapped images stay on disk
            digest.update(self.images[start : start + 4096].tobytes())
        return digest.hexdigest()[:12]
