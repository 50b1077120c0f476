"""Which rows train, which calibrate, which test: decided by the bytes of each image.

A row's place is a seeded digest of its own bytes, read as a number in [0, 1). So the split needs no
stored list, does not change when rows are added or reordered, and an image that occurs twice is in
one split by construction: no calibration or test row was ever trained on.
"""

import hashlib
from collections.abc import Iterable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Split(IntEnum):
    """Purpose of a row; a row has exactly one."""

    TRAIN = 0
    CALIBRATION = 1  # fits calibrators, and every choice of recipe was made by looking here
    TEST = 2  # scored once a recipe is fixed
    EXAMPLES = 3  # in none of the above: what examples/ shows to a finished model
    UNUSED = 4  # left out: a smaller or imbalanced train split, a copy of a given test row


def digest(image: NDArray[np.uint8], purpose: str) -> bytes:
    """32 bytes that depend on the image's bytes and on what they are wanted for."""
    return hashlib.sha256(purpose.encode() + b"\0" + image.tobytes()).digest()


def place(image: NDArray[np.uint8], purpose: str) -> float:
    """The digest as a number in [0, 1), uniform over images."""
    return int.from_bytes(digest(image, purpose)[:8], "big") / 2**64


def assign(
    images: Iterable[NDArray[np.uint8]], shares: dict[Split, float], seed: int = 0
) -> NDArray[np.int64]:
    """Split of every row.

    Parameters
    ----------
    images : ndarray of shape (n, ...), or n arrays, uint8
    shares : dict
        Expected share of each split; they sum to one.
    seed : int
        Another seed, another split.

    Returns
    -------
    ndarray of shape (n,), int64
        Values of :class:`Split`.

    Raises
    ------
    ValueError
        The shares do not sum to one.
    """
    if abs(sum(shares.values()) - 1) > 1e-9 or min(shares.values()) < 0:
        raise ValueError(f"shares must be at least 0 and sum to 1, got {list(shares.values())}")
    places = np.array([place(image, f"split-{seed}") for image in images])
    upper_ends = np.cumsum(list(shares.values()))[:-1]
    order = np.array([int(split) for split in shares], dtype=np.int64)
    return order[np.searchsorted(upper_ends, places, side="right")]
