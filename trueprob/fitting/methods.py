"""The methods by name: the function that fits each, and whether it keeps the prediction."""

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
    fit_smart_matrix,
    fit_smart_mlp,
    fit_smart_vector,
    fit_temperature,
    fit_vector,
)
from trueprob.calibrators.input_stage import fit_input_stage
from trueprob.errors import InvalidInput
from trueprob.findings.finding import Finding, Severity
from trueprob.fitting.auto import WITH_INNER_FOLDS, fit_auto
from trueprob.folds import fold_groups

__all__ = ["FITTERS", "METHODS", "SCALE_ONLY", "fit_rows", "keeps_prediction", "method_for_set"]

FITTERS: Final[Mapping[str, Callable[..., FittedCalibrator]]] = MappingProxyType(
    {
        "auto": fit_auto,
        "identity": fit_identity,
        "isotonic": fit_isotonic,
        "smart": fit_smart,
        "smart-matrix": fit_smart_matrix,
        "smart-mlp": fit_smart_mlp,
        "smart-vector": fit_smart_vector,
        "temperature": fit_temperature,
        "vector": fit_vector,
    }
)
METHODS: Final = tuple(FITTERS)
SCALE_ONLY: Final = "smart"
# With two classes the others are functions of the logit difference, whose order must stay.
WITH_LINEAR_STAGE: Final = frozenset({"smart-matrix", "smart-vector", "vector"})


def fit_rows(
    method: str, data: CalibrationSet, seed: int = 0, *, allow_prediction_change: bool = False
) -> FittedCalibrator:
    """Fit by name without scores or cross-fitting; InvalidInput for an unknown method.

    Zero cells, masked classes and wild scales are the input stage's, before any method.
    """
    fitter = FITTERS.get(method)
    if fitter is None:
        raise InvalidInput(
            f"method must be one of {', '.join(METHODS)}, got {method[:40]!r}", field="method"
        )
    inner_folds = fitter is fit_auto or method in WITH_INNER_FOLDS
    if inner_folds:  # copies and grids show in the scores as they came
        data = replace(data, groups=fold_groups(data.logits, data.groups))
    cut = data.n_classes > 2 or method in WITH_LINEAR_STAGE
    stage, rows = None, data
    if _has_marks(data) or (cut and wild_bound(data.logits) is not None):
        stage, rows = fit_input_stage(data, cut=cut)
    options: dict[str, Any] = {"seed": seed}
    if inner_folds:
        options["groups"] = rows.groups
    if fitter is fit_auto:
        options["allow_prediction_change"] = allow_prediction_change
    fitted = fitter(rows.logits, rows.labels, rows.weights, **options)
    if data.class_names is None and stage is None:
        return fitted
    calibrator = replace(fitted.calibrator, class_names=data.class_names, input_stage=stage)
    return replace(fitted, calibrator=calibrator)


def _has_marks(data: CalibrationSet) -> bool:
    """Whether a row has a mask or a zero cell."""
    lowest = np.minimum.reduce(data.logits, axis=None)
    return bool(lowest == -np.inf or (lowest <= ZERO_CELL and (data.logits == ZERO_CELL).any()))


def keeps_prediction(method: str, allow_prediction_change: bool = False) -> bool:
    """Whether every calibrator that the method may return keeps the prediction."""
    # Kinds are named like the methods that fit them; `auto` is not a kind.
    if method in KINDS:
        return KINDS[method].preserves_prediction
    return not allow_prediction_change


def method_for_set(
    method: str, data: CalibrationSet, *, allow_prediction_change: bool = False
) -> tuple[str, tuple[Finding, ...]]:
    """The method to fit with, and a finding if it is not the one that was asked for.

    From labels of one class, a method that may change predictions learns to predict that class.
    """
    labels = data.labels if data.weights is None else data.labels[data.weights > 0.0]
    one_class = labels.size > 0 and labels.min() == labels.max()
    known = method in METHODS
    if not one_class or not known or keeps_prediction(method, allow_prediction_change):
        return method, ()
    sentence = (
        f"all labels are {labels[0]}: {SCALE_ONLY} was fitted in place of {method}, which could "
        "have learnt to predict only that class"
    )
    return SCALE_ONLY, (Finding("scale_only", Severity.WARN, sentence),)
