"""Scores of rows of probabilities, one by one and all at once.

All take probabilities of shape (n, k) and labels of shape (n,), compute in float64 and return
fractions (0.0435, not 4.35) or nats. With weights, a mean is Σw·x / Σw. For confidences c without
the rows, and whether each was right, pass `np.column_stack([1 - c, c])`, the outcomes as labels,
and `np.ones(n, int)` as the prediction.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.array_types import number_array
from trueprob.arrays.labels import Labels, as_labels
from trueprob.arrays.weights_and_groups import as_weights
from trueprob.errors import InvalidInput
from trueprob.scores.binned import FIRST_BIN_BELOW, N_BINS, BinnedCalibration, bin_index
from trueprob.scores.confidence import adaptive_ece, auroc

__all__ = [
    "Scores",
    "adaptive_calibration_error",
    "brier_score",
    "checked_probabilities",
    "classwise_calibration_error",
    "confidence_auroc",
    "confidence_of_rows",
    "expected_calibration_error",
    "maximum_calibration_error",
    "mean_entropy",
    "negative_log_likelihood",
    "row_brier",
    "row_entropy",
    "row_nll",
    "score",
]

# Smaller probabilities count as this, so that a float32 underflow costs 87 nats and not ∞.
SMALLEST: Final = float(np.finfo(np.float32).tiny)
CHUNK: Final = 512  # rows at a time: their logarithms take a few MB

Array = NDArray[np.float64]
Weights = NDArray[np.float64] | None


@dataclass(frozen=True)
class Scores:
    """The usual scores of one predictor on one set.

    Attributes
    ----------
    n : int
        Rows.
    accuracy, ece, ece_floor, adaptive_ece, classwise_ece, mce, brier, auroc : float
        Fractions. `ece_floor` is the ECE that perfect calibration would show. `auroc` says how
        well confidence tells right from wrong predictions; NaN when all are right or all wrong.
    nll : float
        Nats.
    """

    n: int
    accuracy: float
    ece: float
    ece_floor: float
    adaptive_ece: float
    classwise_ece: float
    mce: float
    nll: float
    brier: float
    auroc: float

    def to_dict(self) -> dict[str, Any]:
        """The scores as JSON values; undefined scores are null."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def score(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    prediction: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> Scores:
    """Compute the usual scores of probabilities.

    Parameters
    ----------
    probabilities : array_like of shape (n, k)
    labels : array_like of shape (n,)
        Class indices.
    prediction : array_like of shape (n,), optional
        The predicted classes; default the argmax of the probabilities. Better pass those of the
        calibrator: rounding can make two probabilities equal although their logits differ.
    weights : array_like of shape (n,), optional
        Non-negative.

    Returns
    -------
    Scores

    Raises
    ------
    InvalidInput
        Shapes do not match, or a label is out of range.
    """
    p, y = checked_probabilities(probabilities, labels)
    n = p.shape[0]
    w = _weights(weights, n)
    confidence, correct = confidence_of_rows(p, y, prediction)
    binned = BinnedCalibration.of(confidence, correct, w)
    return Scores(
        n=n,
        accuracy=binned.accuracy(),
        ece=binned.ece(),
        ece_floor=binned.ece_floor(),
        adaptive_ece=adaptive_ece(confidence, correct, weights=w),
        classwise_ece=_classwise(p, y, w),
        mce=binned.mce(),
        nll=_mean(row_nll(p, y), w),
        brier=_mean(row_brier(p, y), w),
        auroc=auroc(confidence, correct, weights=w),
    )


