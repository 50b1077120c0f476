"""Copies share a fold; rows that are equal because scores are coarse do not."""

import numpy as np
import pytest

from trueprob import CalibrationSet, cross_fit, fit, logits_from_probabilities, softmax
from trueprob.folds import equal_rows, fold_groups, probability_grid


def rounded(p, step):
    """Probabilities on a grid whose rows still sum to one: the largest takes the rest."""
    coarse = np.floor(p / step) * step
    coarse[np.arange(len(p)), p.argmax(axis=1)] += 1.0 - coarse.sum(axis=1)
    return coarse


@pytest.fixture
def network(overconfident):
    return overconfident(600, 5)


def test_equal_rows_are_those_of_numpy(network):
    logits = np.concatenate([network[0], network[0][:40], network[0][:3]])
    found = equal_rows(logits)
    _, expected = np.unique(logits, axis=0, return_inverse=True)
    assert found.sizes.sum() == len(logits)
    for row in range(0, len(logits), 50):
        assert np.array_equal(found.row == found.row[row], expected == expected[row])


def test_a_few_copied_rows_share_a_fold_as_if_they_were_groups(network):
    logits, labels = network
    rows = np.concatenate([np.arange(600), np.arange(20)])
    copied = CalibrationSet(logits[rows], labels[rows])
    named = CalibrationSet(logits[rows], labels[rows], groups=rows)
    apart = CalibrationSet(logits[rows], labels[rows], groups=np.arange(620))
    assert fold_groups(logits, None) is None
    for method in ("isotonic", "smart"):
        found = cross_fit(method, copied)
        assert np.array_equal(found[:20], found[600:])  # fitted without both
        assert np.abs(found[:20] - cross_fit(method, apart)[:20]).max() > 0.0
        assert cross_fit(method, named).shape == found.shape
    assert fit(logits[rows], labels[rows], "auto").report.candidates


def test_groups_that_are_given_are_used_instead(network):
    logits = network[0]
    rows = np.concatenate([np.arange(600), np.arange(20)])
    groups = rows % 7
    assert fold_groups(logits[rows], groups) is groups


@pytest.mark.parametrize("step", [0.2, 0.1, 1 / 3, 0.05, 0.01, 0.001])
def test_a_grid_of_probabilities_is_found(network, step):
    logits = logits_from_probabilities(rounded(softmax(network[0] / 4).astype(float), step))
    grid = probability_grid(logits)
    assert grid is not None
    assert (step * grid) == pytest.approx(round(step * grid), abs=1e-9)  # a multiple suffices
    rows = np.concatenate([np.arange(600), np.arange(10)])
    assert fold_groups(logits[rows], None) is None


def test_two_decimals_that_do_not_sum_to_one_are_a_grid():
    generator = np.random.default_rng(0)
    p = softmax(generator.normal(0, 1.5, (400, 20)).astype(np.float32)).round(2)
    assert probability_grid(np.log(np.maximum(p, 1e-12)).astype(np.float32)) == 100


def test_continuous_scores_have_no_grid(network):
    logits, _ = network
    assert probability_grid(logits) is None
    assert probability_grid(np.log(softmax(logits))) is None
    # Nearly all probabilities are 1, which lies on every grid.
    assert probability_grid(np.log(np.maximum(softmax(30 * logits), 1e-12))) is None
    assert probability_grid(np.log(np.full((1, 2), 0.5, np.float32))) is None


def test_coarse_logits_are_no_copies(network):
    whole = np.round(network[0][:, :2])
    assert equal_rows(whole).sizes.size < 600
    assert fold_groups(whole, None) is None
