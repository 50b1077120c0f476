"""An exponentially imbalanced train split (Cui et al., arXiv:1901.05555, section 5.1).

Class c of k keeps n·factor^(−c/(k−1)) rows, n being the size of the smallest class before: class 0
keeps them all, the last class keeps 1/factor of them. Rows left out are in no split.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.data.images import LabelledImages
from trueprob_trainer.data.splits import Split, place
from trueprob_trainer.errors import BadInput


def with_long_tail(data: LabelledImages, factor: float, *, seed: int = 0) -> LabelledImages:
    """The data with fewer train rows in later classes.

    Returns: calibration and test splits are as balanced as they were. Raises `BadInput`: the
    factor is below 1, or would leave a class without rows.
    """
    if not 1 <= factor < float("inf"):
        raise BadInput(f"long_tail must be finite and at least 1, got {factor}")
    if factor == 1:
        return data
    k = len(data.class_names)
    rows = [np.flatnonzero((data.split == Split.TRAIN) & (data.labels == c)) for c in range(k)]
    largest = min(len(each) for each in rows)
    kept = [round(largest * factor ** (-c / (k - 1))) for c in range(k)]
    if min(kept) < 1:
        raise BadInput(f"long_tail must leave a row of each class, {factor:g} leaves none of some")
    split = data.split.copy()
    for each, n in zip(rows, kept, strict=True):
        split[_left_out(data, each, n, seed)] = Split.UNUSED
    note = (
        f"The train split has an exponential tail on purpose, factor {factor:g}: {kept[0]} rows of "
        f"{data.class_names[0]} down to {kept[-1]} of {data.class_names[-1]} (seed {seed})."
    )
    return dataclasses.replace(data, split=split, notes=(*data.notes, note))


def _left_out(data: LabelledImages, rows: NDArray[np.intp], n: int, seed: int) -> NDArray[np.intp]:
    order = np.argsort([place(data.images[row], f"long-tail-{seed}") for row in rows])
    return rows[order[n:]]
