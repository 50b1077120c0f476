"""Scores of one fit on one test half, with and without each of twenty parts of its rows.

The scores without a part give the sampling error of any difference between two methods on the same
rows, of every score alike (delete-a-group jackknife; Kott 2001, Journal of Official Statistics 17):
with d the difference on all rows and d_g without part g,

    se² = (G − 1)/G · Σ_g (d_g − mean_g d_g)²,      d / se ~ Student's t with G − 1 degrees.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.scores.binned import N_BINS, bin_index
from trueprob.scores.confidence import adaptive_ece, auroc
from trueprob.scores.score import row_brier, row_nll
from trueprob.scores.smooth_ece import smooth_ece_at_width, smooth_ece_value

N_PARTS = 20
SCORES = ("nll", "brier", "ece", "adaptive_ece", "smooth_ece", "classwise_ece", "auroc")
LARGER_IS_BETTER = "auroc"

Array = NDArray[np.float64]


def replicates(probabilities: NDArray[np.floating], labels: Labels) -> Array:
    """Every score, on all rows and without each part.

    Parameters
    ----------
    probabilities : ndarray of shape (n, k)
        The prediction is their argmax.
    labels : ndarray of shape (n,)

    Returns
    -------
    ndarray of shape (21, 7)
        Columns as in `SCORES`. `auroc` is that of P(class 1) for two classes, else that of the
        confidence for being right; NaN where all rows are alike. The width of the kernel of the
        smooth ECE is that of all rows.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    n, k = p.shape
    part = np.arange(n) % N_PARTS  # rows come shuffled
    top = p.argmax(axis=1)
    confidence = np.minimum(p[np.arange(n), top], 1.0)
    correct = top == labels
    without = [part != index for index in range(N_PARTS)]
    rows = [slice(None), *without]
    found = np.empty((N_PARTS + 1, len(SCORES)))
    found[:, 0] = _means(row_nll(p, labels), part)
    found[:, 1] = _means(row_brier(p, labels), part)
    found[:, 2] = _binned(bin_index(confidence), confidence - correct, part)
    found[:, 3] = [adaptive_ece(confidence[r], correct[r]) for r in rows]
    width = smooth_ece_value(confidence, correct)
    found[0, 4] = width
    found[1:, 4] = [smooth_ece_at_width(confidence[r], correct[r], width) for r in without]
    residual = np.minimum(p, 1.0)
    cell = bin_index(residual.ravel()) + N_BINS * np.tile(np.arange(k), n)
    residual[np.arange(n), labels] -= 1.0
    found[:, 5] = _binned(cell, residual.ravel(), np.repeat(part, k))
    score, positive = (p[:, 1], labels == 1) if k == 2 else (confidence, correct)
    score = np.clip(score, 0.0, 1.0)
    found[:, 6] = [auroc(score[r], positive[r]) for r in rows]
    return found


def worse_by(ours: Array, theirs: Array) -> tuple[Array, Array]:
    """By how much ours is worse in each score, and the standard error of that.

    Parameters
    ----------
    ours, theirs : ndarray of shape (21, 7)
        `replicates` of two methods on the same rows.
    """
    difference = ours - theirs
    difference[:, SCORES.index(LARGER_IS_BETTER)] *= -1.0
    each = difference[1:]
    spread = np.square(each - each.mean(axis=0)).sum(axis=0)
    return difference[0], np.sqrt((N_PARTS - 1) / N_PARTS * spread)


def _means(values: Array, part: NDArray[np.int64]) -> Array:
    sums = np.bincount(part, values, minlength=N_PARTS)
    counts = np.bincount(part, minlength=N_PARTS)
    total, n = sums.sum(), counts.sum()
    return np.concatenate([[total / n], (total - sums) / (n - counts)])


def _binned(cell: NDArray[np.int64], difference: Array, part: NDArray[np.int64]) -> Array:
    """Σ over cells of |Σ difference| / n, for the entries of all parts and without each."""
    n_cells = int(cell.max()) + 1
    sums = np.bincount(part * n_cells + cell, difference, minlength=N_PARTS * n_cells)
    sums = sums.reshape(N_PARTS, n_cells)
    counts = np.bincount(part, minlength=N_PARTS)
    total, n = sums.sum(axis=0), counts.sum()
    without = np.abs(total - sums).sum(axis=1) / (n - counts)
    return np.concatenate([[np.abs(total).sum() / n], without])
