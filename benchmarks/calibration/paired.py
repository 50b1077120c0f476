"""Paired comparisons: over sets by family, and over the rows of one set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.scoring import Rows
from trueprob.bootstrap import resampled_sums
from trueprob.scores.binned import N_BINS, bin_index

N_RESAMPLES = 10_000
LEVEL = 0.95

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """Mean over sets of (other − ours), its standard error and interval."""

    mean: float
    standard_error: float
    low: float
    high: float
    n_sets: int


def by_family(differences: Array, families: list[str], *, seed: int = 0) -> Difference:
    """Bootstrap whole families: networks on one data set share its test half and its noise."""
    names, index = np.unique(families, return_inverse=True)
    sums = np.bincount(index, differences, minlength=names.size)
    sizes = np.bincount(index, minlength=names.size)
    draws = np.random.default_rng(seed).integers(0, names.size, (N_RESAMPLES, names.size))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(
        float(differences.mean()), float(means.std()), float(low), float(high), differences.size
    )


def one_sided_p(difference: float, resampled: Array) -> float:
    """p-value of "not above zero": a normal tail with the bootstrap's standard error.

    A share of 2 000 resamples cannot be below 1/2 000, which Holm's first step asks for.
    """
    spread = float(resampled.std())
    if spread == 0.0:
        return 0.0 if difference > 0.0 else 1.0
    return 0.5 * math.erfc(difference / spread / math.sqrt(2.0))


def worse_than(ours: Rows, other: Rows, *, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Difference (ours − other) and p-value that it is above zero, on the rows of one set.

    Returns
    -------
    dict
        `nll` in nats, `debiased_ece` as the root of the squared error without its sampling part
        (Kumar et al. 2019, arXiv:1909.10155), negative squares kept by sign.
    """
    columns = np.concatenate(
        [ours.nll[:, None], other.nll[:, None], _bin_columns(ours), _bin_columns(other)], axis=1
    )
    drawn = resampled_sums(columns, np.arange(columns.shape[0]), seed=seed)
    observed = columns.sum(axis=0, keepdims=True)
    answer = {}
    for name, statistic in (("nll", _nll_difference), ("debiased_ece", _ece_difference)):
        value = float(statistic(observed)[0])
        answer[name] = (value, one_sided_p(value, statistic(drawn)))
    return answer


def _bin_columns(rows: Rows) -> Array:
    """Per row and bin: 1, confidence, correct; shape (n, 45)."""
    inside = np.zeros((rows.confidence.size, N_BINS))
    inside[np.arange(rows.confidence.size), bin_index(rows.confidence)] = 1.0
    confidence = inside * rows.confidence[:, None]
    return np.concatenate([inside, confidence, inside * rows.correct[:, None]], axis=1)


def _nll_difference(sums: Array) -> Array:
    n = sums[:, 2 : 2 + N_BINS].sum(axis=1)
    difference: Array = (sums[:, 0] - sums[:, 1]) / n
    return difference


def _ece_difference(sums: Array) -> Array:
    return _debiased(sums[:, 2 : 2 + 3 * N_BINS]) - _debiased(sums[:, 2 + 3 * N_BINS :])


def _debiased(sums: Array) -> Array:
    count, confidence, correct = np.split(sums, 3, axis=1)
    safe = np.maximum(count, 1.0)
    accuracy = correct / safe
    error = np.square((confidence - correct) / safe)
    error -= accuracy * (1.0 - accuracy) / np.maximum(count - 1.0, 1.0)
    square = (count * error).sum(axis=1) / count.sum(axis=1)
    return np.sign(square) * np.sqrt(np.abs(square))


def holm(p_values: list[float]) -> list[float]:
    """Adjusted p-values, Holm's step-down."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, (len(p_values) - rank) * p_values[index])
        adjusted[index] = min(running, 1.0)
    return [float(value) for value in adjusted]
