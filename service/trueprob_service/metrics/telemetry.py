"""Exports all metrics of one process; the only module that imports `prometheus_client`.

Counts of requests, batches and label outcomes are metrics of the client library. Row metrics come
from `trueprob_service.metrics.row_meters`. Statistics of labels, fits and promotions are read from
the database at every scrape, so that a restart resets nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from trueprob.drift import VerdictState
from trueprob_service.metrics.catalogue import (
    DELIVERIES,
    EVENT_KINDS,
    LABEL_OUTCOMES,
    METRICS,
    PREFIX,
)
from trueprob_service.metrics.label_statistics import ControlStatistics, PairStatistics
from trueprob_service.metrics.recent_traffic import RECENT, RecentTraffic, TrafficReference
from trueprob_service.metrics.row_meters import DeploymentMeters, RecentRows, RowHistogram

__all__ = [
    "METRICS",
    "DeploymentMeters",
    "Registry",
    "Telemetry",
    "add_figure",
    "add_histogram",
    "counter_family",
    "declared",
    "gauge_family",
    "histogram_family",
    "statistics_families",
]

Registry = CollectorRegistry
# No `_created` series for each counter. The client library has only a switch for the process.
disable_created_metrics()  # type: ignore[no-untyped-call]
# The worst of several verdicts is their maximum.
VERDICT_VALUES = {state: value for value, state in enumerate(VerdictState)}


class Telemetry(Collector):
    """All metrics of a process. One method for each event that is counted."""

    def __init__(
        self, *, version: str, commit: str, registry: CollectorRegistry | None = None
    ) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._deployments: dict[tuple[str, str, str], DeploymentMeters] = {}
        self._recent_rows: dict[tuple[str, int], RecentRows] = {}
        self._live: dict[str, tuple[tuple[str, str, str], tuple[str, str]]] = {}
        self._lag: dict[tuple[str, str], RowHistogram] = {}
        self._statistics: Callable[[], ControlStatistics] = ControlStatistics
        self._tolerance = 0.0
        self._request_duration = self._histogram("request_duration_seconds")
        self._of_route: dict[tuple[str, int], Histogram] = {}
        self._inference_duration = self._histogram("inference_duration_seconds")
        self._queue_delay = self._histogram("queue_delay_seconds")
        self._batch_rows = self._histogram("batch_rows")
        self._queue_rows = Gauge(*declared("queue_rows"), registry=self.registry)
        self._labels = Counter(*declared("labels_total"), registry=self.registry)
        self._sent = Counter(*declared("webhook_deliveries_total"), registry=self.registry)
        for kind, outcome in itertools.product(EVENT_KINDS, DELIVERIES):
            self._sent.labels(kind, outcome)
        self._network_info = Gauge(*declared("network_info"), registry=self.registry)
        build_info = Gauge(*declared("build_info"), registry=self.registry)
        build_info.labels(version, commit).set(1)
        self.registry.register(self)

    def _histogram(self, name: str) -> Histogram:
        buckets = METRICS[name].buckets
        return Histogram(*declared(name), buckets=buckets, registry=self.registry)

    # ----- Events of this process -----

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is a template such as ``/v1/models/{model}``."""
        child = self._of_route.get((route, status))
        if child is None:  # looking up labels costs more than the observation
            child = self._of_route[route, status] = self._request_duration.labels(
                route, str(status)
            )
        child.observe(seconds)

    def observe_batch(
        self, model: str, *, rows: int, seconds: float, delays: Iterable[float], waiting: int
    ) -> None:
        """Count one batch of a network: its rows, its time and how long its requests waited."""
        self._batch_rows.labels(model).observe(rows)
        self._inference_duration.labels(model).observe(seconds)
        delay = self._queue_delay.labels(model)
        for seconds_waited in delays:
            delay.observe(seconds_waited)
        self._queue_rows.labels(model).set(waiting)

    def name_provider(self, model: str, version: int, provider: str) -> None:
        """Export the execution provider that runs a version's network."""
        self._network_info.labels(model, str(version), provider).set(1)

    def count_labels(
        self, model: str, outcome: str, n: int, lag_seconds: Sequence[float] = ()
    ) -> None:
        """Count n labels with one outcome, and the times since their predictions."""
        self._labels.labels(model, outcome).inc(n)
        if len(lag_seconds):
            histogram = self._lag.get((model, outcome))
            if histogram is None:
                histogram = RowHistogram(METRICS["label_lag_seconds"].buckets)
                self._lag[model, outcome] = histogram
            histogram.add(np.asarray(lag_seconds, np.float64))

    def count_delivery(self, kind: str, outcome: str) -> None:
        """Count one attempt to deliver an event to the webhook."""
        self._sent.labels(kind, outcome).inc()

    def meters_for(
        self,
        model: str,
        version: int,
        calibrator: str,
        kind: str,
        revision: int | None,
        reference: TrafficReference | None = None,
    ) -> DeploymentMeters:
        """Row metrics of a deployment; with a revision, it becomes the model's live pair."""
        labels = (model, str(version), calibrator)
        meters = self._deployments.get(labels)
        if meters is None:
            recent = RecentTraffic.compared_with(reference, calibrator)
            rows = self._recent_rows.setdefault((model, version), RecentRows())
            meters = self._deployments.setdefault(labels, DeploymentMeters(recent, rows))
        for outcome in LABEL_OUTCOMES:
            # Exported from 0 on: increase() does not see the first value of a counter.
            self._labels.labels(model, outcome)
        if revision is not None:
            self._live[model] = (labels, (kind, str(revision)))
        return meters

    def remove_live_pair(self, model: str) -> None:
        """Stop exporting a live pair for a model that was deleted; its counters stay."""
        self._live.pop(model, None)
        for labels, meters in list(self._deployments.items()):
            if labels[0] == model:
                meters.forget_rows()

    def export_statistics(
        self, statistics: Callable[[], ControlStatistics], *, tolerance: float
    ) -> None:
        """Export statistics that a function reads from the database at every scrape."""
        self._statistics = statistics
        self._tolerance = tolerance

    def exposition(self) -> tuple[bytes, str]:
        """The body of ``/metrics`` and its Content-Type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    # ----- Reading by Prometheus -----

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering does not read the database yet."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Yield row metrics, live pairs and the statistics from the database."""
        yield from self._collect_rows()
        yield from statistics_families(self._statistics(), tolerance=self._tolerance)

    def _collect_rows(self) -> Iterable[Metric]:
        predictions = counter_family("predictions_total")
        histograms = {
            name: histogram_family(name) for name in ("logit_gap", "temperature", "confidence")
        }
        for labels, meters in list(self._deployments.items()):
            meters.fold()
            predictions.add_metric(labels, meters.predictions)
            add_histogram(histograms["logit_gap"], labels, meters.gap)
            add_histogram(histograms["temperature"], labels, meters.temperature)
            add_histogram(histograms["confidence"], labels, meters.confidence)
        yield predictions
        yield from histograms.values()
        lag = histogram_family("label_lag_seconds")
        for key, histogram in list(self._lag.items()):
            add_histogram(lag, key, histogram)
        yield lag
        info = gauge_family("calibrator_info")
        recent = {name: gauge_family(name) for name in RECENT}
        for labels, kind_and_revision in list(self._live.values()):
            info.add_metric((*labels, *kind_and_revision), 1)
            for name, figure in self._deployments[labels].recent.figures().items():
                add_figure(recent[name], labels, figure)
        yield from (info, *recent.values())


