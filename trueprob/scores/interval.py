"""Bootstrap intervals of a score, and of the difference between two predictors.

Rows are resampled with replacement; where rows are not independent, their groups are. Scores that
are functions of sums over rows are resampled 2 000 times by one matrix product
(`resampled_sums`). The others (`RECOMPUTED`) are computed 400 times with the resampled counts as
weights.

The interval is the observed value plus the quantiles of (resampled − mean of the resampled).
Resampling adds noise, and noise raises any ECE, so the plain percentile interval of an ECE often
does not contain it. The centred interval says how far the *reported number* would move with other
rows. It does not say that the true calibration error lies inside: compare with the noise floor
for that, or use `debiased_ece`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.array_types import plain_array
from trueprob.arrays.labels import Labels
from trueprob.arrays.weights_and_groups import Groups, as_groups, as_weights
from trueprob.errors import InvalidInput
from trueprob.scores.binned import N_BINS
from trueprob.scores.confidence import adaptive_ece, aurc, auroc
from trueprob.scores.debiased_ece import N_SUMS, bin_columns, debiased_ece_of_sums
from trueprob.scores.score import (
    checked_probabilities,
    confidence_of_rows,
    row_brier,
    row_entropy,
    row_nll,
)
from trueprob.scores.smooth_ece import smooth_ece_value

__all__ = [
    "INTERVAL_SCORES",
    "MAX_UNITS",
    "N_RESAMPLES",
    "Interval",
    "bootstrap_interval",
    "resampled_sums",
    "unit_of_rows",
]

N_RESAMPLES: Final = 2_000  # the level of a 90 % bound then varies by 0.7 points, of 95 % by 0.5
MAX_UNITS: Final = 2_000  # more are merged; the estimated spread is still within 1.6 %
CHUNK: Final = 250  # resamples counted at a time: 4 MB of counts
N_RECOMPUTED: Final = 400  # the level of a 90 % bound then varies by about 1.5 points

Array = NDArray[np.float64]

ROW_MEANS: Final[dict[str, Callable[[NDArray[Any], Labels], Array]]] = {
    "accuracy": lambda p, y: (p.argmax(axis=1) == y).astype(np.float64),
    "nll": row_nll,
    "brier": row_brier,
    "mean_entropy": lambda p, _: row_entropy(p),
}
OF_SUMS: Final[dict[str, Callable[[Array], Array]]] = {
    "ece": lambda sums: _plain_ece(sums),
    "debiased_ece": debiased_ece_of_sums,
}
RECOMPUTED: Final[dict[str, Callable[..., float]]] = {
    "adaptive_ece": adaptive_ece,
    "smooth_ece": smooth_ece_value,
    "auroc": auroc,
    "aurc": aurc,
}
INTERVAL_SCORES: Final = (*ROW_MEANS, *OF_SUMS, *RECOMPUTED)


@dataclass(frozen=True)
class Interval:
    """A score with its bootstrap interval.

    Attributes
    ----------
    value : float
        The score on the given rows; with `other`, the difference.
    low, high : float
        Bounds; a share `level` of the resamples lies between them.
    level : float
    n : int
        Rows.
    n_units : int
        Number of resampled units: rows, or groups.
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    n_units: int


