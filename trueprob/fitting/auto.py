"""The method `auto`: the simplest method that cross-validation cannot tell from the best one.

Each candidate is cross-fitted on the same divisions into folds, everything that it fits (linear
stage, inner folds, knots) anew within each training part. The score is the mean NLL of the rows
left out, proper, so no candidate gains by being wrongly sure. Rule of one standard error
(Breiman, Friedman, Olshen and Stone 1984, section 3.4.3), paired: with d_i the difference of a
row's NLL to that under the best candidate, averaged over the divisions, the first candidate in
order of simplicity whose mean d is at most its standard error is taken. The error of the score
itself is mostly that of the rows, which all candidates share.

`auto` is no kind of calibrator: what it returns is of the kind that it chose.
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
from trueprob.bootstrap import unit_of_rows
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
from trueprob.folds import Groups, fold_of_rows
from trueprob.scores.score import SMALLEST

__all__ = ["CANDIDATES", "WITH_INNER_FOLDS", "SelectedCalibrator", "candidates", "fit_auto"]

# Simplest first. `smart-mlp` is the published reference, and is neither quick nor better.
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
# They hold rows out themselves, so they are told which belong together.
WITH_INNER_FOLDS: Final = frozenset({"smart", "smart-vector", "smart-matrix"})
DEFAULT: Final = "smart"  # what is fitted when nothing can be left out
MATRIX_CLASSES: Final = 300  # above, k² parameters take minutes
N_FOLDS: Final = 5
SMALL: Final = 1_000  # rows below which one more division is worth its time
REPEATS: Final = 2
REPEATS_WHEN_SMALL: Final = 3

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SelectedCalibrator(FittedCalibrator):
    """The chosen calibrator, and what every candidate scored."""

    # simplest first; empty for a single row or group, which cannot be left out
    candidates: tuple[CandidateScore, ...] = ()


def candidates(n_classes: int, *, allow_prediction_change: bool) -> tuple[str, ...]:
    """The methods among which is chosen, simplest first."""
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
    seed: int = 0,  # of the first division into folds; the others count on from it
    groups: Groups | None = None,
    allow_prediction_change: bool = False,
) -> SelectedCalibrator:
    """Cross-validate every candidate, apply the rule and fit the chosen one on all rows."""
    names = candidates(logits.shape[1], allow_prediction_change=allow_prediction_change)
    unit = unit_of_rows(labels.shape[0], groups)
    if int(unit.max()) == 0:
        fitted = _fitted(DEFAULT, logits, labels, weights, groups, seed)
        warning = f"a single row or group cannot be left out: {DEFAULT} is fitted unchosen"
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
    """NLL of each row under each candidate fitted without it, (m, n), averaged over divisions."""
    n = labels.shape[0]
    correct = prediction(logits) == labels
    repeats = REPEATS_WHEN_SMALL if n < SMALL else REPEATS
    losses = np.zeros((len(names), n))
    for repeat in range(repeats):
        fold = fold_of_rows(correct, groups, N_FOLDS, seed=seed + repeat)
        for index in range(int(fold.max()) + 1):
            held, kept = fold == index, fold != index
            part = None if weights is None else weights[kept]
            if part is not None and not part.any():
                part = None  # rows that all weigh nothing are equal
            members = None if groups is None else groups[kept]
            for row, name in enumerate(names):
                fitted = _fitted(name, logits[kept], labels[kept], part, members, seed + repeat)
                p = fitted.calibrator.predict_proba(logits[held])
                chosen = p[np.arange(p.shape[0]), labels[held]].astype(np.float64)
                losses[row, held] -= np.log(np.maximum(chosen, SMALLEST))
    losses /= repeats
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
    """Of a weighted mean, rows of one unit (row or group) counted together."""
    sums = np.bincount(unit, weights=share * (values - float(share @ values)))
    count = sums.shape[0]
    return float(np.sqrt(count / (count - 1) * (sums @ sums)))
