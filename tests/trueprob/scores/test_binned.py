import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trueprob import BinnedCalibration, InvalidInput, expected_calibration_error
from trueprob.scores.binned import N_BINS, bin_index

rows = st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=40)


def of(pairs):
    confidence, correct = zip(*pairs, strict=True)
    return BinnedCalibration.of(confidence, correct)


def close(a, b):
    return all(
        np.allclose(getattr(a, name), getattr(b, name), rtol=1e-12, atol=1e-12)
        for name in ("count", "confidence", "correct", "variance")
    )


def test_bins_are_right_closed_with_zero_in_the_first():
    edges = np.arange(N_BINS + 1) / N_BINS
    assert bin_index(edges).tolist() == [0, *range(N_BINS)]
    assert bin_index(np.nextafter(edges[1:-1], 1)).tolist() == list(range(1, N_BINS))


def test_error_and_floor_by_hand():
    # Two rows at 0.9 (one right) in one bin, one row at 0.5 (right) in another.
    # ECE = (|1.8 − 1| + |0.5 − 1|)/3; floor = (sqrt(2/π·0.18) + sqrt(2/π·0.25))/3.
    binned = BinnedCalibration.of([0.9, 0.9, 0.5], [True, False, True])
    assert binned.ece() == pytest.approx(1.3 / 3)
    assert binned.ece_floor() == pytest.approx((0.3385138 + 0.3989423) / 3, rel=1e-6)
    assert binned.mce() == pytest.approx(0.5)
    assert binned.accuracy() == pytest.approx(2 / 3)
    assert binned.mean_confidence() == pytest.approx(2.3 / 3)
    assert binned.drift_ratio() == pytest.approx(binned.ece() / binned.ece_floor())


@settings(deadline=None)
@given(rows)
def test_streaming_equals_the_batch_after_every_prefix(pairs):
    streamed = BinnedCalibration.zeros()
    for i, (confidence, correct) in enumerate(pairs):
        streamed = streamed.update([confidence], [correct])
        batch = of(pairs[: i + 1])
        assert close(streamed, batch)
        assert streamed.ece() == pytest.approx(batch.ece(), abs=1e-12)
    confidence, correct = map(np.array, zip(*pairs, strict=True))
    two = np.column_stack([1.0 - confidence, confidence])
    of_rows = expected_calibration_error(
        two, correct.astype(int), prediction=np.ones(len(pairs), int)
    )
    assert streamed.ece() == pytest.approx(of_rows, abs=1e-12)


@settings(deadline=None)
@given(rows, rows, rows)
def test_addition_is_commutative_associative_and_has_a_neutral_element(a, b, c):
    a, b, c = of(a), of(b), of(c)
    assert a + b == b + a
    assert close((a + b) + c, a + (b + c))
    assert a + BinnedCalibration.zeros() == a


def test_floor_is_what_a_perfectly_calibrated_model_shows():
    generator = np.random.default_rng(0)
    confidence = generator.beta(4, 1, size=4_000)
    observed = [
        BinnedCalibration.of(confidence, generator.random(4_000) < confidence).ece()
        for _ in range(200)
    ]
    floor = BinnedCalibration.of(confidence, np.ones(4_000)).ece_floor()
    assert np.mean(observed) == pytest.approx(floor, rel=0.05)


def test_weighted_floor_is_what_a_perfectly_calibrated_model_shows():
    generator = np.random.default_rng(1)
    confidence = generator.beta(4, 1, size=4_000)
    weights = generator.exponential(size=4_000)
    observed = [
        BinnedCalibration.of(confidence, generator.random(4_000) < confidence, weights).ece()
        for _ in range(200)
    ]
    floor = BinnedCalibration.of(confidence, np.ones(4_000), weights).ece_floor()
    assert np.mean(observed) == pytest.approx(floor, rel=0.05)


def test_nothing_is_known_without_rows():
    nothing = BinnedCalibration.zeros()
    for value in (nothing.ece(), nothing.ece_floor(), nothing.mce(), nothing.accuracy()):
        assert np.isnan(value)
    assert nothing.n == 0


def test_rows_are_plain_numbers_between_the_edges():
    table = BinnedCalibration.of([0.9], [True]).rows()
    assert len(table) == N_BINS
    assert table[13] == {
        "lower": 13 / 15,
        "upper": 14 / 15,
        "count": 1.0,
        "confidence": 0.9,
        "correct": 1.0,
        "variance": pytest.approx(0.09),
    }


@pytest.mark.parametrize("confidence", [[1.5], [-0.1], [float("nan")]])
def test_confidences_outside_the_unit_interval_are_refused(confidence):
    with pytest.raises(InvalidInput, match=r"confidence must lie in \[0, 1\]"):
        BinnedCalibration.of(confidence, [True])


def test_the_sums_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        BinnedCalibration.zeros().count[0] = 1


def test_the_complement_bins_the_other_class():
    p = np.random.default_rng(0).uniform(0, 1, 500)
    outcome = p > 0.4
    weights = np.random.default_rng(1).integers(1, 4, 500)
    got = BinnedCalibration.of(p, outcome, weights).complement()
    expected = BinnedCalibration.of(1.0 - p, ~outcome, weights)
    for name in ("count", "confidence", "correct", "variance"):
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), atol=1e-12)
