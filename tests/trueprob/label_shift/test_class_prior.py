import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import norm

from tests.trueprob.label_shift.made_rows import calibrated_rows, probabilities
from trueprob import InvalidInput, adapt_to_class_prior, estimate_class_prior
from trueprob.label_shift.class_prior import ratios_by_em


def posterior(x, prior):
    """P(class | x) of three normal classes by Bayes' rule."""
    density = np.column_stack([norm.pdf(x, mean) for mean in (-1.0, 0.5, 2.0)]) * prior
    return density / density.sum(axis=1, keepdims=True)


def test_adapted_probabilities_are_those_of_bayes_rule_with_the_new_prior():
    old, new = np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.2, 0.7])
    x = np.linspace(-4, 5, 50)
    adapted = adapt_to_class_prior(posterior(x, old), old, new)
    np.testing.assert_allclose(adapted, posterior(x, new), rtol=1e-12)
    # the inverse ratio, or no change at all, is far away
    assert np.abs(adapt_to_class_prior(posterior(x, new), old, new) - posterior(x, new)).max() > 0.1
    back = adapt_to_class_prior(adapted, new, old)
    np.testing.assert_allclose(back, posterior(x, old), rtol=1e-12)


def test_em_finds_the_prior_of_the_rows():
    old, new = np.array([0.5, 0.3, 0.2]), np.array([0.05, 0.25, 0.7])
    generator = np.random.default_rng(0)
    labels = generator.choice(3, 20_000, p=new)
    x = generator.normal(loc=np.array([-1.0, 0.5, 2.0])[labels])
    found = estimate_class_prior(posterior(x, old), old)
    assert found.converged
    np.testing.assert_allclose(found.target, new, atol=0.015)
    np.testing.assert_allclose(found.ratio, found.target / old)
    assert found.distance == pytest.approx(new @ np.log(new / old), abs=0.03)
    np.testing.assert_allclose(
        found.adapt(posterior(x, old)), posterior(x, found.target), rtol=1e-9
    )


def test_em_ends_where_a_general_optimiser_does():
    """The maximum of Σ log Σ p_c·π̂_c/π_c + a·Σ π_c·log π̂_c, a = k/2, found by BFGS."""
    logits, _ = calibrated_rows(1, 3_000, 4, mix=(8, 1, 2, 4))
    p = probabilities(logits).astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    source = np.array([0.1, 0.4, 0.3, 0.2])

    def loss(free):
        log_target = log_softmax(np.append(free, 0.0))
        rows = np.log(p @ (np.exp(log_target) / source)).sum()
        return -(rows + 4 / 2 * source @ log_target) / len(p)

    best = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-8})
    slow = np.exp(log_softmax(np.append(best.x, 0.0)))
    found = estimate_class_prior(p, source)
    np.testing.assert_allclose(found.target, slow, atol=2e-5)
    assert np.abs(slow - source).max() > 0.1


def test_rows_with_the_old_mix_are_a_fixed_point_even_at_a_wrong_temperature():
    logits, _ = calibrated_rows(2, 500, 5)
    for temperature in (0.5, 1.0, 3.0):
        p = probabilities(logits, temperature=temperature)
        found = estimate_class_prior(p, p.astype(np.float64).mean(axis=0))
        np.testing.assert_allclose(found.ratio, 1.0, atol=1e-5)
        np.testing.assert_allclose(found.adapt(p), p, atol=1e-5)


def test_zeros_and_absent_classes_leave_every_share_positive():
    certain = np.tile([[1.0, 0.0, 0.0]], (1_000, 1))
    found = estimate_class_prior(certain, [0.2, 0.3, 0.5])
    assert found.target[0] > 0.99
    # a = 1.5 pseudo-rows with the old mix
    np.testing.assert_allclose(found.target[1:], [0.45 / 1001.5, 0.75 / 1001.5], rtol=1e-3)
    assert np.isfinite(found.distance)
    np.testing.assert_array_equal(found.adapt(certain), certain)


