"""The watch without labels: shift against the calibration split, expected accuracy, entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.trueprob_service.metrics.test_telemetry import value
from trueprob.calibrators import IdentityCalibrator
from trueprob.drift import ReferenceBins, UnlabelledTraffic
from trueprob.repository.baseline import Baseline
from trueprob_service.metrics.catalogue import METRICS
from trueprob_service.metrics.recent_traffic import RECENT, ROWS, RecentTraffic, TrafficReference
from trueprob_service.metrics.row_meters import SAMPLED_ROWS, DeploymentMeters
from trueprob_service.metrics.telemetry import Telemetry

K = 4
FACTORY = IdentityCalibrator(K)


def logits(seed: int, n: int, scale: float = 2.0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, scale, (n, K)).astype(np.float32)


def answered(rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    top = np.sort(rows, axis=1)
    return (top[:, -1] - top[:, -2]), FACTORY.predict_proba(rows)


def observe(meters: DeploymentMeters, rows: NDArray[np.float32]) -> None:
    gap, probabilities = answered(rows)
    meters.observe(gap, None, probabilities.max(axis=1).astype(np.float64), probabilities, rows)


def reference() -> TrafficReference:
    rows = logits(0, 3000)
    return TrafficReference.from_baseline(
        Baseline.of(FACTORY, rows, np.zeros(3000, np.int64)), calibrator=FACTORY.id
    )


def figures(meters: DeploymentMeters) -> dict[str, float | None]:
    meters.fold()
    return meters.recent.figures()


def test_the_figures_are_those_of_the_library_over_the_same_rows() -> None:
    meters = DeploymentMeters(RecentTraffic.compared_with(reference(), FACTORY.id))
    rows = logits(1, 900)
    for start in range(0, 900, 10):  # less than the entropy's sample: every row's is known
        observe(meters, rows[start : start + 10])
        if start % 100 == 0:
            meters.fold()
    gap, probabilities = answered(rows)
    p = probabilities.astype(np.float64)
    traffic = UnlabelledTraffic.of(p.max(axis=1), -(p * np.log(p)).sum(axis=1))
    interval = traffic.expected_accuracy(level=0.9)
    found = figures(meters)
    assert found == pytest.approx(
        {
            "mean_entropy_nats": traffic.mean_entropy(),
            "expected_accuracy_ratio": interval.value,
            "expected_accuracy_low_ratio": interval.low,
            "expected_accuracy_high_ratio": interval.high,
            "gap_shift_ratio": reference().gap.psi_ratio(reference().gap.counts(gap)),
            "confidence_shift_ratio": reference().confidence.psi_ratio(
                reference().confidence.counts(p.max(axis=1))
            ),
        }
    )
    assert found["gap_shift_ratio"] is not None
    assert found["gap_shift_ratio"] < 3.0  # the same distribution


def test_a_shift_is_seen_and_old_rows_are_let_go() -> None:
    meters = DeploymentMeters(RecentTraffic.compared_with(reference(), FACTORY.id))
    observe(meters, logits(2, ROWS))
    assert figures(meters)["gap_shift_ratio"] < 3.0  # type: ignore[operator]
    before = figures(meters)["expected_accuracy_ratio"]
    for seed in range(12):
        observe(meters, logits(3 + seed, ROWS // 10, scale=0.5))
        meters.fold()
    found = figures(meters)
    assert found["gap_shift_ratio"] > 20.0  # type: ignore[operator]
    assert found["confidence_shift_ratio"] > 20.0  # type: ignore[operator]
    assert found["expected_accuracy_ratio"] < before - 0.1  # type: ignore[operator]
    shifted = [
        answered(logits(3 + seed, ROWS // 10, scale=0.5))[1].max(axis=1) for seed in range(2, 12)
    ]
    assert found["expected_accuracy_ratio"] == pytest.approx(np.concatenate(shifted).mean())


def test_the_rows_kept_do_not_grow() -> None:
    recent = RecentTraffic(gap=ReferenceBins.of_percentiles(np.arange(101.0), 100))
    for n in [1] * 5000 + [3000, 1, 250, 250]:
        values = np.full(n, 0.5)
        recent.add(values, values, UnlabelledTraffic.of(values))
        assert len(recent._blocks) <= 12
    assert recent._rows == 3000 + 1 + 250 + 250


def test_another_calibrators_confidence_is_not_compared() -> None:
    meters = DeploymentMeters(RecentTraffic.compared_with(reference(), "smart-other"))
    observe(meters, logits(4, 100))
    found = figures(meters)
    assert found["confidence_shift_ratio"] is None
    assert found["gap_shift_ratio"] is not None


def test_without_rows_or_baseline_nothing_is_claimed() -> None:
    telemetry = Telemetry(version="1", commit="c")
    meters = telemetry.meters_for("m", 1, FACTORY.id, "identity", 1)
    assert [value(telemetry, f"trueprob_{name}") for name in RECENT] == [None] * len(RECENT)
    observe(meters, logits(5, 20))
    exported = {name for name in RECENT if value(telemetry, f"trueprob_{name}") is not None}
    assert exported == set(RECENT) - {"gap_shift_ratio", "confidence_shift_ratio"}
    with_baseline = Telemetry(version="1", commit="c")
    observe(with_baseline.meters_for("m", 1, FACTORY.id, "identity", 1, reference()), logits(5, 20))
    assert all(value(with_baseline, f"trueprob_{name}") is not None for name in RECENT)
    assert set(RECENT) <= set(METRICS)


def test_a_confidence_that_rounding_put_above_one_stops_no_answer() -> None:
    meters = DeploymentMeters()
    above = np.array([np.nextafter(1.0, 2.0)])
    one = np.ones((1, 1), np.float32)
    meters.observe(one[0], None, above, one, one)
    assert figures(meters)["expected_accuracy_ratio"] == 1.0


def test_an_answers_sample_stands_for_all_its_rows() -> None:
    meters = DeploymentMeters()
    certain = np.tile(np.array([[1.0, 0.0]], np.float32), (3 * SAMPLED_ROWS, 1))
    meters.observe(np.ones(len(certain), np.float32), None, np.ones(len(certain)), certain, certain)
    even = np.full((SAMPLED_ROWS, 2), 0.5, np.float32)
    meters.observe(np.zeros(len(even), np.float32), None, np.full(len(even), 0.5), even, even)
    assert figures(meters)["mean_entropy_nats"] == pytest.approx(math.log(2) / 4)