def bootstrap_interval(
    score: str,
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    other: ArrayLike | None = None,
    level: float = 0.9,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> Interval:
    """Bootstrap interval of a score, or of the difference of two predictors' scores.

    Parameters
    ----------
    score : str
        One of accuracy, nll, brier, mean_entropy, ece, debiased_ece, adaptive_ece, smooth_ece,
        auroc, aurc.
    probabilities : array_like of shape (n, k)
    labels : array_like of shape (n,)
        Class indices.
    other : array_like of shape (n, k), optional
        Probabilities of another predictor on the same rows: the interval is then of
        score(probabilities) − score(other), both on the same resampled rows.
    level : float
        In (0, 1).
    weights : array_like of shape (n,), optional
        Non-negative.
    groups : array_like of shape (n,), optional
        Rows with the same key are drawn together.
    seed : int
        The same call gives the same interval.

    Returns
    -------
    Interval

    Raises
    ------
    InvalidInput
        Unknown score, a level outside (0, 1), or shapes that do not match.
    """
    if score not in INTERVAL_SCORES:
        raise InvalidInput(
            f"score must be one of {', '.join(INTERVAL_SCORES)}, got {str(score)[:40]!r}",
            field="score",
        )
    if not 0.0 < level < 1.0:
        raise InvalidInput(f"level must lie between 0 and 1, got {level}", field="level")
    p, y = checked_probabilities(probabilities, labels)
    n = p.shape[0]
    predictors = [p]
    if other is not None:
        second = plain_array(other, "other")
        if second.shape != p.shape:
            raise InvalidInput(
                f"other must have shape {p.shape}, got {second.shape}", field="other"
            )
        predictors.append(checked_probabilities(second, y)[0])
    w = np.ones(n) if weights is None else as_weights(weights, n_rows=n)
    unit = unit_of_rows(n, None if groups is None else as_groups(groups, n_rows=n))
    resample = _by_weights if score in RECOMPUTED else _by_sums
    observed, drawn = resample(score, predictors, y, w, unit, seed)
    low, high = np.quantile(drawn, [0.5 - level / 2.0, 0.5 + level / 2.0]) - drawn.mean()
    return Interval(
        value=observed,
        low=observed + float(low),
        high=observed + float(high),
        level=level,
        n=n,
        n_units=int(unit.max()) + 1,
    )


def unit_of_rows(n: int, groups: Groups | None) -> NDArray[np.int64]:
    """Index of the independent unit of each row."""
    if groups is None:
        return np.arange(n)
    return np.unique(groups, return_inverse=True)[1].astype(np.int64, copy=False)


def resampled_sums(columns: Array, unit: NDArray[np.int64], *, seed: int) -> Array:
    """Sums of each column over resampled units, shape (2 000, columns).

    Counts (resamples, units) times sums (units, columns). More than `MAX_UNITS` units are first
    merged at random, so the cost does not grow with n.
    """
    generator = np.random.default_rng(seed)
    n_units = int(unit.max()) + 1
    if n_units > MAX_UNITS:
        merged = generator.permutation(n_units) % MAX_UNITS
        unit, n_units = merged[unit], MAX_UNITS
    order = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[order], np.arange(n_units))
    sums = np.add.reduceat(columns[order], starts, axis=0)
    result = np.empty((N_RESAMPLES, columns.shape[1]))
    for start in range(0, N_RESAMPLES, CHUNK):
        size = min(CHUNK, N_RESAMPLES - start)
        draws = generator.integers(0, n_units, size=(size, n_units))
        draws += np.arange(size)[:, None] * n_units
        counts = np.bincount(draws.ravel(), minlength=size * n_units).reshape(size, n_units)
        result[start : start + size] = counts @ sums
    return result


def _by_sums(
    score: str,
    predictors: list[NDArray[Any]],
    y: Labels,
    w: Array,
    unit: NDArray[np.int64],
    seed: int,
) -> tuple[float, Array]:
    if score in ROW_MEANS:
        sides = [(w * ROW_MEANS[score](p, y))[:, None] for p in predictors]
    else:
        sides = [bin_columns(*_confidence(p, y), w) for p in predictors]
    columns = np.column_stack([w, *sides])
    width = sides[0].shape[1]

    def value(sums: Array) -> Array:
        if score in ROW_MEANS:
            values = [sums[:, 1 + i] / sums[:, 0] for i in range(len(predictors))]
        else:
            starts = range(1, columns.shape[1], width)
            values = [OF_SUMS[score](sums[:, start : start + width]) for start in starts]
        return values[0] if len(predictors) == 1 else values[0] - values[1]

    drawn = resampled_sums(columns, unit, seed=seed)
    drawn = drawn[drawn[:, 0] > 0.0]  # weights of zero can make a resample empty
    return float(value(columns.sum(axis=0)[None])[0]), value(drawn)


def _by_weights(
    score: str,
    predictors: list[NDArray[Any]],
    y: Labels,
    w: Array,
    unit: NDArray[np.int64],
    seed: int,
) -> tuple[float, Array]:
    compute = RECOMPUTED[score]
    rows = [_confidence(p, y) for p in predictors]

    def value(weights: Array) -> float:
        values = [compute(*side, weights=weights) for side in rows]
        return values[0] if len(predictors) == 1 else values[0] - values[1]

    generator = np.random.default_rng(seed)
    n_units = int(unit.max()) + 1
    drawn = []
    for _ in range(N_RECOMPUTED):
        counts = np.bincount(generator.integers(0, n_units, size=n_units), minlength=n_units)
        weights = w * counts[unit]
        drawn.append(value(weights) if weights.any() else np.nan)
    finite = np.array(drawn)[np.isfinite(drawn)]  # no AUROC where all drawn rows are right
    return value(w), finite if finite.shape[0] else np.array([np.nan])


def _confidence(p: NDArray[Any], y: Labels) -> tuple[Array, Array]:
    confidence, correct = confidence_of_rows(p, y)
    return confidence, correct.astype(np.float64)


def _plain_ece(sums: Array) -> Array:
    bins = sums.reshape(-1, N_SUMS, N_BINS)
    return np.asarray(np.abs(bins[:, 2]).sum(axis=1) / bins[:, 0].sum(axis=1))