def declared(name: str) -> tuple[str, str, tuple[str, ...]]:
    """Full name, help text and label names of a metric in the catalogue."""
    return PREFIX + name, METRICS[name].help, METRICS[name].labels


def counter_family(name: str) -> CounterMetricFamily:
    """A counter of the catalogue, without samples."""
    full_name, text, labels = declared(name)
    return CounterMetricFamily(full_name, text, labels=labels)


def gauge_family(name: str) -> GaugeMetricFamily:
    """A gauge of the catalogue, without samples."""
    full_name, text, labels = declared(name)
    return GaugeMetricFamily(full_name, text, labels=labels)


def histogram_family(name: str) -> HistogramMetricFamily:
    """A histogram of the catalogue, without samples."""
    full_name, text, labels = declared(name)
    return HistogramMetricFamily(full_name, text, labels=labels)


def add_histogram(
    family: HistogramMetricFamily, labels: Sequence[str], histogram: RowHistogram
) -> None:
    """Add the buckets and the sum of a histogram."""
    buckets: list[Any] = [list(bucket) for bucket in histogram.buckets()]
    family.add_metric(labels, buckets=buckets, sum_value=histogram.sum)


def add_figure(family: GaugeMetricFamily, labels: Sequence[str], value: float | None) -> None:
    """Add a sample unless the value is unknown; 0 would be a wrong value."""
    if value is not None and np.isfinite(value):
        family.add_metric(labels, value)


