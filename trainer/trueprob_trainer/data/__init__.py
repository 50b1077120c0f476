"""Labelled images by name or by path, in one shape: uint8 NHWC, split by the digest of the bytes.

:data:`DATA` are the sets that need no file, :data:`READERS` the kinds of file that ``--data
KIND:PATH`` takes. :func:`prepare` adds what a recipe does to the train split.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from trueprob_trainer.data.cifar import read_cifar10, read_cifar100
from trueprob_trainer.data.folders import read_folder
from trueprob_trainer.data.idx import read_idx
from trueprob_trainer.data.images import LabelledImages
from trueprob_trainer.data.parquet import read_parquet
from trueprob_trainer.data.readers import read_npz
from trueprob_trainer.data.scikit_digits import digits, noisy_digits
from trueprob_trainer.data.splits import Split, assign
from trueprob_trainer.data.stored import Stored
from trueprob_trainer.errors import BadInput


class Reader(Protocol):
    """Reads a file or a folder."""

    def __call__(self, path: Path, *, image_size: int = 0) -> Stored:
        """Rows of that place; ``image_size`` 0 keeps the pictures' own."""


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
    """Load a data set.

    Parameters
    ----------
    name : str
        A key of :data:`DATA`, or ``KIND:PATH`` with a key of :data:`READERS`.
    calibration_share, test_share : float
        Expected shares of the rows; 0 for those of the data set.
    image_size : int
        Height and width that pictures are resized to; 0 for their own.
    seed : int
        Another seed, another split.

    Returns
    -------
    LabelledImages

    Raises
    ------
    BadInput
        There is none of that name, or the file is not what its kind says.
    """
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
