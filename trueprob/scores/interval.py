"""How far a score would move with other rows: bootstrap intervals, of one predictor or of two.

Rows, or groups where their rows are not independent, are resampled with replacement. Scores that
are functions of sums (`accuracy`, `nll`, `brier`, `mean_entropy`, `ece`, `debiased_ece`) go
through `bootstrap.resampled_sums`, 2 000 times at the price of a matrix product; the others
(`adaptive_ece`, `smooth_ece`, `auroc`, `aurc`) are computed again 400 times with the resampled
counts as weights.

The interval is the observed value plus the quantiles of (resampled − mean of the resampled).
Resampling adds noise, noise raises any ECE, and the plain percentile interval of an ECE often
does not even hold the ECE; centred, it says how far the *reported number* would move. It does
not say that the true error of calibration lies inside: compare with the floor for that, or take
`debiased_ece`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.weights_and_groups import as_groups, as_weights
from trueprob.bootstrap import resampled_sums, unit_of_rows
from trueprob.confidence_rows import Array, checked_rows
from trueprob.errors import InvalidInput
from trueprob.scores.binned import N_BINS
from trueprob.scores.confidence import adaptive_calibration_error, confidence_auroc
from trueprob.scores.debiased_ece import N_SUMS, bin_columns, debiased_ece_of_sums
from trueprob.scores.score import checked_probabilities, row_brier, row_entropy, row_nll
from trueprob.scores.smooth_ece import smooth_calibration_error
from trueprob.selective_risk import area_under_risk_coverage

__all__ = ["INTERVAL_SCORES", "Interval", "bootstrap_interval"]

N_RECOMPUTED: Final = 400  # the bounds of a 90 % interval then move by about 1.5 points of level

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
    "adaptive_ece": adaptive_calibration_error,
    "smooth_ece": smooth_calibration_error,
    "auroc": confidence_auroc,
    "aurc": area_under_risk_coverage,
}
INTERVAL_SCORES: Final = (*ROW_MEANS, *OF_SUMS, *RECOMPUTED)


@dataclass(frozen=True)
class Interval:
    """A score and where it would fall with other rows.

    Attributes
    ----------
    value : float
        On the rows as they are; with `other`, the difference.
    low, high : float
        Bounds, `level` of the resamples between them.
    level : float
    n : int
        Rows.
    n_units : int
        What was resampled: rows, or groups.
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
        One of `INTERVAL_SCORES`.
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
        Rows of equal keys are drawn together.
    seed : int
        The same call gives the same interval.

    Returns
    -------
    Interval

    Raises
    ------
    InvalidInput
        Unknown score, a level outside (0, 1), or shapes that do not belong together.
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
    both = [p]
    if other is not None:
        second = np.asarray(other)
        if second.shape != p.shape:
            raise InvalidInput(
                f"other must have shape {p.shape}, got {second.shape}", field="other"
            )
        both.append(checked_probabilities(second, y)[0])
    w = np.ones(n) if weights is None else as_weights(weights, n_rows=n)
    unit = unit_of_rows(n, None if groups is None else as_groups(groups, n_rows=n))
    resample = _by_weights if score in RECOMPUTED else _by_sums
    observed, drawn = resample(score, both, y, w, unit, seed)
    low, high = np.quantile(drawn, [0.5 - level / 2.0, 0.5 + level / 2.0]) - drawn.mean()
    return Interval(
        value=observed,
        low=observed + float(low),
        high=observed + float(high),
        level=level,
        n=n,
        n_units=int(unit.max()) + 1,
    )


def _by_sums(
    score: str,
    both: list[NDArray[Any]],
    y: Labels,
    w: Array,
    unit: NDArray[np.int64],
    seed: int,
) -> tuple[float, Array]:
    if score in ROW_MEANS:
        sides = [(w * ROW_MEANS[score](p, y))[:, None] for p in both]
    else:
        sides = [bin_columns(*_top_label(p, y), w) for p in both]
    columns = np.column_stack([w, *sides])
    width = sides[0].shape[1]

    def value(sums: Array) -> Array:
        if score in ROW_MEANS:
            values = [sums[:, 1 + i] / sums[:, 0] for i in range(len(both))]
        else:
            starts = range(1, columns.shape[1], width)
            values = [OF_SUMS[score](sums[:, start : start + width]) for start in starts]
        return values[0] if len(both) == 1 else values[0] - values[1]

    drawn = resampled_sums(columns, unit, seed=seed)
    drawn = drawn[drawn[:, 0] > 0.0]  # weights of zero can make a resample empty
    return float(value(columns.sum(axis=0)[None])[0]), value(drawn)


def _by_weights(
    score: str,
    both: list[NDArray[Any]],
    y: Labels,
    w: Array,
    unit: NDArray[np.int64],
    seed: int,
) -> tuple[float, Array]:
    compute = RECOMPUTED[score]
    rows = [_top_label(p, y) for p in both]

    def value(weights: Array) -> float:
        values = [compute(*side, weights=weights) for side in rows]
        return values[0] if len(both) == 1 else values[0] - values[1]

    generator = np.random.default_rng(seed)
    n_units = int(unit.max()) + 1
    drawn = []
    for _ in range(N_RECOMPUTED):
        counts = np.bincount(generator.integers(0, n_units, size=n_units), minlength=n_units)
        weights = w * counts[unit]
        drawn.append(value(weights) if weights.any() else np.nan)
    finite = np.array(drawn)[np.isfinite(drawn)]  # no AUROC where all drawn rows are right
    return value(w), finite if finite.shape[0] else np.array([np.nan])


def _top_label(p: NDArray[Any], y: Labels) -> tuple[Array, Array]:
    top = p.argmax(axis=1)
    confidence = np.minimum(p[np.arange(p.shape[0]), top].astype(np.float64), 1.0)
    return checked_rows(confidence, top == y, None)[:2]


def _plain_ece(sums: Array) -> Array:
    parts = sums.reshape(-1, N_SUMS, N_BINS)
    return np.asarray(np.abs(parts[:, 2]).sum(axis=1) / parts[:, 0].sum(axis=1))