def expected_calibration_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    prediction: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> float:
    """Expected calibration error (ECE) of the confidence, over 15 right-closed bins.

    Parameters
    ----------
    probabilities : array_like of shape (n, k)
    labels : array_like of shape (n,)
        Class indices.
    prediction : array_like of shape (n,), optional
        The predicted classes; default the argmax of the probabilities.
    weights : array_like of shape (n,), optional
        Non-negative.

    Returns
    -------
    float
        A fraction.

    Raises
    ------
    InvalidInput
        Shapes do not match, or a label or a confidence is out of range.

    References
    ----------
    Naeini, Cooper, Hauskrecht 2015, Obtaining well calibrated probabilities using Bayesian
    binning, AAAI, equation 3.

    Examples
    --------
    >>> round(expected_calibration_error([[0.8, 0.2], [0.6, 0.4]], [0, 1]), 3)
    0.4
    """
    confidence, correct, w = _top_label(probabilities, labels, prediction, weights)
    return BinnedCalibration.of(confidence, correct, w).ece()


def maximum_calibration_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    prediction: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> float:
    """Largest calibration error of the 15 bins, a fraction; noisy, as a bin may hold one row.

    Arguments and errors as in `expected_calibration_error`.
    """
    confidence, correct, w = _top_label(probabilities, labels, prediction, weights)
    return BinnedCalibration.of(confidence, correct, w).mce()


