"""The method `auto`: a mixture of the candidates, by cross-validation.

All candidates are cross-fitted on the same divisions into folds (`cross_validation`), and their
out-of-fold probabilities give the weights and the power of a mixture (`stacking`). It returns a
calibrator of kind `stack`, or the only member that remains.

With `select="simplest"` it takes the simplest candidate within one standard error of the best
(Breiman, Friedman, Olshen and Stone 1984, section 3.4.3), paired: with d_i the difference between
a row's NLL and its NLL under the best candidate, averaged over divisions, the first in order of
simplicity whose mean d is at most the standard error of that mean.

The out-of-fold probabilities of the result are nested: those of a fold are mixed with weights, or
chosen, from the other folds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, prediction
from trueprob.arrays.weights_and_groups import Groups
from trueprob.calibrators import KINDS, FitOutcome, FittedCalibrator, StackCalibrator
from trueprob.calibrators.stack import pooled
from trueprob.errors import InvalidInput
from trueprob.fitting.cross_validation import (
    N_FOLDS,
    CrossValidation,
    RowsToFit,
    paired_standard_error,
)
from trueprob.fitting.report import CandidateScore
from trueprob.fitting.stacking import Mixture, Outcomes, fit_mixture
from trueprob.scores.interval import unit_of_rows
from trueprob.scores.score import row_nll

__all__ = [
    "CANDIDATES",
    "CONTRADICTION",
    "SELECTIONS",
    "SelectedCalibrator",
    "candidates",
    "fit_auto",
    "out_of_fold_auto",
]

# Simplest first. `smart-mlp`, the published reference, is slower and not better.
CANDIDATES: Final = (
    "identity",
    "temperature",
    "smart",
    "smart-binary",
    "isotonic",
    "vector",
    "smart-vector",
    "smart-matrix",
)
CONTRADICTION: Final = (
    "keep_prediction and allow_prediction_change contradict each other: leave one out"
)
SELECTIONS: Final = ("stack", "simplest")
BINARY: Final = "smart-binary"  # for two classes only
# Weight that each candidate has before any row, as a number of rows. `identity` and `isotonic` must
# earn theirs: the first repairs nothing, and the second has no prior of its own (decisions.md, 70).
PSEUDO_ROWS: Final = 1.0
WITHOUT_PSEUDO_ROWS: Final = frozenset({"identity", "isotonic"})
PLAIN: Final = frozenset({"temperature", "smart"})  # likewise beside `smart-binary`
MATRIX_CLASSES: Final = 300  # above, k² parameters take minutes
# Scored where predictions must be kept, to say what they cost; not above so many logits.
ADVISED: Final = "smart-vector"
ADVISED_LOGITS: Final = 20_000_000
CLEAR: Final = 2.0  # paired standard errors by which it must be ahead
ROUNDING: Final = 1e-6  # nats; probabilities that are meant to be equal differ by less

Array = NDArray[np.float64]


@dataclass(frozen=True)
class SelectedCalibrator(FittedCalibrator):
    """The calibrator of `auto`, the scores of all candidates, and its own out-of-fold answers."""

    # Simplest first; empty for a single row or group, which cannot be left out.
    candidates: tuple[CandidateScore, ...] = ()
    # (n, k), of the first division; None for a single row or group.
    out_of_fold: Probabilities | None = field(default=None, compare=False, repr=False)


def candidates(
    n_classes: int, *, allow_prediction_change: bool = False, keep_prediction: bool = False
) -> tuple[str, ...]:
    """The methods to mix, simplest first.

    With two classes the default are those that keep the ranking of rows, with more those that keep
    the prediction.
    """
    if keep_prediction and allow_prediction_change:
        raise InvalidInput(CONTRADICTION, field="keep_prediction")

    def allowed(method: str) -> bool:
        if (method == BINARY and n_classes != 2) or (
            method == "smart-matrix" and n_classes > MATRIX_CLASSES
        ):
            return False
        if allow_prediction_change:
            return True
        if n_classes == 2 and not keep_prediction:
            return KINDS[method].preserves_ranking
        return KINDS[method].preserves_prediction

    return tuple(filter(allowed, CANDIDATES))


def fit_auto(
    logits: Logits,  # (n, k) float32
    labels: Labels,  # (n,) int64
    weights: Array | None = None,  # (n,), only their ratios matter
    *,
    seed: int = 0,  # of the first division into folds; division r uses seed + r
    groups: Groups | None = None,  # (n,), rows of one group stay in one fold
    allow_prediction_change: bool = False,
    keep_prediction: bool = False,
    select: str = "stack",  # one of `SELECTIONS`
) -> SelectedCalibrator:
    """Cross-validate every candidate, and fit the mixture, or the chosen one, on all rows."""
    rows = RowsToFit(logits, labels, weights, groups)
    names = candidates(
        logits.shape[1],
        allow_prediction_change=allow_prediction_change,
        keep_prediction=keep_prediction,
    )
    selection = _Selection(rows, names, seed, select)
    if selection.alone:
        default = BINARY if BINARY in names else "smart"
        fitted = selection.validation.fitted(default)
        warning = f"a single row or group cannot be left out: {default} is fitted without a choice"
        return SelectedCalibrator(fitted.calibrator, fitted.outcome, (warning, *fitted.warnings))
    advised = None
    if (logits.shape[1] > 2 or keep_prediction) and logits.size <= ADVISED_LOGITS:
        advised = None if ADVISED in names else ADVISED
    return selection.fit(advised)


def out_of_fold_auto(
    logits: Logits,
    labels: Labels,
    weights: Array | None = None,
    *,
    seed: int = 0,
    groups: Groups | None = None,
    allow_prediction_change: bool = False,
    keep_prediction: bool = False,
    select: str = "stack",
    n_folds: int = N_FOLDS,
    progress: Callable[[float], None] | None = None,  # called with the share that is done
) -> Probabilities:
    """The out-of-fold probabilities of `fit_auto` alone, (n, k); nothing is fitted on all rows."""
    names = candidates(
        logits.shape[1],
        allow_prediction_change=allow_prediction_change,
        keep_prediction=keep_prediction,
    )
    selection = _Selection(RowsToFit(logits, labels, weights, groups), names, seed, select)
    selection.run(n_folds, progress)
    return selection.out_of_fold()


class _Selection:
    """One cross-validation, and the choice that follows from it."""

    def __init__(self, rows: RowsToFit, names: tuple[str, ...], seed: int, select: str) -> None:
        if select not in SELECTIONS:
            raise InvalidInput(
                f"select must be one of {', '.join(SELECTIONS)}, got {str(select)[:40]!r}",
                field="select",
            )
        n = rows.labels.shape[0]
        weights = np.ones(n) if rows.weights is None else rows.weights
        self.rows, self.names, self.select = rows, names, select
        self.share = weights / weights.sum()
        self.unit = unit_of_rows(n, rows.groups)
        self.alone = int(self.unit.max()) == 0
        self.validation = CrossValidation(rows, seed)

    def run(self, n_folds: int = N_FOLDS, progress: Callable[[float], None] | None = None) -> None:
        """Cross-fit all candidates."""
        self.validation.run(self.names, self.share, self.unit, n_folds=n_folds, progress=progress)

    def fit(self, advised: str | None) -> SelectedCalibrator:
        """Cross-fit all candidates, and fit what is chosen on all rows."""
        self.run()
        mixture, names = self._mixture(), self._eligible()
        chosen = {names[m]: self.validation.fitted(names[m]) for m in mixture.members}
        scores = self._scores(dict(zip(chosen, mixture.weights, strict=True)))
        warnings = [warning for fitted in chosen.values() for warning in fitted.warnings]
        outcomes = {fitted.outcome for fitted in chosen.values()} - {FitOutcome.NOTHING_TO_FIT}
        if len(chosen) == 1:
            (fitted,) = chosen.values()
        else:
            unconverged = FitOutcome.NOT_CONVERGED in outcomes
            outcome = FitOutcome.NOT_CONVERGED if unconverged else FitOutcome.CONVERGED
            members = tuple(fitted.calibrator for fitted in chosen.values())
            k = self.rows.logits.shape[1]
            stack = StackCalibrator(k, members, mixture.weights, mixture.power)
            fitted = FittedCalibrator(stack, outcome)
        out_of_fold = self.out_of_fold()
        if advised is not None:
            warnings += self._advice(advised, out_of_fold)
        return SelectedCalibrator(
            fitted.calibrator,
            fitted.outcome,
            tuple(dict.fromkeys(warnings)),
            scores,
            out_of_fold,
        )

    def _eligible(self) -> tuple[str, ...]:
        """Candidates that took part in all divisions."""
        return tuple(name for name in self.names if name in self.validation.columns[-1])

    def _mixture(self, kept: NDArray[np.bool_] | None = None) -> Mixture:
        """The members and their weights, from all rows or from some."""
        names, divisions = self._eligible(), self.validation.columns
        if self.select == "simplest":
            share = self.share if kept is None else self.share * kept
            if not share.any():
                share = np.ones(share.shape[0]) if kept is None else kept.astype(np.float64)
            losses = self._losses(names)
            means = losses @ (share / share.sum())
            differences = losses - losses[int(np.argmin(means))]
            chosen = next(
                index
                for index, difference in enumerate(differences)
                if (share / share.sum()) @ difference
                <= paired_standard_error(difference, share / share.sum(), self.unit) + ROUNDING
            )
            return Mixture((chosen,), (1.0,), 1.0)
        columns = [
            np.concatenate([each[name] for each in divisions])
            if divisions[1:]
            else divisions[0][name]
            for name in names
        ]
        labels = np.tile(self.rows.labels, len(divisions))
        n = self.rows.labels.shape[0]
        share = np.tile(self.share * (n / len(divisions)), len(divisions))
        without = WITHOUT_PSEUDO_ROWS | (PLAIN if BINARY in names else frozenset())
        pseudo_rows = np.array([0.0 if name in without else PSEUDO_ROWS for name in names])
        rows = None if kept is None else np.tile(kept, len(divisions))
        outcomes = Outcomes.of(columns, labels, share)
        return fit_mixture(columns, labels, outcomes, pseudo_rows, rows)

    def out_of_fold(self) -> Probabilities:
        """Probabilities of each row of the first division, mixed with the other folds' weights."""
        names, columns, fold = (
            self._eligible(),
            self.validation.columns[0],
            self.validation.folds[0],
        )
        result = np.empty_like(self.rows.logits)
        keeps = all(KINDS[name].preserves_prediction for name in names)
        for index in range(int(fold.max()) + 1):
            held = fold == index
            mixture = self._mixture(~held)
            parts = [columns[names[member]][held] for member in mixture.members]
            if len(parts) == 1:
                result[held] = parts[0]
                continue
            top = prediction(self.rows.logits[held]) if keeps else None
            result[held] = pooled(parts, mixture.weights, mixture.power, top)[0]
        return result

    def _losses(self, names: tuple[str, ...]) -> Array:
        """Out-of-fold NLL of each row under each candidate, (m, n), averaged over divisions."""
        divisions = self.validation.columns
        return np.stack(
            [
                np.mean(
                    [row_nll(each[name], self.rows.labels) for each in divisions if name in each],
                    axis=0,
                )
                for name in names
            ]
        )

    def _scores(self, weights: dict[str, float]) -> tuple[CandidateScore, ...]:
        names = tuple(name for name in self.names if name in self.validation.columns[0])
        losses, share, unit = self._losses(names), self.share, self.unit
        best = losses[int(np.argmin(losses @ share))]
        return tuple(
            CandidateScore(
                name,
                float(share @ loss),
                paired_standard_error(loss, share, unit),
                float(share @ (loss - best)),
                paired_standard_error(loss - best, share, unit),
                weights.get(name, 0.0),
            )
            for name, loss in zip(names, losses, strict=True)
        )

    def _advice(self, name: str, out_of_fold: Probabilities) -> list[str]:
        """A sentence if a method that may change predictions is clearly ahead."""
        column = self.validation.advised(name)
        if column is None:
            return []
        labels = self.rows.labels
        ahead = row_nll(out_of_fold, labels) - row_nll(column, labels)
        gain = float(self.share @ ahead)
        error = paired_standard_error(ahead, self.share, self.unit)
        if gain <= CLEAR * error:
            return []
        sentence = (
            f"predictions are kept: {name}, which may change them, has a held-out NLL that is "
            f"lower by {gain:.3f} nats (standard error {error:.3f}); allow_prediction_change lets "
            "auto use it"
        )
        return [sentence]
