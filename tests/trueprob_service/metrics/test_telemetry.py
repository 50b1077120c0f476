import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from trueprob.drift import LiveVerdict, VerdictState
from trueprob.scores.binned import BinnedCalibration
from trueprob_service.metrics.label_statistics import (
    AlarmFigures,
    ControlStatistics,
    PairStatistics,
)
from trueprob_service.metrics.row_meters import RowHistogram
from trueprob_service.metrics.telemetry import Telemetry

PAIR = ("m", 1, "smart-000000000000")


def value(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    text = telemetry.exposition().decode()
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) <= 1
    return found[0] if found else None


def answer(n: int, k: int = 4, *, seed: int = 0) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(k), n).astype(np.float32)
    confidence = probabilities.max(axis=1).astype(np.float64)
    gap = random.exponential(3, n).astype(np.float32)
    return gap, random.uniform(0.5, 3, n), confidence, probabilities, np.log(probabilities)


def test_the_row_histogram_counts_as_the_clients_own() -> None:
    bounds = (0.5, 1.0, 2.5)
    values = np.array([0.1, 0.5, 0.500001, 1.0, 2.5, 99.0, 0.0])
    ours, registry = RowHistogram(bounds), CollectorRegistry()
    theirs = Histogram("h", "h", buckets=bounds, registry=registry)
    ours.add(values[:3])
    ours.add(values[3:])
    for each in values:
        theirs.observe(each)
    expected = {
        sample.labels["le"]: sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if sample.name == "h_bucket"
    }
    assert dict(ours.buckets()) == expected
    assert ours.sum == pytest.approx(values.sum())


def test_every_row_is_counted_whether_or_not_somebody_scrapes() -> None:
    telemetry = Telemetry(version="1", commit="c")
    meters = telemetry.meters_for(*PAIR, "smart", 1)
    total = 0
    for seed in range(600):  # more answers than are kept unfolded
        n = 1 + seed % 7
        meters.observe(*answer(n, seed=seed))
        total += n
    assert value(telemetry, "trueprob_predictions_total", model="m") == total
    for name in ("logit_gap", "temperature", "confidence"):
        assert value(telemetry, f"trueprob_{name}_count", model="m") == total
        assert value(telemetry, f"trueprob_{name}_bucket", model="m", le="+Inf") == total


def test_gauges_and_info_are_of_the_live_pair_only_and_counters_stay() -> None:
    telemetry = Telemetry(version="1", commit="c")
    old = telemetry.meters_for("m", 1, "smart-old", "smart", 1)
    old.observe(*answer(5))
    new = telemetry.meters_for("m", 1, "smart-new", "smart", 2)
    new.observe(*answer(3))
    telemetry.meters_for("m", 2, "identity-x", "identity", None)
    assert value(telemetry, "trueprob_calibrator_info") == 1  # exactly one sample
    assert value(telemetry, "trueprob_calibrator_info", revision="2", calibrator="smart-new") == 1
    assert value(telemetry, "trueprob_expected_accuracy_ratio", calibrator="smart-new") is not None
    assert value(telemetry, "trueprob_expected_accuracy_ratio", calibrator="smart-old") is None
    assert value(telemetry, "trueprob_predictions_total", calibrator="smart-old") == 5


def test_a_model_that_was_removed_has_no_live_pair_and_keeps_its_counts() -> None:
    telemetry = Telemetry(version="1", commit="c")
    telemetry.meters_for(*PAIR, "smart", 1).observe(*answer(5))
    telemetry.remove_live_pair("m")
    assert value(telemetry, "trueprob_calibrator_info") is None
    assert value(telemetry, "trueprob_expected_accuracy_ratio") is None
    assert value(telemetry, "trueprob_predictions_total", model="m") == 5