def adaptive_calibration_error(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    prediction: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> float:
    """ECE over 15 bins of equal mass, a fraction; equal confidences always share a bin.

    Arguments and errors as in `expected_calibration_error`.
    """
    confidence, correct, w = _top_label(probabilities, labels, prediction, weights)
    return adaptive_ece(confidence, correct, weights=w)


def confidence_auroc(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    prediction: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> float:
    """Probability that a right prediction is more confident than a wrong one; ties count ½.

    NaN when all predictions are right or all are wrong. Arguments and errors as in
    `expected_calibration_error`.
    """
    confidence, correct, w = _top_label(probabilities, labels, prediction, weights)
    return auroc(confidence, correct, weights=w)


def negative_log_likelihood(
    probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Negative log likelihood (NLL): the mean of −log p[label].

    Parameters
    ----------
    probabilities : array_like of shape (n, k)
    labels : array_like of shape (n,)
        Class indices.
    weights : array_like of shape (n,), optional
        Non-negative.

    Returns
    -------
    float
        Nats; p counts as at least 1.2e-38, the smallest normal float32.

    Raises
    ------
    InvalidInput
        Shapes do not match, or a label is out of range.
    """
    p, y = checked_probabilities(probabilities, labels)
    return _mean(row_nll(p, y), None if weights is None else as_weights(weights, n_rows=p.shape[0]))


def brier_score(
    probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Brier score, between 0 and 2: the mean of Σ_c (p_c − 1[c = label])².

    Arguments and errors as in `negative_log_likelihood`.
    """
    p, y = checked_probabilities(probabilities, labels)
    return _mean(
        row_brier(p, y), None if weights is None else as_weights(weights, n_rows=p.shape[0])
    )


def classwise_calibration_error(
    probabilities: ArrayLike, labels: ArrayLike, *, weights: ArrayLike | None = None
) -> float:
    """Classwise ECE, a fraction: the mean over classes c of the 15-bin ECE of p_c for "is c".

    Arguments and errors as in `negative_log_likelihood`.
    """
    p, y = checked_probabilities(probabilities, labels)
    return _classwise(p, y, _weights(weights, p.shape[0]))


def mean_entropy(probabilities: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Mean entropy of the rows, nats; arguments as in `negative_log_likelihood`."""
    p = _as_numbers(probabilities)
    if p.ndim != 2:
        raise InvalidInput(
            f"probabilities must have shape (n, k), got {p.shape}", field="probabilities"
        )
    return _mean(row_entropy(p), _weights(weights, p.shape[0]))


def row_entropy(p: NDArray[Any]) -> Array:
    """Entropy of each row, nats, shape (n,)."""
    result = np.empty(p.shape[0])
    for start in range(0, p.shape[0], CHUNK):
        part = p[start : start + CHUNK]
        logarithms = np.log(np.maximum(part, SMALLEST))
        result[start : start + CHUNK] = -np.einsum("ij,ij->i", part, logarithms, dtype=np.float64)
    return result


def row_nll(p: NDArray[Any], y: Labels) -> Array:
    """−log p[label] of each row, nats, shape (n,)."""
    chosen = p[np.arange(y.shape[0]), y].astype(np.float64)
    return np.asarray(-np.log(np.clip(chosen, SMALLEST, 1.0)))


def row_brier(p: NDArray[Any], y: Labels) -> Array:
    """Brier score of each row, shape (n,)."""
    chosen = p[np.arange(y.shape[0]), y].astype(np.float64)
    return np.asarray(np.einsum("ij,ij->i", p, p, dtype=np.float64) + 1.0 - 2.0 * chosen)


def _classwise(p: NDArray[Any], y: Labels, weights: Weights) -> float:
    n, k = p.shape
    w = np.ones(n) if weights is None else weights
    # Σ_i w·p per class, then per bin except the first. A row has at most 14 entries in those
    # bins, and the first bin gets the remainder. This is fast for 1 000 classes.
    signed = np.zeros((k, N_BINS))
    total = np.einsum("i,ij->j", w, p, dtype=np.float64)
    rows, classes = np.nonzero(p > FIRST_BIN_BELOW)
    values = p[rows, classes].astype(np.float64)
    cell = classes * N_BINS + bin_index(values)
    signed += np.bincount(cell, weights=w[rows] * values, minlength=k * N_BINS).reshape(k, N_BINS)
    signed[:, 0] += total - signed.sum(axis=1)
    hit = y * N_BINS + bin_index(p[np.arange(n), y])
    signed -= np.bincount(hit, weights=w, minlength=k * N_BINS).reshape(k, N_BINS)
    return float(np.abs(signed).sum() / w.sum() / k)


def _mean(values: Array, weights: Weights) -> float:
    return float(values.mean() if weights is None else weights @ values / weights.sum())


def checked_probabilities(
    probabilities: ArrayLike, labels: ArrayLike
) -> tuple[NDArray[Any], Labels]:
    """Probabilities and labels as arrays of matching shapes; InvalidInput otherwise."""
    p = _as_numbers(probabilities)
    if p.ndim != 2 or p.shape[0] < 1 or p.shape[1] < 2:
        raise InvalidInput(
            f"probabilities must have shape (n, k), got {p.shape}: one row for each label, one "
            "column for each class",
            field="probabilities",
        )
    if p.dtype.kind != "f":
        raise InvalidInput(f"probabilities must be floats, got {p.dtype}", field="probabilities")
    return p, as_labels(labels, n_classes=p.shape[1], n_rows=p.shape[0])


def _as_numbers(probabilities: ArrayLike) -> NDArray[Any]:
    if type(probabilities) is np.ndarray:
        return probabilities
    return number_array(probabilities, "probabilities")


def confidence_of_rows(
    p: NDArray[Any], y: Labels, prediction: ArrayLike | None = None
) -> tuple[Array, NDArray[np.bool_]]:
    """Confidence of each prediction (default the argmax), and whether it is right, shape (n,)."""
    n, k = p.shape
    top = (
        p.argmax(axis=1)
        if prediction is None
        else as_labels(prediction, n_classes=k, n_rows=n, name="prediction")
    )
    return np.minimum(p[np.arange(n), top].astype(np.float64), 1.0), top == y


def _top_label(
    probabilities: ArrayLike,
    labels: ArrayLike,
    prediction: ArrayLike | None,
    weights: ArrayLike | None,
) -> tuple[Array, NDArray[np.bool_], Weights]:
    p, y = checked_probabilities(probabilities, labels)
    return *confidence_of_rows(p, y, prediction), _weights(weights, p.shape[0])


def _weights(values: ArrayLike | None, n: int) -> Weights:
    return None if values is None else as_weights(values, n_rows=n)
