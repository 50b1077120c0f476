"""The guarantees, checked by enumerating every outcome, without simulation."""

from itertools import product

import numpy as np
import pytest

from trueprob import CalibrationBets, ChangeDetector, Comparison, Evidence, top_label_brier
from trueprob.drift.comparison import LossBets
from trueprob.drift.counting_order import CountingOrder

CONFIDENCES = np.array([0.3, 0.55, 0.8, 0.97, 0.9999, 1.0])
TOLERANCES = [0.0, 0.01, 0.02, 0.1]


def outcomes(n: int) -> np.ndarray:
    return np.array(list(product([0.0, 1.0], repeat=n)))


def chances(y: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Probability of each row of outcomes when they are independent with these probabilities."""
    return np.where(y == 1.0, q, 1.0 - q).prod(axis=1)


def true_probabilities(p: np.ndarray, tolerance: float) -> list[np.ndarray]:
    """Members of the null: its corners, and some between."""
    generator = np.random.default_rng(0)
    errors = [np.full(p.shape, -1.0), np.full(p.shape, 1.0), np.zeros(p.shape)]
    errors += [generator.uniform(-1.0, 1.0, p.shape) for _ in range(3)]
    return [np.clip(p + tolerance * error, 0.0, 1.0) for error in errors]


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_every_factor_has_a_mean_of_at_most_one_under_the_null_and_one_at_its_edge(tolerance):
    bets = CalibrationBets(tolerance)
    p = np.concatenate([np.linspace(0.0, 1.0, 41), CONFIDENCES])
    right = bets.factors(p, np.ones_like(p)).values
    wrong = bets.factors(p, np.zeros_like(p)).values
    means = []
    for q in true_probabilities(p, tolerance):
        mean = q * right + (1.0 - q) * wrong
        assert mean.max() <= 1.0 + 1e-12
        means.append(mean)
    assert min(right.min(), wrong.min()) >= 0.2 - 1e-12
    assert max(right.max(), wrong.max()) <= 21.0 + 1e-12
    inside = (p > tolerance) & (p < 1.0 - tolerance)
    # The bets are fair at the edge that they bet beyond: nothing is given away.
    np.testing.assert_allclose(np.maximum(means[0], means[1])[:, inside], 1.0, rtol=1e-12)


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_beyond_the_tolerance_some_bet_wins_and_a_wrong_sign_would_not(tolerance):
    bets = CalibrationBets(tolerance)
    p = np.array([0.3, 0.6, 0.8])
    right = bets.factors(p, np.ones_like(p)).values
    wrong = bets.factors(p, np.zeros_like(p)).values
    for error in (-tolerance - 0.08, tolerance + 0.08):
        q = p + error
        growth = q * np.log(right) + (1.0 - q) * np.log(wrong)
        assert (growth.max(axis=0) > 0.002).all()
        other = 2.0 * p - q  # as far on the other side: those bets lose there
        best = growth.argmax(axis=0)
        lost = (other * np.log(right) + (1.0 - other) * np.log(wrong))[best, range(3)]
        assert (lost < 0.0).all()


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_the_expected_wealth_never_exceeds_one_and_the_expected_sum_never_the_labels(tolerance):
    bets = CalibrationBets(tolerance)
    evidence, change = Evidence(bets), ChangeDetector(bets)
    all_y = outcomes(CONFIDENCES.shape[0])
    wealth, sums = [], []
    for y in all_y:
        factors = bets.factors(CONFIDENCES, y)
        wealth.append(10.0 ** evidence.log10(evidence.update(evidence.start(), factors)))
        logs = np.array(change.update(change.start(), factors).logs)
        sums.append(bets.weights @ np.expm1(logs))
    for q in true_probabilities(CONFIDENCES, tolerance):
        chance = chances(all_y, q)
        assert chance @ wealth <= 1.0 + 1e-12
        assert chance @ sums <= CONFIDENCES.shape[0] + 1e-12
    assert chances(all_y, CONFIDENCES - 0.3 * (CONFIDENCES > 0.5)) @ wealth > 1.02


def test_a_group_of_copies_keeps_the_promise_and_without_groups_breaks_it():
    bets = CalibrationBets(0.0)
    evidence = Evidence(bets)
    p = np.array([0.6, 0.6, 0.6, 0.9, 0.9])
    copies = np.array([0, 0, 0, 1, 1])
    grouped, plain = 0.0, 0.0
    for y in outcomes(2):  # one outcome a group, copied to its rows
        chance = float(chances(y[None], np.array([0.6, 0.9]))[0])
        for groups in (copies, None):
            factors = bets.factors(p, y[copies], groups=groups)
            value = 10.0 ** evidence.log10(evidence.update(evidence.start(), factors))
            if groups is None:
                plain += chance * value
            else:
                grouped += chance * value
    assert grouped == pytest.approx(1.0, abs=1e-12)
    assert plain > 1.01


def test_rows_sorted_by_outcome_break_the_promise_and_hashes_restore_it():
    """Requests of eight labels, one confidence: the sum over 20 of them, right ones first."""
    bets = CalibrationBets(0.0)
    change = ChangeDetector(bets)
    generator = np.random.default_rng(0)
    p = np.full(200, 0.7)
    highest = {"sorted": [], "hashed": []}
    for _ in range(20):
        states = {key: change.start() for key in highest}
        top = dict.fromkeys(highest, 0.0)
        for _ in range(20):
            y = np.sort(generator.random(200) < 0.7)
            order = generator.integers(0, 2**63, 200)
            for key in highest:
                factors = bets.factors(p, y, order=order if key == "hashed" else None)
                states[key] = change.update(states[key], factors)
                top[key] = max(top[key], change.log10(states[key]))
        for key in highest:
            highest[key].append(top[key])
    assert min(highest["sorted"]) > 5.0
    assert np.median(highest["hashed"]) < np.log10(20 * 200)  # P(M ≥ A within n) ≤ n/A


@pytest.mark.parametrize("margin", [0.0, 0.01, 0.2])
def test_the_comparison_is_fair_to_a_candidate_that_is_no_better(margin):
    incumbent, candidate = np.array([0.9, 0.7, 0.8]), np.array([0.6, 0.75, 1.0])
    counted = CountingOrder.of(3)
    bets = LossBets(margin)
    worst = 0.0
    for y in np.eye(2):  # right, wrong
        gain = top_label_brier(incumbent, np.full(3, y[0])) - top_label_brier(
            candidate, np.full(3, y[0])
        )
        values = bets.factors(gain, counted).values
        assert (values > 0.0).all()
        # The mean is 1 + λ(E[gain] − margin): no more than 1 exactly where E[gain] ≤ margin.
        stakes = (values[:, 0] - 1.0) / (gain[0] - margin)
        np.testing.assert_allclose(values, 1.0 + stakes[:, None] * (gain - margin), rtol=1e-12)
        worst = max(worst, float(stakes.max()))
    assert 0.0 < worst < 1.0 / (1.0 + margin)


def test_the_comparison_finds_what_is_better_and_what_is_worse():
    generator = np.random.default_rng(1)
    q = generator.uniform(0.5, 0.95, 4_000)
    y = generator.random(4_000) < q
    inflated = np.clip(q + 0.2, 0.0, 1.0)
    comparison = Comparison(alpha=0.01)
    good, bad = top_label_brier(q, y), top_label_brier(inflated, y)
    assert comparison.verdict(comparison.update(comparison.start(), bad, good)) == "better"
    assert comparison.verdict(comparison.update(comparison.start(), good, bad)) == "worse"
    assert comparison.verdict(comparison.update(comparison.start(), good, good)) == "undecided"
    wide = Comparison(alpha=0.01, margin=0.2)
    assert wide.verdict(wide.update(wide.start(), bad, good)) == "undecided"
