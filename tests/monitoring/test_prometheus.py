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


def labelled_rows(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Confidences and hits of a model that is too sure."""
    random = np.random.default_rng(seed)
    confidence = 1 / (1 + np.exp(-random.normal(2.5, 1.8, n)))
    correct = random.random(n) < 0.1 + 0.75 * confidence
    return confidence, correct


def answer_rows(prometheus: Prometheus, exporters: list[Exporter]) -> None:
    """Rows are answered: from then on a pair has its bins, at 0."""
    for exporter in exporters:
        exporter.work()
    prometheus.settle()


def count_labels_while_scraped(
    prometheus: Prometheus, exporters: list[Exporter], batches: int = 6
) -> BinnedCalibration:
    """Labels come in batch by batch, each seen by at least one scrape."""
    totals = BinnedCalibration.zeros()
    for seed in range(batches):
        totals = totals.update(*labelled_rows(257, seed=seed))
        for exporter in exporters:
            exporter.count(totals)
            exporter.work()
        prometheus.settle()
    return totals


@pytest.mark.integration
def test_the_rules_agree_with_the_library_and_every_query_is_answered(tmp_path: Path) -> None:
    with serve_exporter() as first, serve_exporter() as second:
        exporters = [first, second]
        with start_prometheus(tmp_path, [each.address for each in exporters]) as prometheus:
            answer_rows(prometheus, exporters)
            assert prometheus.query("trueprob:ece_ratio:total") == []  # 0/0 has no sample
            totals = count_labels_while_scraped(prometheus, exporters)
            check_totals(prometheus, totals)
            check_windows(prometheus, totals)
            check_that_everything_answers(prometheus)


@pytest.mark.integration
def test_the_ece_of_a_day_stays_when_a_replaced_pair_is_folded(tmp_path: Path) -> None:
    with (
        serve_exporter() as exporter,
        start_prometheus(tmp_path, [exporter.address]) as prometheus,
    ):
        answer_rows(prometheus, [exporter])
        totals = count_labels_while_scraped(prometheus, [exporter])
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


def check_totals(prometheus: Prometheus, totals: BinnedCalibration) -> None:
    (ece,) = prometheus.query("trueprob:ece_ratio:total")
    assert ece.labels == PAIR
    assert ece.value == pytest.approx(totals.ece(), abs=1e-9)
    floor = prometheus.value("trueprob:ece_floor_ratio:total")
    assert floor == pytest.approx(totals.ece_floor(), abs=1e-9)
    # Two replicas export the same labels; they are counted once.
    assert prometheus.value("trueprob:labels:total") == totals.n


def check_windows(prometheus: Prometheus, totals: BinnedCalibration) -> None:
    for window in ("1h", "24h"):
        (ece,) = prometheus.query(f"trueprob:ece_ratio:increase{window}")
        assert ece.labels == PAIR
        assert ece.value == pytest.approx(totals.ece(), rel=0.02)
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
    empty = {where for where, query in dashboard_queries() if not prometheus.query(query)}
    assert empty == set()
    assert [query for query in documented_queries() if not prometheus.query(query)] == []
