"""Calibrated probabilities for existing classifiers.

    fitted = trueprob.fit(logits, labels)
    probabilities = fitted.calibrator.predict_proba(new_logits)

Each name is loaded at first use (PEP 562), so `import trueprob` is fast. All names load with NumPy
alone; SciPy is loaded by the functions that need it.
"""

from __future__ import annotations

import importlib
from typing import Any

# The module of each public name; `__init__.pyi` repeats it for type checkers.
_HOMES = {
    "trueprob.admission.decision": ("admit",),
    "trueprob.arrays.files": ("read_arrays",),
    "trueprob.arrays.logits": (
        "as_logits",
        "logits_from_log_probabilities",
        "logits_from_probabilities",
    ),
    "trueprob.repository.baseline": ("Baseline",),
    "trueprob.scores.binned": ("BinnedCalibration",),
    "trueprob.arrays.calibration_set": (
        "CalibrationSet",
        "load_calibration_set",
    ),
    "trueprob.calibrators": (
        "Calibrator",
        "FitOutcome",
        "FittedOn",
        "IdentityCalibrator",
        "IsotonicCalibrator",
        "SmartBinaryCalibrator",
        "SmartCalibrator",
        "SmartMatrixCalibrator",
        "SmartMlpCalibrator",
        "SmartVectorCalibrator",
        "StackCalibrator",
        "TemperatureCalibrator",
        "VectorCalibrator",
        "dumps_calibrator",
        "from_dict",
        "loads_calibrator",
        "to_dict",
    ),
    "trueprob.scores.classes": (
        "ClassScore",
        "class_scores",
    ),
    "trueprob.drift": (
        "BetState",
        "CalibrationBets",
        "ChangeDetector",
        "Comparison",
        "ComparisonState",
        "Evidence",
        "Factors",
        "ReferenceBins",
        "UnlabelledTraffic",
        "top_label_brier",
    ),
    "trueprob.calibrators.uncertainty": (
        "ProbabilityInterval",
        "Uncertainty",
    ),
    "trueprob.errors": (
        "DigestMismatch",
        "InvalidDocument",
        "InvalidInput",
        "ModelVersionNotFound",
        "TrueprobError",
        "VersionExists",
    ),
    "trueprob.findings.finding": (
        "Finding",
        "Repair",
        "Severity",
        "SuspiciousSet",
    ),
    "trueprob.findings.set_check": ("check_set",),
    "trueprob.fitting.report": (
        "Fit",
        "FitReport",
    ),
    "trueprob.fitting.fit": (
        "cross_fit",
        "fit",
    ),
    "trueprob.arrays.labels": (
        "Labels",
        "as_labels",
    ),
    "trueprob.arrays.logit_functions": (
        "Logits",
        "Probabilities",
        "log_softmax",
        "logit_gap",
        "prediction",
        "softmax",
    ),
    "trueprob.label_shift.class_prior": (
        "PriorEstimate",
        "adapt_to_class_prior",
        "estimate_class_prior",
    ),
    "trueprob.label_shift.label_shift_check": (
        "LabelShift",
        "LabelShiftCheck",
        "check_label_shift",
    ),
    "trueprob.repository.manifest": (
        "InputSpec",
        "Manifest",
    ),
    "trueprob.fitting.methods": ("METHODS",),
    "trueprob.repository.model_version": ("ModelVersion",),
    "trueprob.repository.model_repository": ("ModelRepository",),
    "trueprob.scores.details": (
        "DetailedScores",
        "detailed_scores",
    ),
    "trueprob.scores.interval": (
        "Interval",
        "bootstrap_interval",
    ),
    "trueprob.scores.score": (
        "Scores",
        "adaptive_calibration_error",
        "brier_score",
        "classwise_calibration_error",
        "confidence_auroc",
        "expected_calibration_error",
        "maximum_calibration_error",
        "mean_entropy",
        "negative_log_likelihood",
        "score",
    ),
    "trueprob.admission.verdict": ("Verdict",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "METHODS",
    "Baseline",
    "BetState",
    "BinnedCalibration",
    "CalibrationBets",
    "CalibrationSet",
    "Calibrator",
    "ChangeDetector",
    "ClassScore",
    "Comparison",
    "ComparisonState",
    "DetailedScores",
    "DigestMismatch",
    "Evidence",
    "Factors",
    "Finding",
    "Fit",
    "FitOutcome",
    "FitReport",
    "FittedOn",
    "IdentityCalibrator",
    "InputSpec",
    "Interval",
    "InvalidDocument",
    "InvalidInput",
    "IsotonicCalibrator",
    "LabelShift",
    "LabelShiftCheck",
    "Labels",
    "Logits",
    "Manifest",
    "ModelRepository",
    "ModelVersion",
    "ModelVersionNotFound",
    "PriorEstimate",
    "Probabilities",
    "ProbabilityInterval",
    "ReferenceBins",
    "Repair",
    "Scores",
    "Severity",
    "SmartBinaryCalibrator",
    "SmartCalibrator",
    "SmartMatrixCalibrator",
    "SmartMlpCalibrator",
    "SmartVectorCalibrator",
    "StackCalibrator",
    "SuspiciousSet",
    "TemperatureCalibrator",
    "TrueprobError",
    "Uncertainty",
    "UnlabelledTraffic",
    "VectorCalibrator",
    "Verdict",
    "VersionExists",
    "__version__",
    "adapt_to_class_prior",
    "adaptive_calibration_error",
    "admit",
    "as_labels",
    "as_logits",
    "bootstrap_interval",
    "brier_score",
    "check_label_shift",
    "check_set",
    "class_scores",
    "classwise_calibration_error",
    "confidence_auroc",
    "cross_fit",
    "detailed_scores",
    "dumps_calibrator",
    "estimate_class_prior",
    "expected_calibration_error",
    "fit",
    "from_dict",
    "load_calibration_set",
    "loads_calibrator",
    "log_softmax",
    "logit_gap",
    "logits_from_log_probabilities",
    "logits_from_probabilities",
    "maximum_calibration_error",
    "mean_entropy",
    "negative_log_likelihood",
    "prediction",
    "read_arrays",
    "score",
    "softmax",
    "to_dict",
    "top_label_brier",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    """The installed version, read at first use: importlib.metadata is slow to import."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("trueprob")
    except PackageNotFoundError:  # run from a source tree
        return "0.0.0"
