"""Prometheus metrics of one process; with `metric_families` all that knows `prometheus_client`.

Request, batch and label counts are the client's own metrics. What answered rows add is kept by
`trueprob_service.metrics.row_meters` and exported here. What labels say is read from the database's
totals through a callable, so that a restart resets nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

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
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from trueprob_service.metric_families import (
    add_figure,
    add_histogram,
    counter_family,
    declared,
    gauge_family,
    histogram_family,
    statistics_families,
)
from trueprob_service.metrics.catalogue import DELIVERIES, EVENT_KINDS, LABEL_OUTCOMES, METRICS
from trueprob_service.metrics.label_statistics import ControlStatistics
from trueprob_service.metrics.recent_traffic import RECENT, RecentTraffic, TrafficReference
from trueprob_service.metrics.row_meters import DeploymentMeters, RowHistogram

__all__ = ["METRICS", "DeploymentMeters", "Registry", "Telemetry"]

Registry = CollectorRegistry
# No second series beside each counter; the client has this switch for the whole process only.
disable_created_metrics()  # type: ignore[no-untyped-call]


class Telemetry(Collector):
    """Everything that a process exports."""

    def __init__(
        self, *, version: str, commit: str, registry: CollectorRegistry | None = None
    ) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._deployments: dict[tuple[str, str, str], DeploymentMeters] = {}
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

    # What happens in the process ---------------------------------------------------------------

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request; `route` is a template, never a path with names in it."""
        child = self._of_route.get((route, status))
        if child is None:  # resolving labels costs more than the observation
            child = self._of_route[route, status] = self._request_duration.labels(
                route, str(status)
            )
        child.observe(seconds)

    def observe_batch(
        self, model: str, *, rows: int, seconds: float, delays: Iterable[float], waiting: int
    ) -> None:
        """Count one batch that a network ran: its rows, its time and its requests' waits."""
        self._batch_rows.labels(model).observe(rows)
        self._inference_duration.labels(model).observe(seconds)
        delay = self._queue_delay.labels(model)
        for seconds_waited in delays:
            delay.observe(seconds_waited)
        self._queue_rows.labels(model).set(waiting)

    def name_provider(self, model: str, version: int, provider: str) -> None:
        """Say on which execution provider a version's network runs."""
        self._network_info.labels(model, str(version), provider).set(1)

    def count_labels(
        self, model: str, outcome: str, n: int, lag_seconds: Sequence[float] = ()
    ) -> None:
        """Count labels that came in with one outcome, and how long after their predictions."""
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
            recent = RecentTraffic.beside(reference, calibrator)
            meters = self._deployments.setdefault(labels, DeploymentMeters(recent))
        for outcome in LABEL_OUTCOMES:
            # Created at 0: increase() over a counter that springs up at 5 misses the 5.
            self._labels.labels(model, outcome)
        if revision is not None:
            self._live[model] = (labels, (kind, str(revision)))
        return meters

    def forget(self, model: str) -> None:
        """Export no live pair for a model that was removed; what was counted stays."""
        self._live.pop(model, None)

    def watch(self, statistics: Callable[[], ControlStatistics], *, tolerance: float) -> None:
        """Export what the database says, read by `statistics` at every scrape."""
        self._statistics = statistics
        self._tolerance = tolerance

    def exposition(self) -> tuple[bytes, str]:
        """The text that Prometheus reads, and its Content-Type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    # What Prometheus asks for ------------------------------------------------------------------

    def describe(self) -> Iterable[Metric]:
        """Nothing: without this, registering would already read the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Row metrics, live pairs and the database's totals."""
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