def test_fixed_classes_keep_their_share():
    logits, _ = calibrated_rows(3, 2_000, 4, mix=(10, 1, 1, 10))
    p = probabilities(logits)
    source = np.full(4, 0.25)
    found = estimate_class_prior(p, source, fixed=[False, True, False, False])
    assert found.ratio[1] == 1.0
    assert found.target.sum() == pytest.approx(1.0)
    assert found.target[2] < 0.15 < estimate_class_prior(p, source).target[0]
    # A class that the old mix never has is fixed by itself.
    never = np.column_stack([p[:, :3] / p[:, :3].sum(axis=1, keepdims=True), np.zeros(len(p))])
    found = estimate_class_prior(never.astype(np.float32), [0.4, 0.3, 0.3, 0.0])
    assert (found.ratio[3], found.target[3]) == (1.0, 0.0)


def test_columns_of_weights_are_separate_estimates():
    logits, _ = calibrated_rows(4, 60, 3)
    p = probabilities(logits).astype(np.float64)
    generator = np.random.default_rng(0)
    weights = generator.integers(0, 4, size=(60, 5)).astype(np.float64)
    source = generator.dirichlet(np.full(3, 5.0), size=5).T
    free = np.zeros(3, np.bool_)
    together, _, converged = ratios_by_em(p, weights, source, np.ones((3, 5)), free)
    assert converged
    for column in range(5):
        rows = np.repeat(p, weights[:, column].astype(int), axis=0)
        alone = estimate_class_prior(rows, source[:, column])
        np.testing.assert_allclose(together[:, column], alone.ratio, rtol=1e-6)
    # The likelihood has one maximum: the start does not matter.
    far, _, _ = ratios_by_em(p, weights, source, np.tile([[9.0], [0.1], [0.1]], (1, 5)), free)
    np.testing.assert_allclose(far, together, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_estimate_is_a_mix_and_follows_a_permutation_of_the_classes(k, n, seed):
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.full(k, 0.3), size=n)
    source = generator.dirichlet(np.full(k, 3.0))
    found = estimate_class_prior(p, source)
    assert found.target.sum() == pytest.approx(1.0)
    assert (found.target > 0.0).all()
    order = generator.permutation(k)
    permuted = estimate_class_prior(p[:, order], source[order])
    np.testing.assert_allclose(permuted.target, found.target[order], rtol=1e-6)
    adapted = found.adapt(p)
    np.testing.assert_allclose(adapted.sum(axis=1), 1.0)
    np.testing.assert_allclose(
        adapted, adapt_to_class_prior(p, source, found.target), rtol=1e-7, atol=1e-300
    )


GOOD = np.array([[0.5, 0.5], [0.9, 0.1]])


@pytest.mark.parametrize(
    ("call", "field", "message"),
    [
        (lambda: estimate_class_prior([[1.0]], [1.0]), "probabilities", r"shape \(n, k\)"),
        (lambda: estimate_class_prior([[1, 0]], [0.5, 0.5]), "probabilities", "floats"),
        (lambda: estimate_class_prior([[2.0, 1.0]], [0.5, 0.5]), "probabilities", "not logits"),
        (lambda: estimate_class_prior([[1.5, -0.5]], [0.5, 0.5]), "probabilities", "negative"),
        (lambda: estimate_class_prior([[np.nan, 1.0]], [0.5, 0.5]), "probabilities", "sum to 1"),
        (lambda: estimate_class_prior(GOOD, [0.5, 0.4]), "source", "must sum to 1"),
        (lambda: estimate_class_prior(GOOD, [1.0]), "source", r"shape \(2,\)"),
        (lambda: estimate_class_prior(GOOD, [1.0, 0.0], fixed=[False] * 2), "source", "positive"),
        (lambda: estimate_class_prior(GOOD, [0.5, 0.5], fixed=[1, 0]), "fixed", "booleans"),
        (lambda: adapt_to_class_prior(GOOD, [1.0, 0.0], [0.5, 0.5]), "target", "never has"),
        (
            lambda: adapt_to_class_prior([[0.0, 1.0]], [0.5, 0.5], [1.0, 0.0]),
            "target",
            "leave every row a class",
        ),
    ],
)  # fmt: skip
def test_bad_input_names_the_argument(call, field, message):
    with pytest.raises(InvalidInput, match=message) as raised:
        call()
    assert raised.value.field == field
