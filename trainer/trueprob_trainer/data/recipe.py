"""The data of a run: loaded, split, and the train split made smaller, imbalanced or mislabelled.

Calibration and test rows are never touched.

Wrong labels at a stated rate, in the train split only.

*Symmetric*: with probability ``rate`` a label becomes one of the *other* classes, all alike.
*Asymmetric*: it becomes the class that it is easily taken for (Patrini et al., arXiv:1609.03683,
section 5); for classes without a known neighbour, the next one. Which rows, and to what, follows
from a digest of the image: the rows that are wrong at 20 % are wrong at 40 %, too, in the same way.

An exponentially imbalanced train split (Cui et al., arXiv:1901.05555, section 5.1).

Class c of k keeps n·factor^(−c/(k−1)) rows, n being the size of the smallest class before: class 0
keeps them all, the last class keeps 1/factor of them. Rows left out are in no split.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import load
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


KINDS = ("symmetric", "asymmetric")

TAKEN_FOR = {  # the paper's pairs for CIFAR-10 and MNIST
    "truck": "automobile",
    "bird": "airplane",
    "deer": "horse",
    "cat": "dog",
    "dog": "cat",
    "2": "7",
    "3": "8",
    "5": "6",
    "6": "5",
    "7": "1",
}


def with_label_noise(
    data: LabelledImages, rate: float, *, kind: str = "symmetric", seed: int = 0
) -> LabelledImages:
    """The data with wrong labels among its train rows.

    Returns: calibration and test rows keep their labels. Raises `BadInput`: no such kind or rate.
    """
    if kind not in KINDS:
        raise BadInput(f"label_noise_kind must be one of {', '.join(KINDS)}, got {kind}")
    if not 0 <= rate < 1:
        raise BadInput(f"label_noise must be at least 0 and below 1, got {rate}")
    if rate == 0:
        return data
    k = len(data.class_names)
    neighbours = asymmetric_neighbours(data.class_names)
    labels = data.labels.copy()
    for row in np.flatnonzero(data.split == Split.TRAIN):
        if place(data.images[row], f"label-noise-{seed}") < rate:
            if kind == "asymmetric":
                labels[row] = neighbours[labels[row]]
            else:
                other = int(place(data.images[row], f"wrong-label-{seed}") * (k - 1))
                labels[row] = (labels[row] + 1 + other) % k
    n_wrong = int(np.sum(labels != data.labels))
    note = (
        f"Of the train rows {n_wrong} were given a wrong label on purpose ({kind} noise at rate "
        f"{rate:g}, seed {seed}); calibration and test labels are as they were."
    )
    return dataclasses.replace(data, labels=labels, notes=(*data.notes, note))


def asymmetric_neighbours(class_names: tuple[str, ...]) -> tuple[int, ...]:
    """The class that each is taken for; its own index where it is taken for none."""
    places = {name: index for index, name in enumerate(class_names)}
    known = [places.get(TAKEN_FOR.get(name, ""), -1) for name in class_names]
    if max(known) < 0:
        return tuple((index + 1) % len(class_names) for index in range(len(class_names)))
    return tuple(index if other < 0 else other for index, other in enumerate(known))


def prepare(config: TrainConfig) -> LabelledImages:
    """Data as the recipe asks for it.

    Raises `BadInput`: there is no such data, or what the recipe asks for cannot be done with it.
    """
    data = load(
        config.data,
        calibration_share=config.calibration_share,
        test_share=config.test_share,
        image_size=config.image_size,
        seed=config.split_seed,
    )
    data = with_long_tail(data, config.long_tail, seed=config.split_seed)
    data = with_train_rows(data, config.train_rows, seed=config.split_seed)
    return with_label_noise(
        data, config.label_noise, kind=config.label_noise_kind, seed=config.split_seed
    )


def with_train_rows(data: LabelledImages, n_rows: int, *, seed: int = 0) -> LabelledImages:
    """The data with that many rows in its train split.

    Raises `BadInput`: there are not so many.
    """
    rows = np.flatnonzero(data.split == Split.TRAIN)
    if n_rows > len(rows):
        raise BadInput(f"train_rows must be at most {len(rows)}, got {n_rows}")
    if n_rows in (0, len(rows)):
        return data
    order = np.argsort([place(data.images[row], f"train-rows-{seed}") for row in rows])
    split = data.split.copy()
    split[rows[order[n_rows:]]] = Split.UNUSED
    note = f"Only {n_rows} of {len(rows)} train rows are used (chosen by digest, seed {seed})."
    return dataclasses.replace(data, split=split, notes=(*data.notes, note))
