"""The method `auto`: the simplest method that cross-validation cannot tell from the best one.

All candidates are cross-fitted on the same divisions into folds, including everything that they
fit (linear stage, inner folds, knots). The score is the mean NLL of the rows left out. The rule is
that of one standard error (Breiman, Friedman, Olshen and Stone 1984, section 3.4.3), paired: with
d_i the difference between a row's NLL and its NLL under the best candidate, averaged over
divisions, it takes the first candidate in order of simplicity whose mean d is at most the standard
error of that mean. Most of the error of the score itself comes from the rows, which all
candidates share.

`auto` is not a kind of calibrator: it returns one of the kind that it chose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, prediction
from trueprob.arrays.weights_and_groups import Groups
from trueprob.calibrators import (
    KINDS,
    FittedCalibrator,
    fit_identity,
    fit_isotonic,
    fit_smart,
    fit_smart_matrix,
    fit_smart_vector,
    fit_temperature,
    fit_vector,
)
from trueprob.fitting.report import CandidateScore
from trueprob.folds import fold_of_rows
from trueprob.scores.interval import unit_of_rows
from trueprob.scores.score import SMALLEST

__all__ = ["CANDIDATES", "WITH_INNER_FOLDS", "SelectedCalibrator", "candidates", "fit_auto"]

# Simplest first. `smart-mlp`, the published reference, is slower and not better.
CANDIDATES: Final[Mapping[str, Callable[..., FittedCalibrator]]] = MappingProxyType(
    {
        "identity": fit_identity,
        "temperature": fit_temperature,
        "smart": fit_smart,
        "isotonic": fit_isotonic,
        "vector": fit_vector,
        "smart-vector": fit_smart_vector,
        "smart-matrix": fit_smart_matrix,
    }
)
# These methods hold rows out themselves, so they need the groups.
WITH_INNER_FOLDS: Final = frozenset({"smart", "vector", "smart-vector", "smart-matrix"})
DEFAULT: Final = "smart"  # fitted when nothing can be left out
MATRIX_CLASSES: Final = 300  # above, k² parameters take minutes
N_FOLDS: Final = 5
SMALL: Final = 1_000  # rows; below, one more division is worth its time
N_DIVISIONS: Final = 2
N_DIVISIONS_WHEN_SMALL: Final = 3

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SelectedCalibrator(FittedCalibrator):
    """The chosen calibrator, and the scores of all candidates."""

    # Simplest first; empty for a single row or group, which cannot be left out.
    candidates: tuple[CandidateScore, ...] = ()


def candidates(n_classes: int, *, allow_prediction_change: bool) -> tuple[str, ...]:
    """The methods to choose from, simplest first."""
    return tuple(
        method
        for method in CANDIDATES
        if (allow_prediction_change or KINDS[method].preserves_prediction)
        and (method != "smart-matrix" or n_classes <= MATRIX_CLASSES)
    )


def fit_auto(
    logits: Logits,  # (n, k) float32
    labels: Labels,  # (n,) int64
    weights: Array | None = None,  # (n,), only their ratios matter
    *,
    seed: int = 0,  # of the first division into folds; division r uses seed + r
    groups: Groups | None = None,  # (n,), rows of one group stay in one fold
    allow_prediction_change: bool = False,
) -> SelectedCalibrator:
    """Cross-validate every candidate, apply the rule and fit the chosen one on all rows."""
    names = candidates(logits.shape[1], allow_prediction_change=allow_prediction_change)
    unit = unit_of_rows(labels.shape[0], groups)
    if int(unit.max()) == 0:
        fitted = _fitted(DEFAULT, logits, labels, weights, groups, seed)
        warning = f"a single row or group cannot be left out: {DEFAULT} is fitted without a choice"
        return SelectedCalibrator(fitted.calibrator, fitted.outcome, (warning, *fitted.warnings))
    losses = _cross_validated(names, logits, labels, weights, groups, seed)
    scores = _scores(names, losses, weights, unit)
    chosen = next(score for score in scores if score.behind <= score.behind_standard_error)
    fitted = _fitted(chosen.method, logits, labels, weights, groups, seed)
    return SelectedCalibrator(fitted.calibrator, fitted.outcome, fitted.warnings, scores)


def _fitted(
    method: str,
    logits: Logits,
    labels: Labels,
    weights: Array | None,
    groups: Groups | None,
    seed: int,
) -> FittedCalibrator:
    if method in WITH_INNER_FOLDS:
        return CANDIDATES[method](logits, labels, weights, seed=seed, groups=groups)
    return CANDIDATES[method](logits, labels, weights, seed=seed)


def _cross_validated(
    names: tuple[str, ...],
    logits: Logits,
    labels: Labels,
    weights: Array | None,
    groups: Groups | None,
    seed: int,
) -> Array:
    """Out-of-fold NLL of each row under each candidate, (m, n), averaged over divisions."""
    n = labels.shape[0]
    correct = prediction(logits) == labels
    n_divisions = N_DIVISIONS_WHEN_SMALL if n < SMALL else N_DIVISIONS
    losses = np.zeros((len(names), n))
    for division in range(n_divisions):
        fold = fold_of_rows(correct, groups, N_FOLDS, seed=seed + division)
        for index in range(int(fold.max()) + 1):
            held, kept = fold == index, fold != index
            part = None if weights is None else weights[kept]
            if part is not None and not part.any():
                part = None  # if all weights are 0, the rows count equally
            members = None if groups is None else groups[kept]
            for row, name in enumerate(names):
                fitted = _fitted(name, logits[kept], labels[kept], part, members, seed + division)
                p = fitted.calibrator.predict_proba(logits[held])
                chosen = p[np.arange(p.shape[0]), labels[held]].astype(np.float64)
                losses[row, held] -= np.log(np.maximum(chosen, SMALLEST))
    losses /= n_divisions
    return losses


def _scores(
    names: tuple[str, ...], losses: Array, weights: Array | None, unit: NDArray[np.int64]
) -> tuple[CandidateScore, ...]:
    n = losses.shape[1]
    share = np.full(n, 1.0 / n) if weights is None else weights / weights.sum()
    means = losses @ share
    differences = losses - losses[int(np.argmin(means))]
    return tuple(
        CandidateScore(
            name,
            float(share @ loss),
            _standard_error(loss, share, unit),
            float(share @ difference),
            _standard_error(difference, share, unit),
        )
        for name, loss, difference in zip(names, losses, differences, strict=True)
    )


def _standard_error(values: Array, share: Array, unit: NDArray[np.int64]) -> float:
    """Standard error of a weighted mean, with rows of one unit (row or group) added up first."""
    sums = np.bincount(unit, weights=share * (values - float(share @ values)))
    count = sums.shape[0]
    return float(np.sqrt(count / (count - 1) * (sums @ sums)))
