import numpy as np
import pytest

from trueprob import logit_gap, softmax
from trueprob.calibrators import fit_smart
from trueprob.calibrators.smart.second_stage import (
    RIDGE,
    SecondStage,
    _knots,
    _minimise,
    _stage,
    confidence_logit,
    fit_second_stage,
)
from trueprob.scores.score import score

IDENTITY = SecondStage((-1.0, 0.0, 2.0), (-1.0, 0.0, 2.0))


def drawn(n, *, bend, seed=0):
    """Logits of a confidence, and hits drawn from a map of them."""
    generator = np.random.default_rng(seed)
    logit = generator.normal(2.0, 1.5, n)
    return logit, generator.random(n) < 1 / (1 + np.exp(-bend(logit)))


def fit(logit, correct, share):
    knots = _knots(logit)
    return _stage(knots, _minimise(logit, correct, share, knots, np.zeros(len(knots))))


def squashed(logit):
    """Right only as far as 1.5; beyond, hardly more often right."""
    return np.where(logit < 1.5, logit, 1.5 + 0.2 * (logit - 1.5))


def test_the_map_interpolates_and_goes_on_with_its_last_slopes():
    stage = SecondStage((-1.0, 0.0, 2.0), (-3.0, 0.0, 1.0))
    np.testing.assert_allclose(
        stage.map(np.array([-2.0, -1.0, -0.5, 0.0, 1.0, 2.0, 4.0])),
        [-6.0, -3.0, -1.5, 0.0, 0.5, 1.0, 2.0],
    )


@pytest.mark.parametrize("k", [2, 10, 80])
def test_the_identity_changes_nothing(k):
    p = softmax(np.random.default_rng(k).normal(0, 3, (50, k)).astype(np.float32))
    mapped = IDENTITY.apply(p.copy(), p.argmax(axis=1))
    np.testing.assert_allclose(mapped, p, rtol=3e-6, atol=1e-9)


def test_the_other_classes_keep_their_shares():
    p = softmax(np.random.default_rng(0).normal(0, 2, (30, 6)).astype(np.float32))
    top = p.argmax(axis=1)
    stage = SecondStage((-5.0, 5.0), (-3.0, 9.0))
    mapped = stage.apply(p.copy(), top)
    rows = np.arange(30)
    np.testing.assert_allclose(mapped.sum(axis=1), 1.0, rtol=1e-6)
    before, after = p.copy(), mapped.copy()
    before[rows, top] = after[rows, top] = 0.0
    np.testing.assert_allclose(
        after / after.sum(axis=1, keepdims=True), before / before.sum(axis=1, keepdims=True),
        rtol=1e-5,
    )  # fmt: skip
    logit, _ = confidence_logit(p, top)
    expected = 1 / (1 + np.exp(-stage.map(logit)))
    np.testing.assert_allclose(mapped[rows, top], expected, rtol=1e-5)


def test_the_confidence_never_falls_below_the_runner_up():
    p = np.array([[0.5, 0.4, 0.1]], np.float32)
    down = SecondStage((-1.0, 1.0), (-21.0, -19.0))
    mapped = down.apply(p.copy(), np.array([0]))
    # r = 0.8 of the rest, so c′ = r / (1 + r) = 4/9, and the runner-up has nearly as much.
    np.testing.assert_allclose(mapped[0], [4 / 9, 4 / 9, 1 / 9], rtol=1e-6)
    assert mapped[0, 0] > mapped[0, 1]


def test_confidences_near_one_keep_their_digits():
    logits = np.array([[40.0, 0.0], [80.0, 0.0]], np.float32)
    logit, rest = confidence_logit(softmax(logits), np.array([0, 0]))
    np.testing.assert_allclose(logit, [40.0, 80.0], rtol=1e-5)
    np.testing.assert_allclose(rest, np.exp([-40.0, -80.0]), rtol=1e-4)


@pytest.mark.slow
def test_a_bent_truth_is_found_and_a_straight_one_left_alone():
    logit, correct = drawn(6000, bend=squashed)
    stage = fit_second_stage(logit, correct, None)
    assert stage is not None
    grid = np.linspace(0.0, 5.0, 11)
    assert np.abs(stage.map(grid) - squashed(grid)).max() < 0.35
    kept = [fit_second_stage(*drawn(6000, bend=lambda u: u, seed=seed), None) for seed in range(10)]
    # Where there is nothing to find, what is taken all the same must be next to nothing.
    for taken in (stage for stage in kept if stage is not None):
        assert np.abs(taken.map(grid) - grid).max() < 0.6
    assert sum(stage is None for stage in kept) >= 5


def test_the_fit_is_the_minimum_of_its_objective():
    logit, correct = drawn(800, bend=squashed, seed=3)
    stage = fit(logit, correct, np.ones(800))
    knots = np.array(stage.knots)

    def objective(values):
        slopes = np.diff(values) / np.diff(knots)
        middle = len(knots) // 2
        shift = values[middle] - knots[middle]
        mapped = SecondStage(stage.knots, tuple(values)).map(logit)
        loss = np.logaddexp(0, np.where(correct, -mapped, mapped)).sum()
        return loss + RIDGE * (shift**2 + (np.log(slopes) ** 2).sum())

    best = objective(np.array(stage.values))
    generator = np.random.default_rng(0)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(30):
            other = np.array(stage.values) + size * generator.normal(size=len(knots))
            if (np.diff(other) > 0).all():
                assert objective(other) >= best - 1e-6


def test_weights_count_as_repeated_rows():
    logit, correct = drawn(600, bend=squashed, seed=5)
    twice = np.concatenate([np.arange(600), np.arange(0, 600, 2)])
    weights = np.where(np.arange(600) % 2 == 0, 2.0, 1.0)
    repeated = fit(logit[twice], correct[twice], np.ones(900))
    weighted = fit(logit, correct, weights)
    # The knots are quantiles of rows, not of weight, so they differ a little.
    grid = np.linspace(0.0, 4.0, 9)
    np.testing.assert_allclose(weighted.map(grid), repeated.map(grid), atol=0.15)


@pytest.mark.parametrize("name", ["20news_cleanlabcv", "agnews_gpt2zs"])
def test_on_real_logits_it_mends_what_the_first_stage_cannot(name, real_set):
    """Fitted on four fifths of the validation rows, scored on the other."""
    (logits, labels), _ = real_set(name)
    kept = np.arange(len(labels)) % 5 != 0
    calibrator = fit_smart(logits[kept], labels[kept]).calibrator
    assert calibrator.second_stage is not None
    held, truth = logits[~kept], labels[~kept]
    with_stage = score(calibrator.predict_proba(held), truth, prediction=held.argmax(axis=1))
    first = type(calibrator)(
        calibrator.n_classes, calibrator.edges, calibrator.log_slopes, calibrator.uniform_weight
    )
    without = score(first.predict_proba(held), truth, prediction=held.argmax(axis=1))
    assert with_stage.ece < without.ece
    assert with_stage.nll < without.nll
    assert with_stage.auroc == pytest.approx(without.auroc, abs=0.01)
    np.testing.assert_array_equal(calibrator.temperature(held), first.temperature(held))
    assert (logit_gap(held) >= 0).all()
