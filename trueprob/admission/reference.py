"""Reference check: whether a candidate is significantly worse on a pinned set.

Admission compares on the rows that a candidate is cross-fitted on. If these rows arrive
automatically, they may be bad. A pinned set protects against that: whatever the rows are, the
candidate must not be significantly worse on the pinned set.

A paired bootstrap over rows, or groups where given, decides at one-sided 95 %. The lower bound of
the difference of mean NLL must not be above 0, and the upper bound of the difference of accuracy
must not be below 0. A candidate that is equally good fails each condition about once in twenty
times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueprob.admission.decision import MIN_UNITS, is_new_row
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.calibrators import Calibrator
from trueprob.folds import fold_groups
from trueprob.scores.interval import resampled_sums, unit_of_rows
from trueprob.scores.score import SMALLEST

__all__ = ["ReferenceCheck", "check_reference"]


@dataclass(frozen=True)
class ReferenceCheck:
    """The result of `check_reference`."""

    passed: bool
    reason: str  # a sentence with the numbers
    n_compared: int  # rows on which the candidate was not fitted


def check_reference(
    incumbent: Calibrator,
    candidate: Calibrator,
    reference: CalibrationSet,
    *,
    fitted_row_digests: NDArray[np.uint8] | Sequence[bytes] = (),  # rows not to compare
    seed: int = 0,  # of the resampling
) -> ReferenceCheck:
    """Compare two calibrators on a pinned set; fails if too few rows are left."""
    new_rows = np.flatnonzero(is_new_row(reference.row_digests, fitted_row_digests))
    if new_rows.shape[0] == 0:
        return ReferenceCheck(False, "the candidate was fitted on all of the reference set", 0)
    data = reference.subset(new_rows)
    unit = unit_of_rows(data.n, fold_groups(data.logits, data.groups))
    n_units = int(unit.max()) + 1
    if n_units < MIN_UNITS:
        unit_name = "rows" if data.groups is None else "groups"
        reason = (
            f"the reference set has {n_units} {unit_name} on which the candidate was not fitted, "
            f"at least {MIN_UNITS} are needed"
        )
        return ReferenceCheck(False, reason, data.n)
    weight = np.ones(data.n) if data.weights is None else data.weights
    sides = [_side(calibrator, data) for calibrator in (incumbent, candidate)]
    columns = np.column_stack(
        [
            weight,
            weight * (sides[1][0] - sides[0][0]),
            weight * (sides[1][1] - sides[0][1]),
        ]
    )
    drawn = resampled_sums(columns, unit, seed=seed)
    drawn = drawn[drawn[:, 0] > 0]  # weights of zero can make a resample empty
    nll, accuracy = (drawn[:, i] / drawn[:, 0] for i in (1, 2))
    worse_nll = bool(np.quantile(nll, 0.05) > 0.0)
    worse_accuracy = bool(np.quantile(accuracy, 0.95) < 0.0)
    before, after = (float(np.average(side[0], weights=weight)) for side in sides)
    verdict = "significantly worse" if worse_nll or worse_accuracy else "not significantly worse"
    measure = "accuracy " if worse_accuracy and not worse_nll else ""
    reason = (
        f"{measure}{verdict} on the reference set: "
        f"NLL {before:.3f} → {after:.3f} nats on {data.n} rows"
    )
    return ReferenceCheck(not (worse_nll or worse_accuracy), reason, data.n)


def _side(
    calibrator: Calibrator, data: CalibrationSet
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """NLL of each row, and whether its prediction is right."""
    chosen = calibrator.predict_proba(data.logits)[np.arange(data.n), data.labels]
    correct = calibrator.prediction(data.logits) == data.labels
    nll: NDArray[np.float64] = -np.log(np.maximum(chosen.astype(np.float64), SMALLEST))
    return nll, correct.astype(np.float64)