def test_label_statistics_are_exported_as_the_database_has_them() -> None:
    random = np.random.default_rng(3)
    confidence = random.uniform(0.3, 1, 700)
    totals = BinnedCalibration.of(confidence, random.random(700) < confidence - 0.1)
    window = BinnedCalibration.of(confidence[:50], random.random(50) < 0.5)
    telemetry = Telemetry(version="1", commit="c")
    alarm = AlarmFigures(0.4, 2.0, 1.1, 5.0)
    pair = PairStatistics(
        *PAIR, live=True, totals=totals, window=window, baseline_ece=0.01, alarm=alarm
    )
    gone = PairStatistics("m", 1, "gone", live=False, totals=window, window=window,
                          baseline_ece=0.5)  # fmt: skip
    statistics = ControlStatistics(
        (pair, gone),
        {("m", "smart", "done"): 2},
        {("m", "smart"): 1},
        {("m", "smart", "forced"): 3},
        {("m", "change"): 4},
    )
    telemetry.export_statistics(lambda _totals: statistics, tolerance=0.03)
    mine = {"calibrator": PAIR[2]}
    for index in range(15):
        exported = value(telemetry, "trueprob_bin_confidence_total", bin=str(index), **mine)
        assert exported == totals.confidence[index]  # to the last bit
    assert value(telemetry, "trueprob_ece_ratio", **mine) == window.ece()
    assert value(telemetry, "trueprob_ece_floor_ratio", **mine) == window.ece_floor()
    assert value(telemetry, "trueprob_tolerance_ratio", **mine) == 0.03
    assert value(telemetry, "trueprob_baseline_ece_ratio", **mine) == 0.01
    for name, figure in vars(alarm).items():
        assert value(telemetry, f"trueprob_{name}", **mine) == figure
        assert value(telemetry, f"trueprob_{name}", calibrator="gone") is None
    assert value(telemetry, "trueprob_alarms_total", statistic="change") == 4
    assert value(telemetry, "trueprob_ece_ratio", calibrator="gone") is None
    assert value(telemetry, "trueprob_bin_labels_total", calibrator="gone", bin="14") is not None
    assert value(telemetry, "trueprob_fits_total", method="smart", outcome="done") == 2
    assert value(telemetry, "trueprob_fit_queue", method="smart") == 1
    assert value(telemetry, "trueprob_promotions_total", outcome="forced") == 3


@pytest.mark.parametrize(
    ("verdict", "number"),
    [
        (LiveVerdict(VerdictState.WITHIN_TOLERANCE, "s", 0.001, 0.019, 50_000), 0),
        (LiveVerdict(VerdictState.UNKNOWN, "s", 0.0, 1.0, 0), 1),  # before the first label
        (LiveVerdict(VerdictState.UNKNOWN, "s", 0.0, 0.3, 200, 4_700), 1),
        (LiveVerdict(VerdictState.CHANGED_LATELY, "s", 0.0, 1.0, 0), 2),
        (LiveVerdict(VerdictState.OFF, "s", 0.04, 0.11, 900), 3),
    ],
)
def test_a_verdict_is_exported_as_it_is(verdict: LiveVerdict, number: int) -> None:
    telemetry = Telemetry(version="1", commit="c")
    nothing = BinnedCalibration.zeros()
    pair = PairStatistics(
        *PAIR, live=True, totals=nothing, window=nothing, baseline_ece=None, verdict=verdict
    )
    telemetry.export_statistics(lambda _totals: ControlStatistics((pair,)), tolerance=0.02)
    assert value(telemetry, "trueprob_verdict") == number
    assert value(telemetry, "trueprob_error_low_ratio") == verdict.error_low
    assert value(telemetry, "trueprob_error_high_ratio") == verdict.error_high
    assert value(telemetry, "trueprob_error_labels") == verdict.labels
    assert value(telemetry, "trueprob_labels_needed") == verdict.labels_needed


def test_two_processes_share_nothing() -> None:
    first, second = (Telemetry(version="1", commit="c") for _ in range(2))
    first.count_labels("m", "accepted", 4, [1.0, 2.0, 3.0, 4.0])
    assert value(first, "trueprob_labels_total", outcome="accepted") == 4
    assert value(first, "trueprob_label_lag_seconds_count", outcome="accepted") == 4
    assert value(second, "trueprob_labels_total", outcome="accepted") is None
