"""The simulation of intervals of the probability knows its own truth."""

import numpy as np
import pytest

from benchmarks.calibration.probability_intervals import (
    TRUTHS,
    coverage,
    drawn,
    measured,
    share_right,
)


@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("k", [2, 10])
def test_labels_are_drawn_from_the_truth(truth: str, k: int) -> None:
    logits, labels, true = drawn(truth, k, 20_000, np.random.default_rng(0))
    assert logits.shape == true.shape == (20_000, k)
    assert np.bincount(labels, minlength=k) == pytest.approx(true.sum(axis=0), rel=0.1)
    # Among rows of nearly the same true probability of class 1, that is the share of class 1.
    for cell in np.array_split(np.argsort(true[:, 1]), 20):
        assert (labels[cell] == 1).mean() == pytest.approx(true[cell, 1].mean(), abs=0.05)
    moved = true.argmax(axis=1) != logits.argmax(axis=1)
    assert moved.any() == (truth == "offset")


def test_the_truth_is_averaged_over_rows_of_the_same_confidence() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.1, 0.8, 4_000)
    expected = confidence + 0.1 * np.sin(4.0 * confidence)
    noisy = expected + generator.normal(0.0, 0.05, 4_000)
    assert share_right(confidence, noisy) == pytest.approx(expected, abs=0.02)
    assert share_right(confidence, confidence) == pytest.approx(confidence, abs=1e-12)


def test_coverage_and_width_are_counted() -> None:
    true = np.array([0.2, 0.5, 0.9, 1.0])
    assert coverage(np.full(4, 0.2), np.full(4, 0.9), true) == pytest.approx((0.75, 0.7))


def test_a_line_has_own_intervals_and_refits_of_the_default() -> None:
    found = measured("smart", "temperature", 2, 100, 2)
    assert len(found.own) == 2
    assert len(found.refits) == 1
    inside, width, of_rows = np.mean(found.own, axis=0)
    assert 0.3 < inside <= 1.0
    assert 0.3 < of_rows <= 1.0
    assert 0.1 < width < 0.5
    assert measured("temperature", "temperature", 2, 100, 1).refits == []
