import json

import numpy as np
import pytest

from trueprob import InvalidInput, class_scores, classwise_calibration_error, softmax
from trueprob.scores.binned import BinnedCalibration
from trueprob.scores.classes import binary_score


@pytest.fixture
def sample(overconfident):
    logits, labels = overconfident(400, 6)
    return softmax(logits).astype(np.float64), labels


def test_each_class_is_scored_by_hand(sample):
    p, labels = sample
    top = p.argmax(axis=1)
    scores = class_scores(p, labels)
    assert sorted(each.class_index for each in scores) == list(range(6))
    assert sum(each.n for each in scores) == 400
    for each in scores:
        c, rows = each.class_index, top == each.class_index
        assert each.n == rows.sum()
        assert each.confidence == pytest.approx(p[rows, c].mean())
        assert each.accuracy == pytest.approx((labels[rows] == c).mean())
        assert each.gap == pytest.approx(each.confidence - each.accuracy)
        assert each.probability == pytest.approx(p[:, c].mean())
        assert each.frequency == pytest.approx((labels == c).mean())
    mean = np.mean([each.ece for each in scores])
    assert mean == pytest.approx(classwise_calibration_error(p, labels))


def test_the_worst_class_is_the_one_that_chance_explains_least():
    # Class 0: 2 of 400 predictions, 50 points off. Class 2: 200 predictions, 20 points off.
    p = np.full((400, 3), [0.05, 0.9, 0.05])
    p[:2], p[200:] = [0.9, 0.05, 0.05], [0.05, 0.05, 0.9]
    labels = np.ones(400, dtype=int)
    labels[0], labels[200:340] = 0, 2
    labels[2:22], labels[22:24] = 0, 2  # of class 1 nearly nine in ten are right
    scores = class_scores(p, labels)
    gaps = {each.class_index: each.gap for each in scores}
    assert gaps == pytest.approx({0: 0.4, 1: 0.9 - 176 / 198, 2: 0.2}, abs=1e-6)
    assert scores[0].class_index == 2
    deviation = np.sqrt(200 * 0.9 * 0.1)
    assert scores[0].standard_errors == pytest.approx(200 * 0.2 / deviation)


def test_a_class_that_is_never_predicted_is_told_by_its_probability():
    p = np.full((100, 3), [0.9, 0.08, 0.02])
    labels = np.repeat([0, 1, 2], [70, 5, 25])
    worst = class_scores(p, labels)[0]
    assert (worst.class_index, worst.n) == (2, 0)
    document = json.loads(json.dumps(worst.to_dict(), allow_nan=False))
    assert document["confidence"] is document["accuracy"] is document["gap"] is None


def test_integer_weights_are_repetitions(sample):
    p, labels = sample
    weights = np.random.default_rng(0).integers(1, 4, 400)
    weighted = {c.class_index: c for c in class_scores(p, labels, weights=weights)}
    repeated = class_scores(np.repeat(p, weights, axis=0), np.repeat(labels, weights))
    for each in repeated:
        for name in ("confidence", "accuracy", "probability", "frequency", "ece"):
            same = getattr(weighted[each.class_index], name)
            assert same == pytest.approx(getattr(each, name), abs=1e-9), name


def test_two_classes_have_one_number_that_tells_10_from_90_percent():
    p = np.array([0.1, 0.9] * 100)
    labels = np.zeros(200, dtype=int)
    labels[1::2] = 1
    labels[::10] = 1  # of 100 predictions of class 0, 20 are wrong; of class 1 none
    both = np.stack([1.0 - p, p], axis=1)
    binary = binary_score(both, labels)
    assert binary.ece == pytest.approx(0.1)
    assert BinnedCalibration.of(both.max(axis=1), both.argmax(axis=1) == labels).ece() < 0.01
    assert binary_score(np.full((2, 3), 1 / 3), [0, 1]) is None


def test_the_given_prediction_counts():
    scores = class_scores([[0.5, 0.5]], [1], prediction=[1])
    assert {each.class_index: each.n for each in scores} == {0: 0, 1: 1}


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(InvalidInput, match=r"labels must have shape \(2,\)"):
        class_scores(np.full((2, 2), 0.5), [0])
    with pytest.raises(InvalidInput, match="prediction must"):
        class_scores(np.full((2, 2), 0.5), [0, 1], prediction=[0, 2])
