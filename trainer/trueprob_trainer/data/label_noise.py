"""Wrong labels at a stated rate, in the train split only.

*Symmetric*: with probability ``rate`` a label becomes one of the *other* classes, all alike.
*Asymmetric*: it becomes the class that it is easily taken for (Patrini et al., arXiv:1609.03683,
section 5); for classes without a known neighbour, the next one. Which rows, and to what, follows
from a digest of the image: the rows that are wrong at 20 % are wrong at 40 %, too, in the same way.
"""

import dataclasses

import numpy as np

from trueprob_trainer.data.images import LabelledImages
from trueprob_trainer.data.splits import Split, place
from trueprob_trainer.errors import BadInput

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
