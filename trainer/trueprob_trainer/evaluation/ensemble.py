"""A deep ensemble (Lakshminarayanan, Pritzel, Blundell: arXiv:1612.01474) of finished runs.

Its probabilities are the mean of its members'; its logits are their logarithm, so that calibrators
and scores treat it as one network.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trueprob.arrays.logit_functions import Logits, softmax
from trueprob_trainer.data import LabelledImages
from trueprob_trainer.errors import BadInput
from trueprob_trainer.networks.classifier import predict_logits
from trueprob_trainer.training.finished_run import load_training
from trueprob_trainer.training.run_folder import RunFolder

SMALLEST = 1e-12  # probabilities are floored before the logarithm, as everywhere in trueprob


def ensemble_logits(models: Sequence[nn.Module], images: NDArray[np.uint8]) -> Logits:
    """Logarithm of the mean probabilities."""
    mean = np.mean([softmax(predict_logits(model, images)) for model in models], axis=0)
    logits: Logits = np.log(np.maximum(mean, SMALLEST)).astype(np.float32)
    return logits


def members(runs: Sequence[Path], data: LabelledImages) -> list[nn.Module]:
    """Networks of further runs that were trained on the same rows.

    Raises `BadInput`: a run's calibration or test rows may have trained another member.
    """
    models: list[nn.Module] = []
    for path in runs:
        training = load_training(RunFolder(path))
        other = training.data
        if other.images.shape != data.images.shape or not np.array_equal(other.split, data.split):
            raise BadInput(f"ensemble {path} was trained on another split of other data")
        models.append(training.model)
    return models
