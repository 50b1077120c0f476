"""The methods by name: the function that fits each, and whether it keeps the prediction.

With two classes the method `smart` fits a calibrator of the kind `smart-binary`, unless the
prediction must be kept. That kind never changes the order of the rows, so it needs no permission to
move the threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.logit_functions import wild_bound
from trueprob.arrays.logits import ZERO_CELL
from trueprob.calibrators import (
    KINDS,
    FittedCalibrator,
    fit_identity,
    fit_isotonic,
    fit_smart,
    fit_smart_binary,
    fit_smart_matrix,
    fit_smart_mlp,
    fit_smart_vector,
    fit_temperature,
    fit_vector,
)
from trueprob.calibrators.input_stage import fit_input_stage
from trueprob.errors import InvalidInput
from trueprob.findings.finding import Finding, Severity
from trueprob.fitting.auto import CONTRADICTION, SelectedCalibrator, fit_auto
from trueprob.folds import fold_groups

__all__ = [
    "BINARY",
    "FITTERS",
    "METHODS",
    "SCALE_ONLY",
    "fit_rows",
    "keeps_prediction",
    "method_for_classes",
    "method_for_set",
    "needs_input_stage",
    "needs_permission",
]

FITTERS: Final[Mapping[str, Callable[..., FittedCalibrator]]] = MappingProxyType(
    {
        "auto": fit_auto,
        "identity": fit_identity,
        "isotonic": fit_isotonic,
        "smart": fit_smart,
        "smart-binary": fit_smart_binary,
        "smart-matrix": fit_smart_matrix,
        "smart-mlp": fit_smart_mlp,
        "smart-vector": fit_smart_vector,
        "temperature": fit_temperature,
        "vector": fit_vector,
    }
)
METHODS: Final = tuple(FITTERS)
SCALE_ONLY: Final = "smart"
BINARY: Final = "smart-binary"
# With two classes the others are functions of the logit difference, whose order must stay.
WITH_LINEAR_STAGE: Final = frozenset({"smart-matrix", "smart-vector", "vector"})
# These methods hold rows out themselves, so they need the groups.
WITH_INNER_FOLDS: Final = frozenset({"smart", BINARY, "vector", "smart-vector", "smart-matrix"})


def method_for_classes(method: str, n_classes: int, *, keep_prediction: bool = False) -> str:
    """The method by its own name: `smart` is `smart-binary` for two classes, unless it must keep.

    Raises InvalidInput for an unknown method, for `smart-binary` with other than two classes, and
    for a method that may change predictions where they must be kept.
    """
    if method not in METHODS:
        raise InvalidInput(
            f"method must be one of {', '.join(METHODS)}, got {method[:40]!r}", field="method"
        )
    if method == BINARY and n_classes != 2:
        raise InvalidInput(
            f"method {BINARY} is for two classes, got {n_classes}: use smart", field="method"
        )
    if keep_prediction and method in KINDS and not KINDS[method].preserves_prediction:
        raise InvalidInput(
            f"method {method} may change predictions: take another one, or leave out "
            "keep_prediction",
            field="keep_prediction",
        )
    return BINARY if method == "smart" and n_classes == 2 and not keep_prediction else method


def fit_rows(
    method: str,
    data: CalibrationSet,
    seed: int = 0,
    *,
    keep_prediction: bool = False,
    allow_prediction_change: bool = False,
    select: str = "stack",  # of `auto`
) -> FittedCalibrator:
    """Fit by name without scores or cross-fitting; InvalidInput as in `trueprob.fit`.

    Zero cells, masked classes and wild scales are the input stage's, before any method.
    """
    if keep_prediction and allow_prediction_change:
        raise InvalidInput(CONTRADICTION, field="keep_prediction")
    method = method_for_classes(method, data.n_classes, keep_prediction=keep_prediction)
    fitter = FITTERS[method]
    inner_folds = fitter is fit_auto or method in WITH_INNER_FOLDS
    if inner_folds:  # copies and grids show in the scores as they came
        data = replace(data, groups=fold_groups(data.logits, data.groups))
    stage, rows = None, data
    if needs_input_stage(method, data):
        stage, rows = fit_input_stage(data, cut=_cuts(method, data))
    options: dict[str, Any] = {"seed": seed}
    if inner_folds:
        options["groups"] = rows.groups
    if fitter is fit_auto:
        options["keep_prediction"] = keep_prediction
        options["allow_prediction_change"] = allow_prediction_change
        options["select"] = select
    fitted = fitter(rows.logits, rows.labels, rows.weights, **options)
    if isinstance(fitted, SelectedCalibrator) and rows is not data:
        fitted = replace(fitted, out_of_fold=None)  # it lacks the input stage, and some rows
    if data.class_names is None and stage is None:
        return fitted
    calibrator = replace(fitted.calibrator, class_names=data.class_names, input_stage=stage)
    return replace(fitted, calibrator=calibrator)


def needs_input_stage(method: str, data: CalibrationSet) -> bool:
    """Whether a row has a mask or a zero cell, or a wild scale is to be cut."""
    logits = data.logits
    lowest = np.minimum.reduce(logits, axis=None)
    if lowest == -np.inf or (lowest <= ZERO_CELL and (logits == ZERO_CELL).any()):
        return True
    return _cuts(method, data) and wild_bound(logits) is not None


def _cuts(method: str, data: CalibrationSet) -> bool:
    return data.n_classes > 2 or method in WITH_LINEAR_STAGE


def keeps_prediction(
    method: str,
    n_classes: int,
    *,
    keep_prediction: bool = False,
    allow_prediction_change: bool = False,
) -> bool:
    """Whether every calibrator that the method may return keeps the prediction."""
    method = method_for_classes(method, n_classes, keep_prediction=keep_prediction)
    # Kinds are named like the methods that fit them; `auto` is not a kind.
    if method in KINDS:
        return KINDS[method].preserves_prediction
    # With two classes `auto` mixes what keeps the order of rows, with `smart-binary` among it.
    return keep_prediction or not (allow_prediction_change or n_classes == 2)


def needs_permission(method: str) -> bool:
    """Whether a calibrator of the method may change both the prediction and the order of rows."""
    kind = KINDS.get(method)
    return kind is not None and not (kind.preserves_prediction or kind.preserves_ranking)


def method_for_set(
    method: str,
    data: CalibrationSet,
    *,
    keep_prediction: bool = False,
    allow_prediction_change: bool = False,
) -> tuple[str, tuple[Finding, ...]]:
    """The method to fit with, by its own name, and a finding if the set allows only a scale.

    From labels of one class, a method that may change predictions learns to predict that class.
    """
    k = data.n_classes
    method = method_for_classes(method, k, keep_prediction=keep_prediction)
    labels = data.labels if data.weights is None else data.labels[data.weights > 0.0]
    one_class = labels.size > 0 and labels.min() == labels.max()
    change = allow_prediction_change
    if not one_class or keeps_prediction(
        method, k, keep_prediction=keep_prediction, allow_prediction_change=change
    ):
        return method, ()
    if method == BINARY:
        sentence = (
            f"all labels are {labels[0]}: only the scale was fitted, because an offset between the "
            "classes could have learnt to predict only that class"
        )
        return method, (Finding("scale_only", Severity.WARN, sentence),)
    sentence = (
        f"all labels are {labels[0]}: {SCALE_ONLY} was fitted in place of {method}, which could "
        "have learnt to predict only that class"
    )
    replaced = method_for_classes(SCALE_ONLY, k)
    return replaced, (Finding("scale_only", Severity.WARN, sentence),)
