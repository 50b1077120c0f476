"""All metrics of one process; the only module that imports `prometheus_client`.

Counts of requests and batches are metrics of the client library. Row metrics come from
`trueprob_service.metrics.row_meters`. Statistics of labels, fits and promotions are read from the
database at every scrape, so that a restart resets nothing.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

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

from trueprob_service.metrics.catalogue import (
    DELIVERIES,
    EVENT_KINDS,
    FAULTS_OF,
    INSPECTIONS,
    LABEL_OUTCOMES,
    METRICS,
    PREFIX,
    REFUSALS,
    RETIRED,
    MetricsDetail,
)
from trueprob_service.metrics.exposition import Exposition, Pair
from trueprob_service.metrics.label_statistics import ControlStatistics
from trueprob_service.metrics.recent_traffic import RecentTraffic, TrafficReference
from trueprob_service.metrics.row_meters import DeploymentMeters, RecentRows, RowHistogram

__all__ = ["MOST_FULL_MODELS", "Registry", "Telemetry"]

Registry = CollectorRegistry
# No `_created` series for each counter. The client library has only a switch for the process.
disable_created_metrics()  # type: ignore[no-untyped-call]
MOST_FULL_MODELS: Final = 100  # with more, `auto` is `summary`
_LOG: Final = logging.getLogger(__name__)


class Telemetry:
    """All metrics of a process. One method for each event that is counted."""

    content_type: Final = CONTENT_TYPE_LATEST  # of `exposition`

    def __init__(
        self,
        *,
        version: str,
        commit: str,
        detail: MetricsDetail = "auto",
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self._detail = detail
        self._said_summary = False
        self._of_networks = CollectorRegistry()  # histograms of models, which `summary` leaves out
        self._deployments: dict[Pair, DeploymentMeters] = {}
        self._newest: dict[tuple[str, str], Pair] = {}  # by model and version
        self._retired: dict[str, int] = {}  # rows of folded pairs, by model
        self._recent_rows: dict[tuple[str, int], RecentRows] = {}
        self._live: dict[str, tuple[Pair, tuple[str, str]]] = {}
        self._labels: dict[tuple[str, str], int] = {}
        self._lag: dict[tuple[str, str], RowHistogram] = {}
        self._changing = threading.Lock()  # labels and the set of deployments
        self._statistics: Callable[[bool], ControlStatistics] = lambda _totals: ControlStatistics()
        self._tolerance = 0.0
        self._faults: Callable[[], Mapping[str, str]] = dict
        self._unavailable: Callable[[], Iterable[tuple[str, int]]] = tuple
        self._memory: Callable[[], Mapping[str, float]] = dict
        self._connections: Callable[[], tuple[Mapping[str, int], ...]] | None = None
        self._request_duration = self._histogram("request_duration_seconds", self.registry)
        self._of_route: dict[tuple[str, int], Histogram] = {}
        self._inference_duration = self._histogram("inference_duration_seconds", self._of_networks)
        self._queue_delay = self._histogram("queue_delay_seconds", self._of_networks)
        self._batch_rows = self._histogram("batch_rows", self._of_networks)
        self._queue_rows = Gauge(*_declared("queue_rows"), registry=self.registry)
        self._sent = Counter(*_declared("webhook_deliveries_total"), registry=self.registry)
        for kind, outcome in itertools.product(EVENT_KINDS, DELIVERIES):
            self._sent.labels(kind, outcome)
        self._refused = Counter(*_declared("refused_requests_total"), registry=self.registry)
        for reason in REFUSALS:
            self._refused.labels(reason)
        self._inspected = Counter(*_declared("network_inspections_total"), registry=self.registry)
        for outcome in INSPECTIONS:
            self._inspected.labels(outcome)
        self._keys_damaged = Gauge(*_declared("api_keys_file_damaged"), registry=self.registry)
        self._network_info = Gauge(*_declared("network_info"), registry=self.registry)
        build_info = Gauge(*_declared("build_info"), registry=self.registry)
        build_info.labels(version, commit).set(1)

    @staticmethod
    def _histogram(name: str, registry: CollectorRegistry) -> Histogram:
        return Histogram(*_declared(name), buckets=METRICS[name].buckets, registry=registry)

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

    def count_inspection(self, outcome: str) -> None:
        """Count a network that was inspected before it was loaded."""
        self._inspected.labels(outcome).inc()

    def count_labels(
        self, model: str, outcome: str, n: int, lag_seconds: Sequence[float] = ()
    ) -> None:
        """Count n labels with one outcome, and the times since their predictions."""
        key = (model, outcome)
        with self._changing:
            # From 0 on: increase() does not see a counter's first value.
            for each in LABEL_OUTCOMES:
                self._labels.setdefault((model, each), 0)
            self._labels[key] += n
            if len(lag_seconds):
                histogram = self._lag.get(key)
                if histogram is None:
                    histogram = RowHistogram(METRICS["label_lag_seconds"].buckets)
                    self._lag[key] = histogram
                histogram.add(np.asarray(lag_seconds, np.float64))

    def count_refusal(self, reason: str) -> None:
        """Count a request that was refused for its key or origin."""
        self._refused.labels(reason).inc()

    def mark_keys_damaged(self, damaged: bool) -> None:
        """Export whether the key file cannot be used now."""
        self._keys_damaged.set(damaged)

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
        with self._changing:
            meters = self._deployments.get(labels)
            if meters is None:
                recent = RecentTraffic.compared_with(reference, calibrator)
                rows = self._recent_rows.setdefault((model, version), RecentRows())
                meters = self._deployments[labels] = DeploymentMeters(recent, rows)
            self._labels.setdefault((model, LABEL_OUTCOMES[0]), 0)
            self._newest[labels[:2]] = labels
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
        self,
        # Called at every scrape: whether the totals by bin are needed.
        statistics: Callable[[bool], ControlStatistics],
        *,
        tolerance: float,
    ) -> None:
        """Export statistics that a function reads from the database at every scrape."""
        self._statistics = statistics
        self._tolerance = tolerance

    def export_health(
        self,
        faults: Callable[[], Mapping[str, str]],  # component → its fault
        unavailable: Callable[[], Iterable[tuple[str, int]]],  # versions that do not run
    ) -> None:
        """Export what does not work, as these functions say at every scrape."""
        self._faults, self._unavailable = faults, unavailable

    def export_connections(
        self,
        # Called at every scrape: numbers of connections by state, and of refusals by reason.
        figures: Callable[[], tuple[Mapping[str, int], ...]],
    ) -> None:
        """Export the connections of the server."""
        self._connections = figures

    def export_memory(self, figures: Callable[[], Mapping[str, float]]) -> None:
        """Export the figures of the memory of predictions with ids, by metric."""
        self._memory = figures

    # ----- Reading by Prometheus -----

    def exposition(self) -> bytes:
        """The body of ``/metrics``."""
        full = self._is_full()
        out, statistics = Exposition(full=full), self._statistics(full)
        self._fold_retired(statistics)
        self._add_rows(out)
        answered = {labels for labels, meters in self._deployments.copy().items()
                    if meters.predictions}  # fmt: skip
        out.add_statistics(statistics, tolerance=self._tolerance, answered=answered)
        self._add_health(out, statistics.read_at)
        for name, value in self._memory().items():
            out.add(name, (), value)
        if self._connections is not None:
            n_of_state, refused = self._connections()
            for state, n in n_of_state.items():
                out.add("connections", (state,), n)
            for reason, n in refused.items():
                out.add("connection_refusals_total", (reason,), n)
        out.add("metrics_detail_info", ("full" if full else "summary",), 1)
        of_client = generate_latest(self.registry)
        if full:
            of_client += generate_latest(self._of_networks)
        return of_client + out.text().encode()

    def _add_health(self, out: Exposition, read_at: float | None) -> None:
        present = self._faults()
        for component, faults in FAULTS_OF.items():
            for fault in faults:
                out.add("degraded", (component, fault), present.get(component) == fault)
        out.add("statistics_timestamp_seconds", (), read_at)
        for model, version in self._unavailable():
            out.add("version_unavailable", (model, str(version)), 1)

    def _is_full(self) -> bool:
        if self._detail != "auto":
            return self._detail == "full"
        full = len(self._live) <= MOST_FULL_MODELS
        if not full and not self._said_summary:
            self._said_summary = True
            _LOG.warning(
                "metrics: more than %d models, so bins and histograms of models are left out; "
                "metrics_detail=full exports them",
                MOST_FULL_MODELS,
            )
        return full

    def _fold_retired(self, statistics: ControlStatistics) -> None:
        """Drop replaced pairs whose labels can no longer arrive; keep the sum of their rows."""
        reported: dict[str, set[Pair]] = {}
        for pair in statistics.pairs:
            labels = (pair.model, str(pair.version), pair.calibrator)
            reported.setdefault(pair.model, set()).add(labels)
        with self._changing:
            in_use = {*self._newest.values(), *(labels for labels, _ in self._live.values())}
            for labels in self._deployments.keys() - in_use:
                of_model = reported.get(labels[0])  # None: deleted, or not read yet
                if of_model is not None and labels not in of_model:
                    meters = self._deployments.pop(labels)
                    meters.fold()
                    self._retired[labels[0]] = self._retired.get(labels[0], 0) + meters.predictions

    def _add_rows(self, out: Exposition) -> None:
        for labels, meters in list(self._deployments.items()):
            meters.fold()
            out.add("predictions_total", labels, meters.predictions)
            out.add_histogram("logit_gap", labels, meters.gap)
            out.add_histogram("temperature", labels, meters.temperature)
            out.add_histogram("confidence", labels, meters.confidence)
        for model, predictions in self._retired.items():
            out.add("predictions_total", (model, *RETIRED), predictions)
        with self._changing:
            for key, n in self._labels.items():
                out.add("labels_total", key, n)
            for key, histogram in self._lag.items():
                out.add_histogram("label_lag_seconds", key, histogram)
        for labels, kind_and_revision in list(self._live.values()):
            out.add("calibrator_info", (*labels, *kind_and_revision), 1)
            out.add_of_pair(labels, self._deployments[labels].recent.figures().items())


def _declared(name: str) -> tuple[str, str, tuple[str, ...]]:
    """Full name, help text and label names of a metric in the catalogue."""
    return PREFIX + name, METRICS[name].help, METRICS[name].labels
