"""Buckets do not depend on how wide the numbers are; recent rows are a bounded sample."""

import numpy as np
import pytest

from trueprob_service.metrics.row_meters import DeploymentMeters, RowHistogram
from trueprob_service.metrics.telemetry import Telemetry


@pytest.mark.parametrize("bound", [0.1, 0.2, 0.066667, 1.0, 24.0])
def test_a_float32_falls_where_the_same_number_as_float64_does(bound: float) -> None:
    near = np.float32(bound)
    values = np.array([np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(99))])
    narrow, wide = RowHistogram([bound]), RowHistogram([bound])
    narrow.add(values)
    wide.add(values.astype(np.float64))
    assert narrow.buckets() == wide.buckets()


# ----- The sample of recent rows -----


def answer_with(meters: DeploymentMeters, logits: np.ndarray) -> None:
    n, k = logits.shape
    even = np.full((n, k), 1 / k, np.float32)
    meters.observe(np.ones(n, np.float32), None, even[:, 0], even, logits)


def numbered(first: int, n: int, k: int = 3) -> np.ndarray:
    return np.arange(first, first + n, dtype=np.float32)[:, None] + np.zeros(k, np.float32)


def test_the_sample_is_the_newest_rows_in_order() -> None:
    meters = DeploymentMeters()
    assert meters.recent_logits() is None
    for row in range(1_300):  # folded several times on the way
        answer_with(meters, numbered(row, 1))
    np.testing.assert_array_equal(meters.recent_logits(), numbered(788, 512))
    assert meters.predictions == 1_300


def test_an_answer_gives_at_most_16_evenly_spaced_rows() -> None:
    meters = DeploymentMeters()
    answer_with(meters, numbered(0, 1_000))
    answer_with(meters, numbered(5_000, 7))
    expected = np.concatenate([numbered(0, 1_000)[::63], numbered(5_000, 7)])
    np.testing.assert_array_equal(meters.recent_logits(), expected)


@pytest.mark.parametrize(("k", "rows"), [(256, 512), (1_000, 131), (200_000, 1)])
def test_wide_rows_are_fewer(k: int, rows: int) -> None:
    meters = DeploymentMeters()
    for start in range(0, 640, 16):
        answer_with(meters, numbered(start, 16 if k < 10_000 else 1, k))
    recent = meters.recent_logits()
    assert recent is not None
    assert recent.shape == (rows, k)


def test_later_changes_of_a_requests_array_do_not_reach_the_sample() -> None:
    meters, logits = DeploymentMeters(), numbered(0, 4)
    answer_with(meters, logits)
    logits[:] = -1.0
    np.testing.assert_array_equal(meters.recent_logits(), numbered(0, 4))


def test_calibrators_of_a_version_share_the_sample_until_the_model_is_deleted() -> None:
    telemetry = Telemetry(version="1", commit="c")
    old = telemetry.meters_for("m", 1, "smart-a", "smart", 1)
    answer_with(old, numbered(0, 5))
    assert old.recent_logits() is not None
    new = telemetry.meters_for("m", 1, "smart-b", "smart", 2)
    other = telemetry.meters_for("m", 2, "smart-b", "smart", None)
    answer_with(new, numbered(5, 5))
    np.testing.assert_array_equal(new.recent_logits(), numbered(0, 10))
    assert other.recent_logits() is None
    telemetry.remove_live_pair("m")
    again = telemetry.meters_for("m", 1, "smart-a", "smart", 1)
    assert again.recent_logits() is None
    answer_with(again, numbered(0, 5, k=4))  # declared anew, with another number of classes
    np.testing.assert_array_equal(again.recent_logits(), numbered(0, 5, k=4))
