from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from trueprob.drift import LiveVerdict, VerdictState
from trueprob.scores.binned import BinnedCalibration
from trueprob_service.metrics.catalogue import MetricsDetail
from trueprob_service.metrics.label_statistics import (
    AlarmFigures,
    ClassFigures,
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


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_few_and_many_values_are_counted_alike(kind: type[np.floating]) -> None:
    values = np.random.default_rng(1).choice(np.arange(16) / 15, 2_000).astype(kind)
    few, many = (RowHistogram([bin_ / 15 for bin_ in range(1, 16)]) for _ in range(2))
    for part in np.array_split(values, 100):
        few.add(part)
    many.add(values)
    assert few.buckets() == many.buckets()
    assert many.buckets()[4][1] == np.count_nonzero(values.astype(np.float64) <= 5 / 15)
    assert many.buckets()[-1] == ("+Inf", 2_000.0)


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


NOTHING = BinnedCalibration.zeros()


def live_pair(model: str, totals: BinnedCalibration = NOTHING, *, known: bool) -> PairStatistics:
    """A live pair as the database has it, with every figure once labels have come."""
    return PairStatistics(
        model, 1, "smart-new", live=True, totals=totals, window=totals, baseline_ece=0.01,
        alarm=AlarmFigures(0.4, 2.0, 1.1, 5.0),
        verdict=LiveVerdict(VerdictState.UNKNOWN, "s", 0.0, 0.3, 200, 4_700),
        classes=ClassFigures(0.03, 0.02, 0.0, 0.2, 0) if known else None,
    )  # fmt: skip


def control_statistics(model: str, pair: PairStatistics) -> ControlStatistics:
    """What the database has of a model after fits, refits, promotions and a shadow."""
    shadow = (model, "1", "smart-candidate", "candidate")
    return ControlStatistics(
        (pair,),
        {(model, "smart", outcome): 1 for outcome in ("admitted", "refused", "held")},
        {(model, "smart"): 1},
        {(model, "smart", cause): 1 for cause in ("admitted", "reverted", "rollback")}
        | {(model, "identity", cause): 1 for cause in ("factory", "reverted")},
        {(model, "change"): 4, (model, "evidence"): 1},
        {(model, trigger, "held"): 1 for trigger in ("alarm", "rows")},
        {f"shadow_{name}_log10": {shadow: 1.0} for name in ("better", "worse", "threshold")},
    )


def series(telemetry: Telemetry, model: str) -> list[str]:
    lines = telemetry.exposition().decode().splitlines()
    return [line for line in lines if f'model="{model}"' in line and not line.startswith("#")]


@pytest.mark.parametrize("n_classes", [2, 16, 17])
@pytest.mark.parametrize(
    ("detail", "traffic", "most"),
    [("full", True, 250), ("full", False, 40), ("summary", True, 60), ("summary", False, 40)],
)
def test_a_model_has_few_series(
    detail: MetricsDetail, traffic: bool, most: int, n_classes: int
) -> None:
    telemetry = Telemetry(version="1", commit="c", detail=detail)
    meters = telemetry.meters_for("m", 1, "smart-new", "smart", 1)
    telemetry.name_provider("m", 1, "CPUExecutionProvider")
    totals = BinnedCalibration.of(np.linspace(0, 1, 99), np.arange(99) % 2 == 0)
    pair = live_pair("m", totals if traffic else NOTHING, known=traffic)
    if n_classes == 2:
        sums = BinnedCalibration.of(np.linspace(0.5, 1, 99), np.arange(99) % 2 == 0)
        sums = sums if traffic else NOTHING  # labels from before the upgrade, and new ones
        pair = replace(pair, totals=sums, by_prediction=(sums, sums))
    elif n_classes == 16:
        pair = replace(pair, by_class={f"class {c}": (9.0, 8.0, 7.0, 1.0) for c in range(16)})
    if traffic:
        meters.observe(*answer(50))
        telemetry.observe_batch("m", rows=8, seconds=0.01, delays=[0.001], waiting=0)
        telemetry.count_labels("m", "accepted", 1, [5.0])
    statistics = control_statistics("m", pair)
    memory = ("remembered_rows", "remembered_bytes", "remembered_oldest_timestamp_seconds")
    remembered = {name: {("m",): 5.0} for name in memory if traffic}
    statistics = replace(statistics, gauges={**statistics.gauges, **remembered})
    telemetry.export_statistics(lambda _totals: statistics, tolerance=0.02)
    found = series(telemetry, "m")
    assert len(found) == len(set(found)) <= most
    assert any(line.startswith("trueprob_verdict{") for line in found)
    bins = [line for line in found if 'bin="' in line or "_bucket{" in line]
    assert bool(bins) == (traffic and detail == "full")
    of_classes = [line for line in found if 'class="' in line]
    assert len(of_classes) == (64 if bins and n_classes == 16 else 0)


def test_detail_is_full_for_a_hundred_models_and_a_summary_above() -> None:
    asked: list[bool] = []

    def statistics(totals: bool) -> ControlStatistics:
        asked.append(totals)
        return ControlStatistics()

    telemetry = Telemetry(version="1", commit="c")
    telemetry.export_statistics(statistics, tolerance=0.02)
    for index in range(101):
        telemetry.meters_for(f"m{index}", 1, "c", "smart", 1).observe(*answer(3))
        if index == 99:
            assert value(telemetry, "trueprob_metrics_detail_info", detail="full") == 1
            assert any("trueprob_confidence_bucket" in line for line in series(telemetry, "m0"))
    assert value(telemetry, "trueprob_metrics_detail_info", detail="summary") == 1
    assert not any("_bucket" in line for line in series(telemetry, "m0"))
    assert asked == [True, True, False, False]


def test_with_two_classes_bins_have_the_prediction_and_old_labels_have_none() -> None:
    telemetry = Telemetry(version="1", commit="c")
    old = BinnedCalibration.of([0.9, 0.9], [True, False])
    of_0, of_1 = BinnedCalibration.of([0.9], [True]), BinnedCalibration.of([0.5], [False])
    pair = replace(live_pair("m", old, known=False), by_prediction=(of_0, of_1))
    telemetry.export_statistics(lambda _totals: ControlStatistics((pair,)), tolerance=0.02)
    text = telemetry.exposition().decode()
    (family,) = [
        family
        for family in text_string_to_metric_families(text)
        if family.name == "trueprob_bin_confidence"
    ]
    found = {
        (int(each.labels["bin"]), each.labels.get("predicted")): each.value
        for each in family.samples
    }
    zeros = {(bin_, predicted): 0.0 for bin_ in range(7, 15) for predicted in "01"}
    assert found == zeros | {(13, None): 1.8, (13, "0"): 0.9, (7, "1"): 0.5}


def test_counters_of_classes_are_exported_by_name() -> None:
    telemetry = Telemetry(version="1", commit="c")
    by_class = {'a "b"': (9.0, 8.25, 7.0, 1.5), "c": (0.0, 0.0, 0.0, 0.0)}
    pair = replace(live_pair("m", known=False), by_class=by_class)
    telemetry.export_statistics(lambda _totals: ControlStatistics((pair,)), tolerance=0.02)
    assert value(telemetry, "trueprob_class_labels_total", **{"class": "c"}) is None
    telemetry.meters_for("m", 1, "smart-new", "smart", 1).observe(*answer(1))
    for name, sums in by_class.items():
        for metric, expected in zip(
            ("labels", "confidence", "correct", "squared"), sums, strict=True
        ):
            got = value(telemetry, f"trueprob_class_{metric}_total", **{"class": name})
            assert got == expected


def test_bins_begin_at_0_with_the_first_answer() -> None:
    telemetry = Telemetry(version="1", commit="c")
    meters = telemetry.meters_for("m", 1, "smart-new", "smart", 1)
    statistics = ControlStatistics((live_pair("m", known=False),))
    telemetry.export_statistics(lambda _totals: statistics, tolerance=0.02)
    assert value(telemetry, "trueprob_bin_labels_total", bin="7") is None
    meters.observe(*answer(1))
    assert value(telemetry, "trueprob_bin_labels_total", bin="7") == 0


def test_a_hundred_promotions_leave_one_series() -> None:
    telemetry = Telemetry(version="1", commit="c")
    statistics = ControlStatistics()
    telemetry.export_statistics(lambda _totals: statistics, tolerance=0.02)
    for revision in range(1, 101):
        telemetry.meters_for("m", 1, f"smart-{revision}", "smart", revision).observe(*answer(2))
    telemetry.meters_for("m", 1, "smart-new", "smart", 101).observe(*answer(3))
    telemetry.meters_for("m", 2, "another-version", "smart", None).observe(*answer(4))

    def rows_of(calibrator: str) -> float | None:
        return value(telemetry, "trueprob_predictions_total", calibrator=calibrator)

    assert rows_of("smart-1") == 2  # the database was not read yet
    assert rows_of("retired") is None
    statistics = ControlStatistics(
        (
            PairStatistics("m", 1, "smart-100", live=False, totals=NOTHING, window=NOTHING,
                           baseline_ece=None),
            live_pair("m", known=False),
        )
    )  # fmt: skip
    assert rows_of("retired") == 198
    assert value(telemetry, "trueprob_predictions_total", version="all") == 198
    assert (rows_of("smart-100"), rows_of("smart-99"), rows_of("smart-new")) == (2, None, 3)
    assert rows_of("another-version") == 4  # answers requests that name the version
    statistics = ControlStatistics((live_pair("m", known=False),))
    assert rows_of("retired") == 200
    again = telemetry.meters_for("m", 1, "smart-100", "smart", 102)
    again.observe(*answer(1))
    assert (rows_of("retired"), rows_of("smart-100")) == (200, 1)
    total = [line for line in series(telemetry, "m") if line.startswith("trueprob_predictions")]
    assert sum(float(line.split()[-1]) for line in total) == 200 + 3 + 4 + 1


def test_names_are_escaped() -> None:
    telemetry = Telemetry(version="1", commit="c")
    odd = 'a"b\\c\nd'
    telemetry.count_labels(odd, "accepted", 2)
    assert value(telemetry, "trueprob_labels_total", model=odd, outcome="accepted") == 2
