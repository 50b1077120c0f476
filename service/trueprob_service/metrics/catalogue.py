"""Declares every metric that the service exports, in one table.

Tests compare docs/metrics.md, the alert rules and the dashboard with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

__all__ = [
    "CLASS_COUNTERS",
    "DELIVERIES",
    "EVENT_KINDS",
    "FAULTS_OF",
    "LABEL_OUTCOMES",
    "METRICS",
    "PREFIX",
    "REFUSALS",
    "RETIRED",
    "Metric",
    "MetricsDetail",
]

MetricsDetail = Literal["auto", "full", "summary"]


@dataclass(frozen=True)
class Metric:
    """Declaration of one metric."""

    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    # Queries sum the counts of all replicas. Values from the database are the same in all replicas,
    # so queries take their maximum.
    owner: Literal["process", "database"]
    help: str
    buckets: tuple[float, ...] = ()  # upper bounds of a histogram, without +Inf

    @property
    def full_only(self) -> bool:
        """Whether ``metrics_detail=summary`` leaves it out: many series for each model."""
        of_model = "model" in self.labels and self.kind == "histogram"
        return of_model or "bin" in self.labels or "class" in self.labels


PREFIX: Final = "trueprob_"
# Version and calibrator of the sum over the replaced calibrators of a model that have no series of
# their own any more.
RETIRED: Final = ("all", "retired")
# Outcomes of a label (described in docs/http-api.md).
LABEL_OUTCOMES: Final = (
    "accepted",
    "duplicate",
    "expired",
    "forged",
    "foreign",
    "unknown_class",
    "superseded",
    "capped",
    "replaced",
    "unknown_id",
    "conflict",
)
# Kinds of webhook events (described in docs/http-api.md).
EVENT_KINDS: Final = (
    "alarm.raised",
    "calibrator.promoted",
    "candidate.admitted",
    "candidate.held",
    "candidate.refused",
    "shadow.decided",
)
# Numbers of classes with which a model has counters for each predicted class.
CLASS_COUNTERS: Final = range(3, 17)
# Why a request was refused before it reached a route (described in docs/metrics.md).
# Outcomes of inspections. `failed`: in an ordinary way; `machine`: it could not be finished here.
INSPECTIONS: Final = ("passed", "failed", "memory", "time", "files", "crash", "machine")
REFUSALS: Final = (
    "no_key",
    "unknown_key",
    "expired_key",
    "revoked_key",
    "token",
    "scope",
    "model",
    "origin",
    "rate",
    "wrong_keys",
)
DELIVERIES: Final = ("delivered", "failed", "dead")
# Component → what may be wrong with it.
FAULTS_OF: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "database": (
            "disk_full",
            "read_only",
            "locked",
            "damaged",
            "replaced",
            "io_error",
            "hung",
            "unreachable",
        ),
        "files": ("disk_full", "read_only", "replaced", "io_error"),
    }
)

_PAIR: Final = ("model", "version", "calibrator")
_BIN: Final = (*_PAIR, "bin", "predicted")  # `predicted` with two classes only
_CLASS: Final = (*_PAIR, "class")
_SHADOW: Final = (*_PAIR, "role")
_FIT: Final = ("model", "method", "outcome")
# A small request of logits takes half a millisecond; no client waits longer than ten seconds.
_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
# Each model has the following, so they are short: with 16 classes a model has 250 series.
_BATCH_SECONDS: Final = (0.001, 0.005, 0.025, 0.1, 0.5)
_LAG_SECONDS: Final = (10.0, 600.0, 3600.0, 86400.0, 7 * 86400.0)
_ROWS: Final = (1.0, 4.0, 16.0, 64.0, 256.0)
_GAP_NATS: Final = (1.0, 2.0, 4.0, 8.0, 16.0)
_TEMPERATURE: Final = (0.5, 1.0, 1.5, 2.0, 3.0)
# The bins of the ECE, so that the two can be compared.
_CONFIDENCE: Final = tuple(round(bin_ / 15, 6) for bin_ in range(1, 16))

METRICS: Final[Mapping[str, Metric]] = MappingProxyType(
    {
        "request_duration_seconds": Metric(
            "histogram",
            ("route", "status"),
            "process",
            "Time from the first byte of a request to the last byte of its answer.",
            _SECONDS,
        ),
        "refused_requests_total": Metric(
            "counter",
            ("reason",),
            "process",
            "Requests refused for their key, its scope, models or rate, or for their origin.",
        ),
        "api_keys_file_damaged": Metric(
            "gauge",
            (),
            "process",
            "1 while api_keys_file cannot be used and the keys from before stay valid, else 0.",
        ),
        "connections": Metric("gauge", ("state",), "process", "Open connections."),
        "connection_refusals_total": Metric(
            "counter",
            ("reason",),
            "process",
            "Connections and requests that were refused by a limit of connections.",
        ),
        "predictions_total": Metric(
            "counter", _PAIR, "process", "Rows answered with calibrated probabilities."
        ),
        "inference_duration_seconds": Metric(
            "histogram", ("model",), "process", "Time of one batch in the network.", _BATCH_SECONDS
        ),
        "queue_delay_seconds": Metric(
            "histogram",
            ("model",),
            "process",
            "Time that a request's images waited for the network.",
            _BATCH_SECONDS,
        ),
        "batch_rows": Metric(
            "histogram", ("model",), "process", "Images run through the network at once.", _ROWS
        ),
        "queue_rows": Metric("gauge", ("model",), "process", "Images waiting for the network now."),
        "logit_gap": Metric(
            "histogram",
            _PAIR,
            "process",
            "Difference of the two largest logits of answered rows, in nats.",
            _GAP_NATS,
        ),
        "temperature": Metric(
            "histogram", _PAIR, "process", "Per-row temperature of answered rows.", _TEMPERATURE
        ),
        "confidence": Metric(
            "histogram",
            _PAIR,
            "process",
            "Calibrated confidence of answered rows.",
            _CONFIDENCE,
        ),
        "mean_entropy_nats": Metric(
            "gauge",
            _PAIR,
            "process",
            "Mean entropy of recent answers (up to 16 rows of each request).",
        ),
        "expected_accuracy_ratio": Metric(
            "gauge", _PAIR, "process", "Mean calibrated confidence of recent answers."
        ),
        "expected_accuracy_low_ratio": Metric(
            "gauge",
            _PAIR,
            "process",
            "Lower end of the interval that has the accuracy of recent answers in 9 of 10 cases.",
        ),
        "expected_accuracy_high_ratio": Metric(
            "gauge",
            _PAIR,
            "process",
            "Upper end of the interval that has the accuracy of recent answers in 9 of 10 cases.",
        ),
        "gap_shift_ratio": Metric(
            "gauge",
            _PAIR,
            "process",
            "PSI of recent logit gaps against the calibration split, divided by its noise.",
        ),
        "confidence_shift_ratio": Metric(
            "gauge",
            _PAIR,
            "process",
            "The same ratio for the confidence, while the factory calibrator is live.",
        ),
        "bin_labels_total": Metric(
            "counter", _BIN, "database", "Labels counted, by confidence bin."
        ),
        "bin_confidence_total": Metric(
            "counter", _BIN, "database", "Sum of the confidence of labelled rows."
        ),
        "bin_correct_total": Metric(
            "counter", _BIN, "database", "Labelled rows whose prediction was right."
        ),
        "bin_variance_total": Metric(
            "counter",
            _BIN,
            "database",
            "Sum of confidence × (1 − confidence) of labelled rows.",
        ),
        "class_labels_total": Metric(
            "counter", _CLASS, "database", "Labels counted, by predicted class."
        ),
        "class_confidence_total": Metric(
            "counter", _CLASS, "database", "Sum of the confidence of labelled rows."
        ),
        "class_correct_total": Metric(
            "counter", _CLASS, "database", "Labelled rows whose prediction was right."
        ),
        "class_squared_total": Metric(
            "counter", _CLASS, "database", "Sum of (correct − confidence)² of labelled rows."
        ),
        "ece_ratio": Metric(
            "gauge",
            _PAIR,
            "database",
            "Expected calibration error over the last labels, as a fraction.",
        ),
        "ece_floor_ratio": Metric(
            "gauge",
            _PAIR,
            "database",
            "The error that a perfectly calibrated model would show on as many labels.",
        ),
        "calibration_drift_ratio": Metric(
            "gauge",
            _PAIR,
            "database",
            "ECE divided by its noise floor; an indicator, not for alerts.",
        ),
        "observed_accuracy_ratio": Metric(
            "gauge", _PAIR, "database", "Share of right predictions among the last labels."
        ),
        "tolerance_ratio": Metric(
            "gauge", _PAIR, "database", "Calibration error that is not worth an alarm."
        ),
        "verdict": Metric(
            "gauge",
            _PAIR,
            "database",
            "What the labels prove: 0 within_tolerance, 1 unknown, 2 changed_lately, 3 off.",
        ),
        "error_low_ratio": Metric(
            "gauge", _PAIR, "database", "Lower end of the verdict's interval of the error."
        ),
        "error_high_ratio": Metric(
            "gauge", _PAIR, "database", "Upper end of the verdict's interval of the error."
        ),
        "error_labels": Metric(
            "gauge", _PAIR, "database", "Labels that the verdict's interval is computed from."
        ),
        "labels_needed": Metric(
            "gauge", _PAIR, "database", "About how many more labels decide; while unknown."
        ),
        "class_error_ratio": Metric(
            "gauge", _PAIR, "database", "Gap of confidence and accuracy by predicted class, mean."
        ),
        "class_error_floor_ratio": Metric(
            "gauge",
            _PAIR,
            "database",
            "The class error that a perfectly calibrated model would show on as many labels.",
        ),
        "class_error_low_ratio": Metric(
            "gauge", _PAIR, "database", "Lower end of the interval of the class error."
        ),
        "class_error_high_ratio": Metric(
            "gauge", _PAIR, "database", "Upper end of the interval of the class error."
        ),
        "classes_off": Metric(
            "gauge",
            _PAIR,
            "database",
            "Predicted classes that are proven to be off by more than the class tolerance.",
        ),
        "evidence_log10": Metric(
            "gauge",
            _PAIR,
            "database",
            "Evidence since the promotion that confidence is wrong by more than the tolerance.",
        ),
        "evidence_threshold_log10": Metric(
            "gauge", _PAIR, "database", "Value of evidence from which an alarm is raised."
        ),
        "change_log10": Metric(
            "gauge",
            _PAIR,
            "database",
            "Evidence that confidence has just become wrong by more than the tolerance.",
        ),
        "change_threshold_log10": Metric(
            "gauge", _PAIR, "database", "Value of change from which an alarm is raised."
        ),
        "alarms_total": Metric(
            "counter", ("model", "statistic"), "database", "Alarms raised, by statistic."
        ),
        "labels_total": Metric(
            "counter", ("model", "outcome"), "process", "Labels received, by outcome."
        ),
        "label_lag_seconds": Metric(
            "histogram",
            ("model", "outcome"),
            "process",
            "Time from a prediction to its label.",
            _LAG_SECONDS,
        ),
        "remembered_total": Metric(
            "counter", (), "process", "Predictions with ids that were stored to be found by them."
        ),
        "remembered_dropped_total": Metric(
            "counter",
            (),
            "process",
            "Predictions with ids that were answered and not remembered: too many waited.",
        ),
        "remembered_forgotten_total": Metric(
            "counter",
            (),
            "process",
            "Predictions forgotten before their time, for remember_max_bytes.",
        ),
        "remembered_lag_seconds": Metric(
            "gauge",
            (),
            "process",
            "How long predictions with ids have been waiting for the database, else 0.",
        ),
        "remembered_rows": Metric(
            "gauge", ("model",), "database", "Predictions with ids that are remembered."
        ),
        "remembered_bytes": Metric(
            "gauge", ("model",), "database", "Size of the remembered predictions, about."
        ),
        "remembered_oldest_timestamp_seconds": Metric(
            "gauge",
            ("model",),
            "database",
            "The hour of the oldest remembered prediction, in seconds since 1970 UTC.",
        ),
        "fits_total": Metric("counter", _FIT, "database", "Fits that ended, by outcome."),
        "fit_queue": Metric("gauge", ("model", "method"), "database", "Fits that wait or run."),
        "promotions_total": Metric(
            "counter",
            _FIT,
            "database",
            "Promotions; method is the calibrator's kind, outcome is the cause.",
        ),
        "refits_total": Metric(
            "counter",
            ("model", "trigger", "outcome"),
            "database",
            "Fits of the refit policy that ended, by trigger.",
        ),
        "baseline_ece_ratio": Metric(
            "gauge", _PAIR, "database", "ECE of the version on its own calibration split."
        ),
        "shadow_better_log10": Metric(
            "gauge", _SHADOW, "database", "Evidence that the calibrator in shadow is better."
        ),
        "shadow_worse_log10": Metric(
            "gauge", _SHADOW, "database", "Evidence that the calibrator in shadow is worse."
        ),
        "shadow_threshold_log10": Metric(
            "gauge", _SHADOW, "database", "Value that either evidence must reach to decide."
        ),
        "webhook_waiting": Metric(
            "gauge", ("kind",), "database", "Events that the webhook has not taken yet."
        ),
        "webhook_deliveries_total": Metric(
            "counter",
            ("kind", "outcome"),
            "process",
            "Attempts to deliver an event: delivered, failed, or dead after the last one.",
        ),
        "degraded": Metric(
            "gauge",
            ("component", "fault"),
            "process",
            "1 while the database or the state folder has this fault, else 0.",
        ),
        "statistics_timestamp_seconds": Metric(
            "gauge",
            (),
            "process",
            "When the statistics of the database were read, in seconds since 1970 UTC.",
        ),
        "version_unavailable": Metric(
            "gauge",
            ("model", "version"),
            "process",
            "1 for each version that is refused here, or whose network does not run.",
        ),
        "network_inspections_total": Metric(
            "counter",
            ("outcome",),
            "process",
            "Networks that were inspected before they were loaded, or whose verdict was known.",
        ),
        "calibrator_info": Metric(
            "gauge", (*_PAIR, "kind", "revision"), "process", "1 for each live pair."
        ),
        "network_info": Metric(
            "gauge",
            ("model", "version", "provider"),
            "process",
            "1 for each loaded network; provider is the execution provider that runs it.",
        ),
        "metrics_detail_info": Metric(
            "gauge", ("detail",), "process", "1; detail is full or summary."
        ),
        "build_info": Metric(
            "gauge", ("version", "commit"), "process", "1; the labels name the build."
        ),
    }
)
