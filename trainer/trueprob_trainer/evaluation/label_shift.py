"""Other class frequencies at test time, by weights: no row is drawn or thrown away.

Under label shift P(y) changes and P(x | y) does not, so a row of class y stands for
P′(y)/P(y) rows (Saerens, Latinne, Decaestecker 2002, eq. 2.4).
"""

import numpy as np
from numpy.typing import NDArray

from trueprob_trainer.errors import BadInput


def exponential_weights(
    labels: NDArray[np.int64], n_classes: int, factor: float
) -> NDArray[np.float64]:
    """Weights that make class frequencies fall by a factor from the first class to the last.

    Returns: positive, mean 1. Raises `BadInput`: the factor is not positive.
    """
    if not 0 < factor < float("inf"):
        raise BadInput(f"label shift must be by a positive factor, got {factor}")
    counts = np.bincount(labels, minlength=n_classes)
    wanted = factor ** (-np.arange(n_classes) / max(1, n_classes - 1))
    weights = (wanted / np.maximum(counts, 1))[labels]
    scaled: NDArray[np.float64] = weights / weights.mean()
    return scaled


def thirds_by_frequency(train_labels: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Which classes are frequent, middling and rare in the train split.

    Returns: 0 for the third of the classes with most rows, 1, and 2 for the rarest; ties by index.
    """
    counts = np.bincount(train_labels, minlength=n_classes)
    rank = np.empty(n_classes, dtype=np.int64)
    rank[np.argsort(-counts, kind="stable")] = np.arange(n_classes)
    return np.minimum(3 * rank // n_classes, 2)
