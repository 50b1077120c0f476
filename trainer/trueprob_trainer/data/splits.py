"""Splits rows into train, calibration and test by a digest of each image.

The digest of a row's bytes, with a seed, is read as a number in [0, 1). So no list of rows is
stored, and the split of a row does not change when others are added or reordered. An image that
occurs twice is in one split, so no calibration or test row is ever trained on.
"""

import hashlib
from collections.abc import Iterable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Split(IntEnum):
    """Purpose of a row; each row has exactly one."""

    TRAIN = 0
    CALIBRATION = 1  # fits calibrators; recipes were chosen by its scores
    TEST = 2  # scored when the recipe is fixed
    EXAMPLES = 3  # reserved for the files in examples/
    UNUSED = 4  # left out by a smaller or imbalanced train split, or a copy of a test row


def digest(image: NDArray[np.uint8], purpose: str) -> bytes:
    """32 bytes that depend on the image and on the purpose."""
    return hashlib.sha256(purpose.encode() + b"\0" + image.tobytes()).digest()


def uniform_number(image: NDArray[np.uint8], purpose: str) -> float:
    """The digest as a number in [0, 1), which is uniform over images."""
    return int.from_bytes(digest(image, purpose)[:8], "big") / 2**64


def assign(
    images: Iterable[NDArray[np.uint8]], shares: dict[Split, float], seed: int = 0
) -> NDArray[np.int64]:
    """Assign every row to a split; ``shares`` are expected fractions that sum to one."""
    if abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values()) < 0:
        raise ValueError(f"shares must be at least 0 and sum to 1, got {list(shares.values())}")
    numbers = np.array([uniform_number(image, f"split-{seed}") for image in images])
    upper_ends = np.cumsum(list(shares.values()))[:-1]
    order = np.array([int(split) for split in shares], dtype=np.int64)
    return order[np.searchsorted(upper_ends, numbers, side="right")]
