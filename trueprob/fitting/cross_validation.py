"""Out-of-fold probabilities of the candidates of `auto`, in one pass that is fitted once.

Every candidate is fitted without each fold of the same divisions. Nothing is fitted twice:

- `vector` and `smart-vector` share their linear stages.
- The gap stage of `smart-vector` and `smart-matrix` needs outputs of linear stages that were fitted
  without the row. Those of the division serve for the fit on all rows, and for the gap stages
  without a fold. The latter have seen outputs of stages that were fitted with the fold's labels, as
  weights of a stack by the other folds have; the few slopes of a gap stage learn nothing from that.
- A candidate that is more than three paired standard errors behind after the first division takes
  no part in the further ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, prediction, tempered_softmax
from trueprob.arrays.weights_and_groups import Groups
from trueprob.calibrators import (
    FitOutcome,
    FittedCalibrator,
    SmartMatrixCalibrator,
    SmartVectorCalibrator,
    VectorCalibrator,
    fit_identity,
    fit_isotonic,
    fit_smart,
    fit_smart_binary,
    fit_temperature,
)
from trueprob.calibrators.linear.fit import LinearCrossFit, cross_fit_linear_stage
from trueprob.calibrators.linear.smart_vector_matrix import fit_gap_stage
from trueprob.calibrators.linear.vector import UNCONVERGED
from trueprob.calibrators.smart.calibrator import UNIFORM_SHARE
from trueprob.folds import fold_of_rows
from trueprob.scores.score import row_nll

__all__ = [
    "N_FOLDS",
    "SIMPLE",
    "TWO_STAGES",
    "CrossValidation",
    "RowsToFit",
    "paired_standard_error",
]

N_FOLDS: Final = 5
SMALL: Final = 1_000  # rows; below, further divisions are worth their time
N_DIVISIONS_WHEN_SMALL: Final = 3
HOPELESS: Final = 3.0  # paired standard errors behind the best after the first division

# Methods that are fitted anew for each fold.
SIMPLE: Final[Mapping[str, Callable[..., FittedCalibrator]]] = MappingProxyType(
    {
        "identity": fit_identity,
        "temperature": fit_temperature,
        "smart": fit_smart,
        "smart-binary": fit_smart_binary,
        "isotonic": fit_isotonic,
    }
)
# These hold rows out themselves, so they need the groups.
WITH_INNER_FOLDS: Final = frozenset({"smart", "smart-binary"})
TWO_STAGES: Final[Mapping[str, type[SmartVectorCalibrator] | type[SmartMatrixCalibrator]]] = (
    MappingProxyType({"smart-vector": SmartVectorCalibrator, "smart-matrix": SmartMatrixCalibrator})
)

Array = NDArray[np.float64]
Fold = NDArray[np.int64]


@dataclass(frozen=True)
class RowsToFit:
    """Labelled rows, with weights and groups if there are any."""

    logits: Logits  # (n, k)
    labels: Labels  # (n,)
    weights: Array | None = None  # (n,), only their ratios matter
    groups: Groups | None = None  # (n,)

    def part(self, rows: NDArray[np.bool_]) -> RowsToFit:
        """Some of the rows; equal weights if all of theirs are 0."""
        weights = None if self.weights is None else self.weights[rows]
        if weights is not None and not weights.any():
            weights = None
        groups = None if self.groups is None else self.groups[rows]
        return RowsToFit(self.logits[rows], self.labels[rows], weights, groups)


@dataclass
class CrossValidation:
    """Fits candidates without each fold, and on all rows where that is asked for."""

    rows: RowsToFit
    seed: int  # of the first division into folds; division r uses seed + r
    folds: list[Fold] = field(default_factory=list)  # of each division
    # Of each division, the probabilities of each candidate that took part, (n, k).
    columns: list[dict[str, Probabilities]] = field(default_factory=list)
    _linear: dict[tuple[int, bool], LinearCrossFit] = field(default_factory=dict)

    def run(
        self,
        names: tuple[str, ...],
        share: Array,  # (n,), weights of the rows, which sum to 1
        unit: NDArray[np.int64],  # (n,), row or group
        *,
        n_folds: int = N_FOLDS,
        progress: Callable[[float], None] | None = None,  # called with the share that is done
    ) -> None:
        """Cross-fit the candidates; the hopeless ones are in the first division only."""
        rows = self.rows
        correct = prediction(rows.logits) == rows.labels
        n_divisions = N_DIVISIONS_WHEN_SMALL if correct.shape[0] < SMALL else 1
        for division in range(n_divisions):
            fold = fold_of_rows(correct, rows.groups, n_folds, seed=self.seed + division)
            self.folds.append(fold)
            self.columns.append({})
            for index, name in enumerate(names):
                column = self._out_of_fold(name, division)
                if column is not None:
                    self.columns[division][name] = column
                if progress is not None:
                    progress((division + (index + 1) / len(names)) / n_divisions)
            if division == 0:
                names = self._hopeful(share, unit)

    def _hopeful(self, share: Array, unit: NDArray[np.int64]) -> tuple[str, ...]:
        """Candidates that are not far behind the best after the first division."""
        losses = {name: row_nll(p, self.rows.labels) for name, p in self.columns[0].items()}
        best = min(losses.values(), key=lambda loss: float(share @ loss))
        return tuple(
            name
            for name, loss in losses.items()
            if share @ (loss - best) <= HOPELESS * paired_standard_error(loss - best, share, unit)
        )

    def _out_of_fold(self, name: str, division: int) -> Probabilities | None:
        """Probabilities of each row under fits without it; None if it is another one once more."""
        rows, fold, seed = self.rows, self.folds[division], self.seed + division
        if name in SIMPLE:
            return _left_out(name, rows, fold, seed)
        crossed = self._stage(name, division)
        if division == 0 and math.isinf(crossed.strength):
            return None  # `temperature`, or `smart`
        if name in TWO_STAGES:
            outputs = rows.logits if math.isinf(crossed.strength) else crossed.outputs
            return _left_out("smart", replace(rows, logits=outputs), fold, seed)
        result = np.empty_like(rows.logits)
        for index in range(int(fold.max()) + 1):
            held = fold == index
            weight = UNIFORM_SHARE / (np.count_nonzero(~held) + 1)
            result[held] = tempered_softmax(crossed.outputs[held], uniform_weight=weight)
        return result

    def advised(self, name: str) -> Probabilities | None:
        """Probabilities of a method that is no candidate, in the first division."""
        return self._out_of_fold(name, 0)

    def _stage(self, name: str, division: int) -> LinearCrossFit:
        """The linear stage of a candidate on all rows, with its outputs out of fold."""
        full = name == SmartMatrixCalibrator.kind
        if (division, full) not in self._linear:
            rows, fold = self.rows, self.folds[division]
            self._linear[division, full] = cross_fit_linear_stage(
                rows.logits, rows.labels, rows.weights, fold, full=full
            )
        return self._linear[division, full]

    def fitted(self, name: str) -> FittedCalibrator:
        """The candidate fitted on all rows, with the linear stages that are there already."""
        rows = self.rows
        if name in SIMPLE:
            return _fit(name, rows, self.seed)
        crossed, (n, k) = self._stage(name, 0), rows.logits.shape
        warnings = () if crossed.converged else (UNCONVERGED,)
        if name in TWO_STAGES:
            both = fit_gap_stage(
                crossed,
                rows.logits,
                rows.labels,
                rows.weights,
                seed=self.seed,
                groups=rows.groups,
            )
            two_stages = TWO_STAGES[name](k, both.linear, both.gap_stage)
            return FittedCalibrator(two_stages, both.outcome, both.warnings)
        outcome = FitOutcome.CONVERGED if crossed.converged else FitOutcome.NOT_CONVERGED
        calibrator = VectorCalibrator(k, crossed.stage, UNIFORM_SHARE / (n + 1))
        return FittedCalibrator(calibrator, outcome, warnings)


def _fit(name: str, rows: RowsToFit, seed: int) -> FittedCalibrator:
    options = {"groups": rows.groups} if name in WITH_INNER_FOLDS else {}
    return SIMPLE[name](rows.logits, rows.labels, rows.weights, seed=seed, **options)


def _left_out(name: str, rows: RowsToFit, fold: Fold, seed: int) -> Probabilities:
    """Probabilities of each row under a fit without its fold, (n, k)."""
    result = np.empty_like(rows.logits)
    for index in range(int(fold.max()) + 1):
        held = fold == index
        fitted = _fit(name, rows.part(~held), seed)
        result[held] = fitted.calibrator.predict_proba(rows.logits[held])
    return result


def paired_standard_error(values: Array, share: Array, unit: NDArray[np.int64]) -> float:
    """Standard error of a weighted mean, with rows of one unit (row or group) added up first."""
    sums = np.bincount(unit, weights=share * (values - float(share @ values)))
    count = sums.shape[0]
    return float(np.sqrt(count / (count - 1) * (sums @ sums)))
