"""Writes row metrics and statistics from the database in Prometheus' text format.

The client library takes 20 µs a sample: with hundreds of models, most of the time of a scrape. Here
the labels of a series are formatted once and kept.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from trueprob.drift import VerdictState
from trueprob.scores.binned import N_BINS, BinnedCalibration
from trueprob_service.metrics.catalogue import METRICS, PREFIX
from trueprob_service.metrics.label_statistics import ControlStatistics, PairStatistics
from trueprob_service.metrics.row_meters import RowHistogram

__all__ = ["OF_CLIENT", "VERDICT_VALUES", "Exposition", "Pair"]

# Metrics that the client library counts and writes.
OF_CLIENT: Final = (
    "request_duration_seconds", "inference_duration_seconds", "queue_delay_seconds", "batch_rows",
    "api_keys_file_damaged", "queue_rows", "refused_requests_total", "webhook_deliveries_total",
    "network_inspections_total", "network_info", "build_info",
)  # fmt: skip
# The worst of several verdicts is their maximum.
VERDICT_VALUES: Final = {state: value for value, state in enumerate(VerdictState)}
_BINS: Final = {  # metric → column of `BinnedCalibration`
    "bin_labels_total": "count",
    "bin_confidence_total": "confidence",
    "bin_correct_total": "correct",
    "bin_variance_total": "variance",
}
_CLASSES: Final = (  # in the order of `PairStatistics.by_class`
    "class_labels_total", "class_confidence_total", "class_correct_total", "class_squared_total",
)  # fmt: skip
_OF_WINDOW: Final = (
    "ece_ratio", "ece_floor_ratio", "calibration_drift_ratio", "observed_accuracy_ratio",
)  # fmt: skip
_CACHED_LABELS: Final = 1 << 16  # about 300 bytes each

Pair = tuple[str, str, str]  # model, version, calibrator


class Exposition:
    """The families of one scrape. Samples of families that `summary` leaves out are ignored."""

    def __init__(self, *, full: bool) -> None:
        self._full = full
        self._families: dict[str, list[str]] = {
            name: []
            for name, metric in METRICS.items()
            if name not in OF_CLIENT and (full or not metric.full_only)
        }

    def add(self, name: str, labels: tuple[str, ...], value: float | None) -> None:
        """Add a sample unless the value is unknown; 0 would be a wrong value."""
        samples = self._families.get(name)
        if samples is not None and value is not None and math.isfinite(value):
            samples.append(f"{PREFIX}{name}{{{_labels(name, labels)}}} {float(value)!r}\n")

    def add_of_pair(self, labels: Pair, values: Iterable[tuple[str, float | None]]) -> None:
        """`add` for several metrics that have only the labels of a pair."""
        text, families = _labels("verdict", labels), self._families
        for name, value in values:
            samples = families.get(name)
            if samples is not None and value is not None and math.isfinite(value):
                samples.append(f"{PREFIX}{name}{{{text}}} {float(value)!r}\n")

    def add_all(self, name: str, values: Mapping[Any, float]) -> None:
        """Add samples by their labels."""
        for labels, value in sorted(values.items()):
            self.add(name, labels, value)

    def add_histogram(self, name: str, labels: tuple[str, ...], histogram: RowHistogram) -> None:
        """Add the buckets, the number and the sum of a histogram, from its first value on."""
        samples = self._families.get(name)
        if samples is None:
            return
        buckets = histogram.buckets()
        if not buckets[-1][1]:
            return
        text = _labels(name, labels)
        start = f'{PREFIX}{name}_bucket{{{text},le="'
        samples += [f'{start}{bound}"}} {count!r}\n' for bound, count in buckets]
        samples.append(f"{PREFIX}{name}_count{{{text}}} {buckets[-1][1]!r}\n")
        samples.append(f"{PREFIX}{name}_sum{{{text}}} {histogram.sum!r}\n")

    def add_statistics(
        self,
        statistics: ControlStatistics,
        *,
        tolerance: float,
        answered: Container[Pair],  # pairs that answered rows here: their counters begin at 0
    ) -> None:
        """Add the statistics from the database."""
        windows = _window_figures([pair.window for pair in statistics.pairs])
        for pair, window in zip(statistics.pairs, windows, strict=True):
            labels = (pair.model, str(pair.version), pair.calibrator)
            if self._full and (pair.has_labels or labels in answered):
                self._add_bins(labels, pair)
                self._add_classes(labels, pair)
            if pair.live:
                self.add_of_pair(labels, _figures(pair, tolerance))
                self.add_of_pair(labels, window)
        self.add_all("alarms_total", statistics.alarms)
        self.add_all("fits_total", statistics.fits)
        self.add_all("promotions_total", statistics.promotions)
        self.add_all("refits_total", statistics.refits)
        self.add_all("fit_queue", statistics.fit_queue)
        for name, values in statistics.gauges.items():
            self.add_all(name, values)

    def _add_bins(self, labels: Pair, pair: PairStatistics) -> None:
        """Add the bins from which an increase can begin, and others with labels."""
        # With two classes, no confidence lies below the bin of 0.5.
        first = N_BINS // 2 if pair.by_prediction else 0
        for predicted, sums in enumerate(pair.by_prediction):
            self._add_part(labels, sums, f'",predicted="{predicted}"}} ', begins_at=first)
        self._add_part(labels, pair.totals, '"} ', begins_at=N_BINS if pair.by_prediction else 0)

    def _add_part(self, labels: Pair, sums: BinnedCalibration, end: str, *, begins_at: int) -> None:
        counts = sums.count.tolist()
        bins = [bin_ for bin_, n in enumerate(counts) if n or bin_ >= begins_at]
        for name, column in _BINS.items():
            samples = self._families.get(name)
            if samples is not None:
                start = f'{PREFIX}{name}{{{_labels(name, labels)},bin="'
                values = getattr(sums, column).tolist()
                samples += [f"{start}{bin_}{end}{values[bin_]!r}\n" for bin_ in bins]

    def _add_classes(self, labels: Pair, pair: PairStatistics) -> None:
        for name, sums in pair.by_class.items():
            for metric, value in zip(_CLASSES, sums, strict=True):
                self.add(metric, (*labels, name), value)

    def text(self) -> str:
        """All families, also those without samples."""
        return "".join(
            f"# HELP {PREFIX}{name} {METRICS[name].help}\n"
            f"# TYPE {PREFIX}{name} {METRICS[name].kind}\n{''.join(samples)}"
            for name, samples in self._families.items()
        )


def _figures(pair: PairStatistics, tolerance: float) -> Iterable[tuple[str, float | None]]:
    """Gauges of a live pair, by name."""
    yield "tolerance_ratio", tolerance
    yield "baseline_ece_ratio", pair.baseline_ece
    for figures in (pair.alarm, pair.classes):
        if figures is not None:
            yield from vars(figures).items()
    if pair.verdict is not None:
        yield "verdict", VERDICT_VALUES[pair.verdict.state]
        yield "error_low_ratio", pair.verdict.error_low
        yield "error_high_ratio", pair.verdict.error_high
        yield "error_labels", pair.verdict.labels
        yield "labels_needed", pair.verdict.labels_needed


def _window_figures(windows: list[BinnedCalibration]) -> list[list[tuple[str, float]]]:
    """Gauges over the last labels, as the methods of `BinnedCalibration` compute them."""
    columns = ("count", "confidence", "correct", "variance")
    count, confidence, correct, variance = (
        np.array([getattr(window, name) for window in windows]).reshape(-1, N_BINS)
        for name in columns
    )
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN without labels, which is left out
        n = count.sum(axis=1)
        ece = np.abs(confidence - correct).sum(axis=1) / n
        floor = np.sqrt(2.0 / math.pi * variance).sum(axis=1) / n
        values = np.stack([ece, floor, ece / floor, correct.sum(axis=1) / n], axis=1)
    return [list(zip(_OF_WINDOW, each, strict=True)) for each in values.tolist()]


@functools.lru_cache(_CACHED_LABELS)
def _labels(name: str, values: Sequence[str]) -> str:
    """Labels as text; a bin or a bound may follow."""
    return ",".join(
        f'{label}="{_escaped(value)}"'
        for label, value in zip(METRICS[name].labels, values, strict=False)
    )


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
