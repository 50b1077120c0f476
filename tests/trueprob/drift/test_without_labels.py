"""PSI against its noise; expected accuracy and its interval."""

import math

import numpy as np
import pytest

from trueprob import InvalidInput, ReferenceBins, UnlabelledTraffic

QUANTILES = np.arange(101) / 100


def reference(values: np.ndarray) -> ReferenceBins:
    percentiles = np.quantile(values, QUANTILES, method="inverted_cdf")
    return ReferenceBins.of_percentiles(percentiles, values.shape[0])


@pytest.mark.parametrize("m", [50, 737, 5_000])
def test_shares_are_those_of_the_reference_itself(m):
    values = np.random.default_rng(0).gamma(2.0, size=m)
    bins = reference(values)
    np.testing.assert_allclose(bins.counts(values) / m, bins.shares, atol=1e-12)
    assert bins.shares.shape == (10,)


def test_tied_values_make_fewer_bins_with_the_mass_of_the_ties():
    values = np.concatenate([np.random.default_rng(0).random(700), np.ones(300)])
    bins = reference(values)
    assert bins.shares.shape == (8,)
    assert bins.shares.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(bins.counts(values) / 1_000, bins.shares, atol=0.011)
    one = reference(np.ones(60))
    assert one.shares.tolist() == [1.0]
    assert math.isnan(one.psi_ratio(one.counts(np.ones(5))))


@pytest.mark.parametrize(("m", "n"), [(500, 200), (500, 5_000), (5_000, 300)])
def test_without_a_shift_the_ratio_has_mean_one_and_the_tail_that_the_text_says(m, n):
    generator = np.random.default_rng(1)
    ratios = []
    for _ in range(400):
        bins = reference(generator.gamma(2.0, size=m))
        ratios.append(bins.psi_ratio(bins.counts(generator.gamma(2.0, size=n))))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.12)
    assert np.mean(np.array(ratios) > 1.9) == pytest.approx(0.05, abs=0.035)


def test_psi_by_hand_and_additive_counts():
    bins = ReferenceBins(np.array([0.0]), np.array([0.5, 0.5]), 100)
    counts = bins.counts([-1.0, 0.0]) + bins.counts([-2.0, 5.0])
    assert counts.tolist() == [3, 1]
    live = np.array([3.5, 1.5]) / 5.0
    expected = ((live - 0.5) * np.log(live / 0.5)).sum()
    assert bins.psi(counts) == pytest.approx(expected)
    assert bins.psi_ratio(counts) == pytest.approx(expected / (1 / 4 + 1 / 100))
    assert math.isnan(bins.psi([0, 0]))
    assert math.isnan(bins.psi_ratio([0, 0]))


@pytest.mark.parametrize("tied", [0, 300])
def test_bins_of_values_are_those_of_their_percentiles(tied):
    values = np.concatenate([np.random.default_rng(0).random(700), np.ones(tied)])
    bins, expected = ReferenceBins.of_values(values), reference(values)
    assert np.array_equal(bins.edges, expected.edges)
    np.testing.assert_allclose(bins.shares, expected.shares, atol=1e-12)
    assert bins.n == 700 + tied
    one = ReferenceBins.of_values([2.0])
    assert (one.edges.size, one.limit) == (0, math.inf)


def test_the_limit_is_exceeded_once_in_a_thousand():
    chi2 = pytest.importorskip("scipy.stats").chi2
    for d in range(1, 10):
        bins = ReferenceBins(np.arange(d, dtype=float), np.full(d + 1, 1 / (d + 1)), 500)
        assert 0.0006 < chi2.sf(d * bins.limit, d) <= 0.00102
    generator = np.random.default_rng(3)
    bins = ReferenceBins.of_values(generator.gamma(2.0, size=500))
    shares = generator.multinomial(400, bins.shares, 4_000)
    over = np.mean([bins.psi(row) / (9 / 400) > bins.limit for row in shares])
    assert over < 0.004


def test_a_shift_is_seen():
    generator = np.random.default_rng(2)
    bins = reference(generator.gamma(2.0, size=2_000))
    assert bins.psi_ratio(bins.counts(generator.gamma(1.5, size=1_000))) > 5.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReferenceBins.of_percentiles(np.arange(100), 10),
        lambda: ReferenceBins.of_percentiles(np.arange(101)[::-1], 10),
        lambda: ReferenceBins.of_percentiles(np.arange(101), 0),
        lambda: reference(np.arange(100.0)).counts([math.nan]),
        lambda: reference(np.arange(100.0)).psi([1, 2]),
        lambda: UnlabelledTraffic.of([1.1]),
        lambda: UnlabelledTraffic.of([0.5], [-1.0]),
        lambda: UnlabelledTraffic.of([0.5]).expected_accuracy(level=1.0),
        lambda: UnlabelledTraffic.of([0.5]).expected_accuracy(tolerance=-0.1),
    ],
)
def test_bad_input_is_refused(make):
    with pytest.raises(InvalidInput):
        make()


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("n", [40, 400])
def test_the_interval_holds_the_accuracy_of_calibrated_rows(level, n):
    """Against the exact distribution of the number of right predictions."""
    p = np.random.default_rng(3).uniform(0.5, 1.0, n)
    exact = np.ones(1)
    for chance in p:
        exact = np.convolve(exact, [1.0 - chance, chance])
    interval = UnlabelledTraffic.of(p).expected_accuracy(level=level)
    accuracy = np.arange(n + 1) / n
    held = exact[(accuracy >= interval.low) & (accuracy <= interval.high)].sum()
    assert level - 0.01 <= held <= level + 0.12
    assert interval.value == pytest.approx(p.mean())


def test_traffic_adds_up():
    p = np.random.default_rng(4).random(10)
    parts = UnlabelledTraffic.of(p[:4], p[:2]) + UnlabelledTraffic.of(p[4:], p[2:3])
    assert parts.mean_entropy() == pytest.approx(p[:3].mean())
    whole = UnlabelledTraffic.of(p)
    assert parts.n == 10
    assert parts.variance == pytest.approx(whole.variance)
    wide = parts.expected_accuracy(tolerance=0.05)
    narrow = whole.expected_accuracy()
    assert wide.low == pytest.approx(max(narrow.low - 0.05, 0.0))
    empty = UnlabelledTraffic()
    assert math.isnan(empty.expected_accuracy().value)
    assert math.isnan(empty.mean_entropy())
    assert empty + whole == whole
