"""Admission: whether a candidate may replace the live calibrator.

The candidate's method is cross-fitted on the uploaded rows (5 folds; three divisions below 500
rows) and compared with the incumbent, row by row, on the rows that the incumbent was not fitted
on. It is admitted when the conditions of `trueprob.admission.verdict` hold.

A candidate whose true NLL equals the incumbent's is admitted about once in ten uploads, a worse
one less often. It is not guaranteed that no worse calibrator is ever admitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.admission.verdict import Verdict, judge, side_of
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.logit_functions import prediction
from trueprob.calibrators import Calibrator
from trueprob.errors import InvalidInput
from trueprob.fitting.fit import cross_fit, progress_of_part
from trueprob.fitting.methods import keeps_prediction
from trueprob.folds import fold_groups
from trueprob.scores.interval import unit_of_rows

__all__ = ["admit", "is_new_row"]

SMALL: Final = 500  # rows; below, a single division into folds is too noisy
N_DIVISIONS_WHEN_SMALL: Final = 3
MIN_UNITS: Final = 10  # rows or groups; below, a bootstrap says nothing


def admit(
    incumbent: Calibrator,
    method: str,
    calibration_set: CalibrationSet,
    *,
    seen_row_digests: NDArray[np.uint8] | Sequence[bytes] = (),
    seed: int = 0,
    keep_prediction: bool = False,
    allow_prediction_change: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Verdict:
    """Compare a method, cross-fitted on new rows, with the live calibrator.

    Parameters
    ----------
    incumbent : Calibrator
        The live calibrator.
    method : str
        One of `METHODS`.
    calibration_set : CalibrationSet
        The uploaded rows. All are used to fit; only those that are new to the incumbent are
        compared.
    seen_row_digests : ndarray of shape (m, 16), uint8, or sequence of 16-byte strings
        `CalibrationSet.row_digests` of the set that the incumbent was fitted on. If a row is
        in it once and is uploaded twice, one of the two is new.
    seed : int
        Seed of the folds and of resampling: the same call gives the same verdict.
    keep_prediction, allow_prediction_change : bool
        As in `trueprob.fit`.
    progress : callable, optional
        Called repeatedly with the share of the work that is done, 0 to 1.

    Returns
    -------
    Verdict

    Raises
    ------
    InvalidInput
        The method is unknown, the incumbent has another number of classes, or a digest is not
        16 bytes long.
    """
    data = calibration_set
    if incumbent.n_classes != data.n_classes:
        raise InvalidInput(
            f"logits must have shape (n, {incumbent.n_classes}), got {data.logits.shape}",
            field="logits",
        )
    allowed = {
        "keep_prediction": keep_prediction,
        "allow_prediction_change": allow_prediction_change,
    }
    keeps = keeps_prediction(method, data.n_classes, **allowed)
    new_rows = np.flatnonzero(is_new_row(data.row_digests, seen_row_digests))
    if new_rows.shape[0] == 0:
        return _refused(
            f"none of the {data.n} rows is new: the incumbent was fitted on all of them", 0
        )
    compared = data.subset(new_rows)
    unit = unit_of_rows(compared.n, fold_groups(compared.logits, compared.groups))
    if int(unit.max()) + 1 < MIN_UNITS:
        unit_name = "rows" if data.groups is None else "groups"
        return _refused(
            f"no evidence of improvement: {int(unit.max()) + 1} new {unit_name}, "
            f"at least {MIN_UNITS} are needed",
            compared.n,
        )
    n_divisions = N_DIVISIONS_WHEN_SMALL if data.n < SMALL else 1
    fits = []
    for division in range(n_divisions):
        fitted = cross_fit(
            method,
            data,
            seed=seed + division,
            **allowed,
            progress=progress_of_part(progress, division, n_divisions),
        )
        fits.append(fitted[new_rows])
    argmax = prediction(compared.logits)
    candidates = [side_of(p, argmax if keeps else p.argmax(axis=1), compared) for p in fits]
    live = side_of(
        incumbent.predict_proba(compared.logits), incumbent.prediction(compared.logits), compared
    )
    return judge(live, candidates, compared, unit, seed, exact=keeps)


def _refused(reason: str, n_compared: int) -> Verdict:
    return Verdict(False, (reason,), {"incumbent": None, "candidate": None}, n_compared)


def is_new_row(
    rows: NDArray[np.uint8], seen: NDArray[np.uint8] | Sequence[bytes]
) -> NDArray[np.bool_]:
    """Which rows are not among the seen ones; of equal rows the first ones count as seen."""
    before = _as_keys(seen)
    uploaded = _as_keys(rows)
    both, key = np.unique(np.concatenate([before, uploaded]), return_inverse=True)
    times_seen = np.bincount(key[: before.shape[0]], minlength=both.shape[0])
    of_row = key[before.shape[0] :]
    order = np.argsort(of_row, kind="stable")
    sorted_keys = of_row[order]
    rank = np.arange(order.shape[0]) - np.searchsorted(sorted_keys, sorted_keys)
    new = np.empty(order.shape[0], dtype=np.bool_)
    new[order] = rank >= times_seen[sorted_keys]
    return new


def _as_keys(digests: NDArray[np.uint8] | Sequence[bytes]) -> NDArray[np.void]:
    if not isinstance(digests, np.ndarray):
        digests = np.frombuffer(b"".join(digests), dtype=np.uint8)
    raw = np.ascontiguousarray(digests).view(np.uint8).reshape(-1)
    if raw.shape[0] % 16:
        raise InvalidInput("seen_row_digests must have 16 bytes each", field="seen_row_digests")
    # Pairs of integers compare and sort faster than raw bytes.
    return raw.view([("high", "<u8"), ("low", "<u8")])
