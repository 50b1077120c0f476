"""Prepares the data of a run: loads them and changes the train split as the recipe says.

The train split can get fewer rows, an imbalance or wrong labels. Calibration and test rows are
never changed. Digests of the images choose the rows, so a choice is the same in every run.

- Long tail (Cui et al., arXiv:1901.05555, section 5.1): class c of k keeps n·factor^(−c/(k−1))
  rows, where n is the size of the smallest class before. Rows left out are in no split.
- Label noise: a label becomes wrong with probability ``rate``. *Symmetric* noise takes any other
  class with equal probability. *Asymmetric* noise takes the class that is easily confused with it
  (Patrini et al., arXiv:1609.03683, section 5), or the next class if no pair is listed. Rows that
  are wrong at 20 % are wrong in the same way at 40 %.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.config import LABEL_NOISE_KINDS, TrainConfig
from trueprob_trainer.data import load
from trueprob_trainer.data.images import LabelledImages
from trueprob_trainer.data.splits import Split, uniform_number
from trueprob_trainer.errors import BadInput

CONFUSED_WITH = {  # the paper's pairs for CIFAR-10 and MNIST
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


def prepare(config: TrainConfig) -> LabelledImages:
    """Load the data of a recipe and change its train split."""
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
    """Keep ``n_rows`` rows of the train split; 0 keeps all."""
    rows = np.flatnonzero(data.split == Split.TRAIN)
    if n_rows > len(rows):
        raise BadInput(f"train_rows must be at most {len(rows)}, got {n_rows}")
    if n_rows in (0, len(rows)):
        return data
    order = np.argsort([uniform_number(data.images[row], f"train-rows-{seed}") for row in rows])
    split = data.split.copy()
    split[rows[order[n_rows:]]] = Split.UNUSED
    note = f"Only {n_rows} of {len(rows)} train rows are used (chosen by digest, seed {seed})."
    return dataclasses.replace(data, split=split, notes=(*data.notes, note))


def with_long_tail(data: LabelledImages, factor: float, *, seed: int = 0) -> LabelledImages:
    """Give the train split an exponential tail: fewer rows in later classes."""
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
    order = np.argsort([uniform_number(data.images[row], f"long-tail-{seed}") for row in rows])
    return rows[order[n:]]


def with_label_noise(
    data: LabelledImages, rate: float, *, kind: str = "symmetric", seed: int = 0
) -> LabelledImages:
    """Make a fraction of the train labels wrong."""
    if kind not in LABEL_NOISE_KINDS:
        raise BadInput(
            f"label_noise_kind must be one of {', '.join(LABEL_NOISE_KINDS)}, got {kind}"
        )
    if not 0 <= rate < 1:
        raise BadInput(f"label_noise must be at least 0 and below 1, got {rate}")
    if rate == 0:
        return data
    k = len(data.class_names)
    neighbours = asymmetric_neighbours(data.class_names)
    labels = data.labels.copy()
    for row in np.flatnonzero(data.split == Split.TRAIN):
        if uniform_number(data.images[row], f"label-noise-{seed}") < rate:
            if kind == "asymmetric":
                labels[row] = neighbours[labels[row]]
            else:
                other = int(uniform_number(data.images[row], f"wrong-label-{seed}") * (k - 1))
                labels[row] = (labels[row] + 1 + other) % k
    n_wrong = int(np.sum(labels != data.labels))
    note = (
        f"Of the train rows {n_wrong} were given a wrong label on purpose ({kind} noise at rate "
        f"{rate:g}, seed {seed}); calibration and test labels are as they were."
    )
    return dataclasses.replace(data, labels=labels, notes=(*data.notes, note))


def asymmetric_neighbours(class_names: tuple[str, ...]) -> tuple[int, ...]:
    """The class that replaces each class; its own index if no pair is listed for it."""
    places = {name: index for index, name in enumerate(class_names)}
    pairs = [places.get(CONFUSED_WITH.get(name, ""), -1) for name in class_names]
    if max(pairs) < 0:
        return tuple((index + 1) % len(class_names) for index in range(len(class_names)))
    return tuple(index if other < 0 else other for index, other in enumerate(pairs))