def statistics_families(statistics: ControlStatistics, *, tolerance: float) -> Iterable[Metric]:
    """Metric families of the statistics from the database."""
    yield from _pair_families(statistics.pairs, tolerance)
    for name, values in (
        ("alarms_total", statistics.alarms),
        ("fits_total", statistics.fits),
        ("promotions_total", statistics.promotions),
        ("refits_total", statistics.refits),
    ):
        counter = counter_family(name)
        for key, value in sorted(values.items()):
            counter.add_metric(key, value)
        yield counter
    further: dict[str, Mapping[Any, float]] = {"fit_queue": statistics.fit_queue}
    further |= statistics.gauges
    for name, by_labels in further.items():
        gauge = gauge_family(name)
        for names, number in sorted(by_labels.items()):
            gauge.add_metric(names, number)
        yield gauge


def _pair_families(pairs: Iterable[PairStatistics], tolerance: float) -> Iterable[Metric]:
    names = ("labels", "confidence", "correct", "variance")
    counters = {name: counter_family(f"bin_{name}_total") for name in names}
    gauges = {
        name: gauge_family(name)
        for name in (
            "ece_ratio", "ece_floor_ratio", "calibration_drift_ratio",
            "observed_accuracy_ratio", "tolerance_ratio", "baseline_ece_ratio",
            "evidence_log10", "evidence_threshold_log10",
            "change_log10", "change_threshold_log10",
            "verdict", "error_low_ratio", "error_high_ratio", "error_labels", "labels_needed",
        )
    }  # fmt: skip
    for pair in pairs:
        labels = (pair.model, str(pair.version), pair.calibrator)
        sums = (pair.totals.count, pair.totals.confidence, pair.totals.correct,
                pair.totals.variance)  # fmt: skip
        for family, per_bin in zip(counters.values(), sums, strict=True):
            for bin_, value in enumerate(per_bin):
                family.add_metric((*labels, str(bin_)), float(value))
        if not pair.live:
            continue
        add_figure(gauges["tolerance_ratio"], labels, tolerance)
        add_figure(gauges["baseline_ece_ratio"], labels, pair.baseline_ece)
        if pair.alarm is not None:
            for name, figure in vars(pair.alarm).items():
                add_figure(gauges[name], labels, figure)
        if pair.verdict is not None:
            add_figure(gauges["verdict"], labels, VERDICT_VALUES[pair.verdict.state])
            add_figure(gauges["error_low_ratio"], labels, pair.verdict.error_low)
            add_figure(gauges["error_high_ratio"], labels, pair.verdict.error_high)
            add_figure(gauges["error_labels"], labels, pair.verdict.labels)
            add_figure(gauges["labels_needed"], labels, pair.verdict.labels_needed)
        if pair.window.n > 0:
            add_figure(gauges["ece_ratio"], labels, pair.window.ece())
            add_figure(gauges["ece_floor_ratio"], labels, pair.window.ece_floor())
            add_figure(gauges["calibration_drift_ratio"], labels, pair.window.drift_ratio())
            add_figure(gauges["observed_accuracy_ratio"], labels, pair.window.accuracy())
    yield from counters.values()
    yield from gauges.values()
