"""The catalogue's metrics as families of samples, and what the database says in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from trueprob_service.metrics.catalogue import METRICS, PREFIX
from trueprob_service.metrics.label_statistics import ControlStatistics, PairStatistics
from trueprob_service.metrics.row_meters import RowHistogram

__all__ = [
    "add_figure",
    "add_histogram",
    "counter_family",
    "declared",
    "gauge_family",
    "histogram_family",
    "statistics_families",
]


def declared(name: str) -> tuple[str, str, tuple[str, ...]]:
    """Full name, help and labels, as the catalogue has them."""
    return PREFIX + name, METRICS[name].help, METRICS[name].labels


def counter_family(name: str) -> CounterMetricFamily:
    """An empty counter of the catalogue."""
    full_name, text, labels = declared(name)
    return CounterMetricFamily(full_name, text, labels=labels)


def gauge_family(name: str) -> GaugeMetricFamily:
    """An empty gauge of the catalogue."""
    full_name, text, labels = declared(name)
    return GaugeMetricFamily(full_name, text, labels=labels)


def histogram_family(name: str) -> HistogramMetricFamily:
    """An empty histogram of the catalogue."""
    full_name, text, labels = declared(name)
    return HistogramMetricFamily(full_name, text, labels=labels)


def add_histogram(
    family: HistogramMetricFamily, labels: Sequence[str], histogram: RowHistogram
) -> None:
    """Export the counts of rows under some labels."""
    buckets: list[Any] = [list(bucket) for bucket in histogram.buckets()]
    family.add_metric(labels, buckets=buckets, sum_value=histogram.sum)


def add_figure(family: GaugeMetricFamily, labels: Sequence[str], value: float | None) -> None:
    """Export a figure under some labels, if there is one: 0 would say something else."""
    if value is not None and np.isfinite(value):
        family.add_metric(labels, value)


def statistics_families(statistics: ControlStatistics, *, tolerance: float) -> Iterable[Metric]:
    """What the database says, as Prometheus reads it."""
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
        if pair.window.n > 0:
            add_figure(gauges["ece_ratio"], labels, pair.window.ece())
            add_figure(gauges["ece_floor_ratio"], labels, pair.window.ece_floor())
            add_figure(gauges["calibration_drift_ratio"], labels, pair.window.drift_ratio())
            add_figure(gauges["observed_accuracy_ratio"], labels, pair.window.accuracy())
    yield from counters.values()
    yield from gauges.values()
