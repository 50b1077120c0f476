"""Labelled images by name, in one shape: uint8 NHWC, split by the digest of the bytes.

A data set is a function without arguments that returns :class:`LabelledImages`; :data:`DATA` is the
list that ``--data`` takes.
"""

from collections.abc import Callable

from trainer.data.images import LabelledImages
from trainer.data.scikit_digits import digits, noisy_digits
from trainer.data.splits import Split, assign
from trainer.errors import BadInput

DATA: dict[str, Callable[[], LabelledImages]] = {"digits": digits, "noisy-digits": noisy_digits}


def load(name: str) -> LabelledImages:
    """Load the data set of that name.

    Parameters
    ----------
    name : str
        A key of :data:`DATA`.

    Returns
    -------
    LabelledImages

    Raises
    ------
    BadInput
        There is none of that name.
    """
    if name not in DATA:
        raise BadInput(f"data must be one of {', '.join(DATA)}, got {name}")
    return DATA[name]()


__all__ = ["DATA", "LabelledImages", "Split", "assign", "load"]
