"""The data of a run: loaded, split, and the train split made smaller, imbalanced or mislabelled.

Calibration and test rows are never touched.
"""

import dataclasses

import numpy as np

from trueprob_trainer.config import TrainConfig
from trueprob_trainer.data import load
from trueprob_trainer.data.images import LabelledImages
from trueprob_trainer.data.label_noise import with_label_noise
from trueprob_trainer.data.long_tail import with_long_tail
from trueprob_trainer.data.splits import Split, place
from trueprob_trainer.errors import BadInput


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
