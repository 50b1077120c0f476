"""Fit of a calibrator by the name of its method, with a report; and cross-fitting."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.arrays.array_types import plain_array
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.logit_functions import Probabilities, prediction
from trueprob.arrays.logits import as_logits
from trueprob.calibrators import IdentityCalibrator
from trueprob.calibrators.input_stage import InputStage, mask_stage
from trueprob.errors import InvalidInput
from trueprob.findings.finding import Finding, Severity, SuspiciousSet
from trueprob.findings.set_check import check_fit, check_set
from trueprob.fitting.auto import SelectedCalibrator, out_of_fold_auto
from trueprob.fitting.methods import (
    fit_rows,
    keeps_prediction,
    method_for_set,
    needs_input_stage,
)
from trueprob.fitting.report import Fit, FitReport
from trueprob.folds import fold_groups, fold_of_rows
from trueprob.scores.classes import ClassScore, binary_score
from trueprob.scores.score import Scores, score

__all__ = ["cross_fit", "fit", "fit_calibration_set", "progress_of_part"]

N_FOLDS: Final = 5
MIN_CROSS_FIT_ROWS: Final = 10


def fit(
    logits: ArrayLike,
    labels: ArrayLike,
    method: str = "smart",
    *,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    ignore_label: float | str | None = None,
    seed: int = 0,
    keep_prediction: bool = False,
    allow_prediction_change: bool = False,
    select: str = "stack",
    mask_below: float | None = None,
    zeros: str = "learn",
) -> Fit:
    """Fit a calibrator and score it out of fold.

    Parameters
    ----------
    logits : array_like of shape (n, k)
        Of rows that the network was not trained on. With two classes also (n,) or (n, 1): the
        logit of class 1. For probabilities, convert them with `logits_from_probabilities` first.
        The columns of a table are matched with `class_names`, if it has those names.
    labels : array_like of shape (n,)
        Class indices, or class names.
    method : str
        One of `METHODS`. With two classes `smart` fits a `smart-binary`, which may change
        predictions and never the order of rows by P(class 1).
    weights : array_like of shape (n,), optional
        Only their ratios matter.
    groups : array_like of shape (n,), optional
        Rows of one group stay in one fold.
    class_names : sequence of k strings, optional
        In the order of the columns; the calibrator keeps them. By default the names of the columns
        of a table, if they do not only count.
    ignore_label : float or str, optional
        What stands for "no label", such as −100, or NaN for missing values: rows with it are left
        out, and a finding (`ignored_rows`) says how many.
    seed : int
        Of the folds, and of methods that draw random numbers.
    keep_prediction : bool
        Whether the prediction must stay the argmax of the logits: then `smart` does so with two
        classes as well, and methods that may change predictions are refused.
    allow_prediction_change : bool
        Whether `auto` may choose a method that changes predictions. It has no effect on other
        methods.
    select : {"stack", "simplest"}
        Of `auto`: mix the candidates, or take the simplest within one standard error of the best.
    mask_below : float, optional
        Logits at or below it, such as −1e9, mask their class, as minus infinity always does. The
        calibrator keeps it, and gives such classes a probability of exactly 0.
    zeros : {"learn", "mask"}
        What a probability of 0 is: a number whose frequency of labels is learnt, or a mask, which
        the calibrator keeps.

    Returns
    -------
    Fit

    Raises
    ------
    InvalidInput
        An array cannot be used, the method is unknown or for another number of classes,
        `keep_prediction` contradicts the method or `allow_prediction_change`, or `mask_below` or
        `zeros` masks a label or all classes of a row.

    Warns
    -----
    SuspiciousSet
        The set is very likely wrong: a finding of severity `hold`. All findings are in
        ``report.findings``.

    Examples
    --------
    >>> import numpy as np
    >>> logits = np.array([[4.0, 0.0], [3.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    >>> fitted = fit(logits, [0, 0, 1, 1], "temperature")
    >>> fitted.calibrator.predict_proba(logits).shape
    (4, 2)
    """
    arrays = {"logits": logits, "labels": labels, "weights": weights, "groups": groups}
    calibration_set = CalibrationSet.from_arrays(
        {name: array for name, array in arrays.items() if array is not None},
        class_names=class_names,
        ignore_label=ignore_label,
    )
    fitted = fit_calibration_set(
        calibration_set,
        method,
        seed=seed,
        keep_prediction=keep_prediction,
        allow_prediction_change=allow_prediction_change,
        select=select,
        masks=mask_stage(mask_below, zeros),
    )
    left_out = 0 if ignore_label is None else len(plain_array(labels)) - calibration_set.n
    if left_out:
        sentence = f"{left_out} rows have the label {ignore_label!r} and were left out"
        finding = Finding("ignored_rows", Severity.WARN, sentence)
        findings = (finding, *fitted.report.findings)
        fitted = replace(fitted, report=replace(fitted.report, findings=findings))
    for finding in fitted.report.findings:
        if finding.severity is Severity.HOLD:
            warnings.warn(str(finding), SuspiciousSet, stacklevel=2)
    return fitted


def fit_calibration_set(
    calibration_set: CalibrationSet,
    method: str = "smart",
    *,
    seed: int = 0,
    keep_prediction: bool = False,
    allow_prediction_change: bool = False,
    select: str = "stack",
    masks: InputStage | None = None,
) -> Fit:
    """`fit` for a checked calibration set; `masks` as `mask_stage` gives them."""
    unused: tuple[Finding, ...] = ()
    if masks is not None:
        calibration_set, unused = _masked(calibration_set, masks)
    allowed = {
        "keep_prediction": keep_prediction,
        "allow_prediction_change": allow_prediction_change,
    }
    method, replaced = method_for_set(method, calibration_set, **allowed)
    findings = (*unused, *check_set(calibration_set), *replaced)
    start = time.perf_counter()
    fitted = fit_rows(method, calibration_set, seed, select=select, **allowed)
    seconds = time.perf_counter() - start
    data = calibration_set
    before, binary_before = _score(
        IdentityCalibrator(data.n_classes).predict_proba(data.logits), data
    )
    if isinstance(fitted, SelectedCalibrator) and fitted.out_of_fold is not None:
        probabilities = fitted.out_of_fold
    elif data.n < MIN_CROSS_FIT_ROWS:
        findings = (_in_sample(data), *findings)
        probabilities = fitted.calibrator.predict_proba(data.logits)
    else:
        probabilities = cross_fit(
            method,
            data,
            seed=seed,
            keep_prediction=keep_prediction,
            allow_prediction_change=allow_prediction_change,
        )
    keeps = keeps_prediction(method, data.n_classes, **allowed)
    after, binary_after = _score(probabilities, data, keeps=keeps)
    report = FitReport(
        method=method,
        outcome=fitted.outcome,
        n=data.n,
        k=data.n_classes,
        seconds=seconds,
        findings=findings + check_fit(fitted, data),
        before=before,
        after=after,
        candidates=fitted.candidates if isinstance(fitted, SelectedCalibrator) else (),
        binary_before=binary_before,
        binary_after=binary_after,
    )
    # A posterior given the rows that were fitted: out-of-fold rows would have the errors of other
    # calibrators.
    return Fit(fitted.calibrator.with_masks(masks).with_uncertainty(data), report)


def cross_fit(
    method: str,
    calibration_set: CalibrationSet,
    *,
    n_folds: int = N_FOLDS,
    n_repeats: int = 1,
    seed: int = 0,
    keep_prediction: bool = False,
    allow_prediction_change: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Probabilities:
    """Out-of-fold probabilities: each row's calibrator was fitted without that row.

    `auto` is one cross-validation of its candidates: rows of a fold are mixed with weights from the
    other folds.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    calibration_set : CalibrationSet
    n_folds : int
        At least 2; lowered to the number of rows or groups. Folds are balanced in errors and
        keep groups whole.
    n_repeats : int
        Number of divisions into folds over which the probabilities are averaged.
    seed : int
        Division r uses ``seed + r``.
    keep_prediction, allow_prediction_change : bool
        As in `fit`.
    progress : callable, optional
        Called after each fold with the share of the work that is done, 0 to 1.

    Returns
    -------
    ndarray of shape (n, k), float32

    Raises
    ------
    InvalidInput
        As in `fit`; `n_folds` is below 2 or `n_repeats` below 1, or there is only one row or
        group.
    """
    if n_folds < 2 or n_repeats < 1:
        raise InvalidInput(
            f"n_folds must be at least 2 and n_repeats at least 1, got {n_folds} and {n_repeats}",
            field="n_folds",
        )
    data = calibration_set
    correct = prediction(data.logits) == data.labels
    groups = fold_groups(data.logits, data.groups)
    staged = needs_input_stage(method, data)  # which is learnt anew without each fold
    total: NDArray[np.float32] = np.zeros_like(data.logits)
    for repeat in range(n_repeats):
        fold = fold_of_rows(correct, groups, n_folds, seed=seed + repeat)
        if fold.max() == 0:
            raise InvalidInput(
                "cross-fitting needs at least two rows or groups, got one", field="groups"
            )
        part_done = progress_of_part(progress, repeat, n_repeats)
        if method == "auto" and not staged:
            total += out_of_fold_auto(
                as_logits(data.logits),
                data.labels,
                data.weights,
                seed=seed + repeat,
                groups=groups,
                keep_prediction=keep_prediction,
                allow_prediction_change=allow_prediction_change,
                n_folds=n_folds,
                progress=part_done,
            )
            continue
        folds = int(fold.max()) + 1
        for index in range(folds):
            held_out = fold == index
            part = data.subset(~held_out)
            fitted = fit_rows(
                method,
                part,
                seed + repeat,
                keep_prediction=keep_prediction,
                allow_prediction_change=allow_prediction_change,
            )
            total[held_out] += fitted.calibrator.predict_proba(data.logits[held_out])
            if part_done is not None:
                part_done((index + 1) / folds)
    return total / np.float32(n_repeats) if n_repeats > 1 else total


def progress_of_part(
    progress: Callable[[float], None] | None, index: int, count: int
) -> Callable[[float], None] | None:
    """Turn the progress of one of several equal parts into progress of the whole."""
    return None if progress is None else lambda share: progress((index + share) / count)


def _masked(data: CalibrationSet, masks: InputStage) -> tuple[CalibrationSet, tuple[Finding, ...]]:
    """The set with its masks, and a finding if there are none of that kind."""
    masked = masks.masked_set(data)
    if np.isneginf(masked.logits).sum() > np.isneginf(data.logits).sum():
        return masked, ()
    lowest = data.logits[np.isfinite(data.logits)].min()
    asked = f"mask_below {masks.mask_below:g}" if masks.mask_below is not None else 'zeros="mask"'
    sentence = f"{asked} masks nothing in this set, whose lowest logit is {lowest:g}"
    return masked, (Finding("masks_nothing", Severity.WARN, sentence),)


def _in_sample(data: CalibrationSet) -> Finding:
    sentence = f"only {data.n} rows: the scores after are in-sample, so they are too good"
    return Finding("in_sample", Severity.WARN, sentence)


def _score(
    probabilities: Probabilities, data: CalibrationSet, *, keeps: bool = True
) -> tuple[Scores, ClassScore | None]:
    given = {"prediction": prediction(data.logits) if keeps else None, "weights": data.weights}
    scores = score(probabilities, data.labels, **given)
    return scores, binary_score(probabilities, data.labels, **given)
