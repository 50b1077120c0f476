import inspect
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

import trueprob
from trueprob import InvalidInput, softmax
from trueprob.scores import score as scores
from trueprob.scores.binned import BinnedCalibration
from trueprob.scores.confidence import adaptive_ece, auroc


@pytest.fixture
def sample(overconfident):
    logits, labels = overconfident(400, 6)
    return softmax(logits).astype(np.float64), labels


# scikit-learn 1.9 is the independent reference of the next three.
def test_likelihood_is_scikit_learns(sample):
    p, labels = sample
    expected = log_loss(labels, p / p.sum(axis=1, keepdims=True), labels=range(6))
    assert scores.negative_log_likelihood(p, labels) == pytest.approx(expected, rel=1e-6)


def test_brier_score_is_scikit_learns(sample):
    p, labels = sample
    exact = p / p.sum(axis=1, keepdims=True)
    expected = brier_score_loss(labels, exact, labels=range(6), scale_by_half=False)
    assert scores.brier_score(p, labels) == pytest.approx(expected, rel=1e-6)


def test_auroc_is_scikit_learns_with_weights_and_ties(sample):
    p, labels = sample
    confidence = np.round(p.max(axis=1), 2)
    correct = p.argmax(axis=1) == labels
    weights = np.random.default_rng(0).exponential(size=400)
    assert auroc(confidence, correct) == pytest.approx(roc_auc_score(correct, confidence))
    assert auroc(confidence, correct, weights=weights) == pytest.approx(
        roc_auc_score(correct, confidence, sample_weight=weights)
    )


def test_scores_by_hand():
    # Confidences 0.8 (right), 0.6 (wrong); ECE = (|0.8−1| + |0.6−0|)/2, NLL = −(ln .8 + ln .4)/2,
    # Brier = (0.04+0.04 + 0.36+0.36)/2. Classwise: class 0 has p = .8 (is 0), .6 (is not): bins
    # 12 and 9, errors .2 + .6; class 1 has .2 (is not), .4 (is): .2 + .6; mean over 2·2 = 0.4.
    p = np.array([[0.8, 0.2], [0.6, 0.4]])
    result = scores.score(p, [0, 1])
    assert result.n == 2
    assert result.accuracy == 0.5
    assert result.ece == pytest.approx(0.4)
    assert result.mce == pytest.approx(0.6)
    assert result.nll == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert result.brier == pytest.approx(0.4)
    assert result.classwise_ece == pytest.approx(0.4)
    assert result.auroc == 1.0


# Public function → the field of `Scores` that it computes alone.
SINGLE_SCORES = {
    "adaptive_calibration_error": "adaptive_ece",
    "brier_score": "brier",
    "classwise_calibration_error": "classwise_ece",
    "confidence_auroc": "auroc",
    "expected_calibration_error": "ece",
    "maximum_calibration_error": "mce",
    "negative_log_likelihood": "nll",
}


@pytest.mark.parametrize("name", SINGLE_SCORES)
def test_all_public_scores_take_probabilities_and_labels(sample, name):
    p, labels = sample
    compute = getattr(trueprob, name)
    parameters = inspect.signature(compute).parameters
    assert list(parameters)[:2] == ["probabilities", "labels"]
    weights = np.random.default_rng(1).exponential(size=len(labels))
    options = {"weights": weights}
    if "prediction" in parameters:
        options["prediction"] = np.full(len(labels), 2)  # not the argmax
    expected = getattr(scores.score(p, labels, **options), SINGLE_SCORES[name])
    assert compute(p, labels, **options) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(InvalidInput, match="one column for each class"):
        compute(p.max(axis=1), p.argmax(axis=1) == labels)  # confidences and outcomes


def test_no_public_score_is_left_out_of_the_table():
    named = {
        name
        for name in trueprob.__all__
        if name.endswith(("_calibration_error", "_score", "_auroc", "_likelihood"))
    }
    assert named == set(SINGLE_SCORES)


def test_classwise_error_is_the_mean_of_binned_errors(sample):
    p, labels = sample
    expected = [BinnedCalibration.of(p[:, c], labels == c).ece() for c in range(6)]
    assert scores.classwise_calibration_error(p, labels) == pytest.approx(np.mean(expected))


def test_adaptive_error_has_bins_of_equal_mass():
    # 30 distinct confidences: 15 bins of two; only the last two are wrong, by their confidence.
    confidence = np.linspace(0.5, 0.99, 30)
    correct = confidence.copy()
    correct[-2:] = 0.0
    expected = confidence[-2:].sum() / 30
    assert adaptive_ece(confidence, correct) == pytest.approx(expected)


def test_adaptive_error_never_splits_ties():
    # All equal: one bin, where errors in both directions cancel, in whatever order rows come.
    correct = np.array([1, 0] * 50)
    assert adaptive_ece(np.full(100, 0.5), correct) == pytest.approx(0.0)
    assert adaptive_ece(np.full(100, 0.5), np.sort(correct)) == pytest.approx(0.0)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_integer_weights_are_repetitions(seed):
    generator = np.random.default_rng(seed)
    p = generator.dirichlet(np.ones(3), size=20)
    labels = generator.integers(0, 3, 20)
    weights = generator.integers(0, 4, 20)
    weights[0] = 1
    weighted = scores.score(p, labels, weights=weights).to_dict()
    repeated = scores.score(np.repeat(p, weights, axis=0), np.repeat(labels, weights)).to_dict()
    for name in ("accuracy", "ece", "adaptive_ece", "classwise_ece", "mce", "nll", "brier"):
        assert weighted[name] == pytest.approx(repeated[name], abs=1e-9), name


def test_a_probability_of_zero_costs_87_nats():
    p = np.array([[1.0, 0.0]], dtype=np.float32)
    assert scores.negative_log_likelihood(p, [1]) == pytest.approx(87.34, abs=0.01)


def test_undefined_scores_are_null_in_json():
    result = scores.score(np.array([[0.9, 0.1]]), [0])
    assert np.isnan(result.auroc)
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert document["auroc"] is None


def test_the_given_prediction_counts_and_not_the_argmax_of_ties():
    p = np.array([[0.5, 0.5]])
    assert scores.score(p, [1], prediction=[1]).accuracy == 1.0
    assert scores.score(p, [1]).accuracy == 0.0


def test_entropy_of_uniform_rows_is_log_k():
    assert scores.mean_entropy(np.full((3, 4), 0.25)) == pytest.approx(np.log(4))
    assert scores.mean_entropy(np.eye(3)) == pytest.approx(0.0)


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(InvalidInput, match=r"labels must have shape \(2,\)"):
        scores.score(np.full((2, 2), 0.5), [0])
    with pytest.raises(InvalidInput, match="weights must have shape"):
        scores.score(np.full((2, 2), 0.5), [0, 1], weights=[1.0])
    with pytest.raises(InvalidInput, match="probabilities must have shape"):
        scores.negative_log_likelihood([0.5], [0])
