"""Loads labelled images by name or by path: uint8, NHWC, split by a digest of each row.

:data:`DATA` has the sets that need no file, :data:`READERS` the kinds of file for ``KIND:PATH``.
:mod:`trueprob_trainer.data.recipe` adds what a recipe does to the train split.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trueprob_trainer.data.cifar import read_cifar10, read_cifar100
from trueprob_trainer.data.images import LabelledImages
from trueprob_trainer.data.parquet import read_parquet
from trueprob_trainer.data.readers import read_folder, read_idx, read_npz
from trueprob_trainer.data.scikit_digits import digits, noisy_digits
from trueprob_trainer.data.splits import Split, assign
from trueprob_trainer.data.stored import StoredRows
from trueprob_trainer.errors import BadInput


class Reader(Protocol):
    """Reads a file or a folder."""

    def __call__(self, path: Path, *, image_size: int = 0) -> StoredRows:
        """Read all rows; ``image_size`` is a side in pixels, 0 keeps the size of the images."""


DATA: dict[str, Callable[..., LabelledImages]] = {"digits": digits, "noisy-digits": noisy_digits}

READERS: dict[str, Reader] = {
    "npz": read_npz,
    "cifar10": read_cifar10,
    "cifar100": read_cifar100,
    "folder": read_folder,
    "idx": read_idx,
    "parquet": read_parquet,
}


def load(
    name: str,
    *,
    calibration_share: float = 0.0,
    test_share: float = 0.0,
    image_size: int = 0,
    seed: int = 0,
) -> LabelledImages:
    """Load a data set by name or as ``KIND:PATH``; a share or size of 0 means its default."""
    if name in DATA:
        for option, value in (
            ("calibration_share", calibration_share),
            ("test_share", test_share),
            ("image_size", image_size),
        ):
            if value:
                raise BadInput(f"{option} must be 0 for {name}, got {value}")
        return DATA[name](seed)
    kind, separator, path = name.partition(":")
    if not separator or kind not in READERS:
        raise BadInput(
            f"data must be one of {', '.join(DATA)}, or KIND:PATH with a kind of "
            f"{', '.join(READERS)}, got {name}"
        )
    if not Path(path).exists():
        raise BadInput(f"data {path} does not exist")
    stored = READERS[kind](Path(path), image_size=image_size)
    return stored.split(calibration_share=calibration_share, test_share=test_share, seed=seed)


__all__ = ["DATA", "READERS", "LabelledImages", "Reader", "Split", "assign", "load"]
