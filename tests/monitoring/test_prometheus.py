"""The rules, alerts and dashboard on a real Prometheus that scrapes real HTTP."""

from pathlib import Path

import numpy as np
import pytest

from tests.monitoring.exporter import CALIBRATOR, MODEL, VERSION, Exporter, serve_exporter
from tests.monitoring.monitoring_files import (
    ALERTS,
    RULES,
    dashboard_queries,
    documented_queries,
    rules_of,
)
from tests.monitoring.prometheus_server import Prometheus, Sample, start_prometheus
from trueprob.scores.binned import BinnedCalibration

PAIR = {"model": MODEL, "version": str(VERSION), "calibrator": CALIBRATOR}


def labelled_rows(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidences, hits and predictions of a model of two classes that is too sure of class 1."""
    random = np.random.default_rng(seed)
    probability = 1 / (1 + np.exp(-random.normal(1.0, 1.8, n)))
    label = random.random(n) < 0.75 * probability
    prediction = probability > 0.5
    return np.maximum(probability, 1 - probability), label == prediction, prediction


def answer_rows(prometheus: Prometheus, exporters: list[Exporter]) -> None:
    """Rows are answered: from then on a pair has its bins, at 0."""
    for exporter in exporters:
        exporter.work()
    prometheus.settle()


def count_labels_while_scraped(
    prometheus: Prometheus, exporters: list[Exporter], batches: int = 6
) -> tuple[BinnedCalibration, BinnedCalibration]:
    """Labels come in batch by batch, each seen by at least one scrape.

    Returns the sums of the confidence, and those of P(class 1). Those of the first batch come from
    a release that does not tell predictions apart.
    """
    unknown, *of_class = [BinnedCalibration.zeros()] * 3

    def export(by_prediction: list[BinnedCalibration]) -> None:
        for exporter in exporters:
            exporter.count(unknown, tuple(by_prediction))
            exporter.work()
        prometheus.settle()

    unknown = BinnedCalibration.of(*labelled_rows(257, seed=batches)[:2])
    export([])
    export(of_class)
    for seed in range(batches - 1):
        confidence, correct, prediction = labelled_rows(257, seed=seed)
        of_class = [
            sums.update(confidence[rows], correct[rows])
            for sums, rows in zip(of_class, (~prediction, prediction), strict=True)
        ]
        export(of_class)
    return sum(of_class, unknown), of_class[0].complement() + of_class[1]


@pytest.mark.integration
def test_the_rules_agree_with_the_library_and_every_query_is_answered(tmp_path: Path) -> None:
    with serve_exporter() as first, serve_exporter() as second:
        exporters = [first, second]
        with start_prometheus(tmp_path, [each.address for each in exporters]) as prometheus:
            answer_rows(prometheus, exporters)
            assert prometheus.query("trueprob:ece_ratio:total") == []  # 0/0 has no sample
            totals, class_1 = count_labels_while_scraped(prometheus, exporters)
            check_totals(prometheus, totals, class_1)
            check_windows(prometheus, totals, class_1)
            check_that_everything_answers(prometheus)


@pytest.mark.integration
def test_the_ece_of_a_day_stays_when_a_replaced_pair_is_folded(tmp_path: Path) -> None:
    with (
        serve_exporter() as exporter,
        start_prometheus(tmp_path, [exporter.address]) as prometheus,
    ):
        answer_rows(prometheus, [exporter])
        totals, _ = count_labels_while_scraped(prometheus, [exporter])
        before = {each.labels["calibrator"]: each.value for each in day(prometheus)}
        assert before.keys() == {CALIBRATOR}
        rows = prometheus.value("sum(trueprob_predictions_total)")
        exporter.replace("smart-successor", keeps_old=True)
        prometheus.settle()
        assert prometheus.value("trueprob:labels:total") == totals.n
        exporter.replace("smart-successor", keeps_old=False)
        prometheus.settle()
        after = {each.labels["calibrator"]: each.value for each in day(prometheus)}
        assert after == {CALIBRATOR: pytest.approx(before[CALIBRATOR], rel=1e-3)}
        assert prometheus.query(f'trueprob_bin_labels_total{{calibrator="{CALIBRATOR}"}}') == []
        (folded,) = prometheus.query('trueprob_predictions_total{calibrator="retired"}')
        assert folded.labels["version"] == "all"
        assert folded.value == rows
        assert prometheus.value("sum(trueprob_predictions_total)") == rows


def day(prometheus: Prometheus) -> list[Sample]:
    return prometheus.query("trueprob:ece_ratio:increase24h")


def check_totals(
    prometheus: Prometheus, totals: BinnedCalibration, class_1: BinnedCalibration
) -> None:
    (ece,) = prometheus.query("trueprob:ece_ratio:total")
    assert ece.labels == PAIR
    assert ece.value == pytest.approx(totals.ece(), abs=1e-9)
    floor = prometheus.value("trueprob:ece_floor_ratio:total")
    assert floor == pytest.approx(totals.ece_floor(), abs=1e-9)
    ece_of_1 = prometheus.value("trueprob:class_1_ece_ratio:total")
    assert ece_of_1 == pytest.approx(class_1.ece(), abs=1e-9)
    assert abs(ece_of_1 - totals.ece()) > 0.02  # another number
    # Two replicas export the same labels; they are counted once.
    assert prometheus.value("trueprob:labels:total") == totals.n


def check_windows(
    prometheus: Prometheus, totals: BinnedCalibration, class_1: BinnedCalibration
) -> None:
    for window in ("1h", "24h"):
        (ece,) = prometheus.query(f"trueprob:ece_ratio:increase{window}")
        assert ece.labels == PAIR
        assert ece.value == pytest.approx(totals.ece(), rel=0.02)
        gap = float((totals.confidence - totals.correct).sum() / totals.n)
        for name, expected in (("class_1_ece", class_1.ece()), ("class_gap", gap)):
            value = prometheus.value(f"trueprob:{name}_ratio:increase{window}")
            assert value == pytest.approx(expected, rel=0.02)
        # The sums are extrapolated to the ends of the window by up to a scrape interval; the
        # floor goes with the square root of one.
        floor = prometheus.value(f"trueprob:ece_floor_ratio:increase{window}")
        assert floor == pytest.approx(totals.ece_floor(), rel=0.08)


def check_that_everything_answers(prometheus: Prometheus) -> None:
    """Every rule is healthy, every query of dashboard and docs has an answer with samples."""
    rules = prometheus.rules()
    assert len(rules) == len(rules_of(RULES)) + len(rules_of(ALERTS))
    unhealthy = [(r["name"], r["health"], r.get("lastError")) for r in rules if r["health"] != "ok"]
    assert unhealthy == []
    # On a busy machine a scrape may fail, and what is true at this moment has no sample then.
    waiting = list(dashboard_queries())
    for _ in range(10):
        waiting = [(where, query) for where, query in waiting if not prometheus.query(query)]
        if not waiting:
            break
        prometheus.settle()
    assert {where for where, _ in waiting} == set()
    assert [query for query in documented_queries() if not prometheus.query(query)] == []
