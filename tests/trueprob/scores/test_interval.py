import dataclasses

import numpy as np
import pytest

from trueprob import InvalidInput, softmax
from trueprob.scores import score as scores
from trueprob.scores.details import detailed_scores
from trueprob.scores.interval import INTERVAL_SCORES, bootstrap_interval


@pytest.fixture
def sample(overconfident):
    logits, labels = overconfident(400)
    return softmax(logits), labels


@pytest.mark.slow
def test_the_value_is_the_score(sample):
    p, labels = sample
    plain = scores.score(p, labels).to_dict()
    detailed = detailed_scores(p, labels).to_dict()
    for name in INTERVAL_SCORES:
        interval = bootstrap_interval(name, p, labels)
        expected = plain[name] if name in plain else detailed[name]
        assert interval.value == pytest.approx(expected, rel=1e-9), name
        assert interval.low < interval.value < interval.high, name
        assert (interval.n, interval.n_units, interval.level) == (400, 400, 0.9)


def test_the_interval_of_a_mean_is_the_normal_one(sample):
    p, labels = sample
    interval = bootstrap_interval("nll", p, labels, level=0.9)
    rows = -np.log(p[np.arange(400), labels])
    half = 1.645 * rows.std() / 20
    assert interval.high - interval.value == pytest.approx(half, rel=0.12)
    assert interval.value - interval.low == pytest.approx(half, rel=0.12)


def test_a_level_is_kept_over_repeated_samples(overconfident):
    # The true accuracy is that of many rows; 60 intervals of 80 % hold it about 48 times
    # (standard deviation 3.1).
    logits, labels = overconfident(60 * 200, seed=3)
    truth = scores.score(softmax(logits), labels).accuracy
    hits = 0
    for part in range(60):
        rows = slice(200 * part, 200 * (part + 1))
        found = bootstrap_interval("accuracy", softmax(logits[rows]), labels[rows], level=0.8)
        hits += found.low <= truth <= found.high
    assert 38 <= hits <= 58


@pytest.mark.parametrize("name", ["nll", "ece", "auroc"])
def test_pairs_are_resampled_together(sample, name):
    p, labels = sample
    nearly = 0.999 * p + 0.001 / 5
    difference = bootstrap_interval(name, nearly, labels, other=p)
    alone = bootstrap_interval(name, p, labels)
    assert difference.high - difference.low < 0.2 * (alone.high - alone.low)
    same = bootstrap_interval(name, p, labels, other=p)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_groups_are_drawn_whole(sample):
    p, labels = sample
    four = np.repeat(p, 4, axis=0), np.repeat(labels, 4)
    rows = bootstrap_interval("nll", p, labels)
    grouped = bootstrap_interval("nll", *four, groups=np.repeat(np.arange(400), 4))
    assert grouped.n_units == 400
    assert grouped.high - grouped.low == pytest.approx(rows.high - rows.low, rel=1e-6)
    recomputed = bootstrap_interval("auroc", *four, groups=np.repeat(np.arange(400), 4))
    single = bootstrap_interval("auroc", p, labels)
    assert recomputed.high - recomputed.low == pytest.approx(single.high - single.low, rel=1e-6)


def test_the_same_call_gives_the_same_interval(sample):
    for name in ("ece", "aurc"):
        first = bootstrap_interval(name, *sample, seed=1)
        assert first == bootstrap_interval(name, *sample, seed=1)
        assert first != bootstrap_interval(name, *sample, seed=2)


def test_an_auroc_that_is_undefined_stays_so():
    interval = bootstrap_interval("auroc", np.full((5, 2), [0.9, 0.1]), np.zeros(5, np.int64))
    assert np.isnan([interval.value, interval.low, interval.high]).all()


def test_what_cannot_be_resampled_is_refused(sample):
    p, labels = sample
    with pytest.raises(InvalidInput, match="score must be one of accuracy, nll"):
        bootstrap_interval("mce", p, labels)
    with pytest.raises(InvalidInput, match="level must lie between 0 and 1"):
        bootstrap_interval("nll", p, labels, level=90)
    with pytest.raises(InvalidInput, match=r"other must have shape \(400, 5\)"):
        bootstrap_interval("nll", p, labels, other=p[:, :4] / p[:, :4].sum(1, keepdims=True))


def test_detailed_scores_are_json_and_heed_weights(sample):
    p, labels = sample
    found = detailed_scores(p, labels)
    assert set(found.to_dict()) == {field.name for field in dataclasses.fields(found)}
    assert found.to_dict()["top_label_brier"]["n"] == 400
    weights = np.arange(400) % 2
    half = detailed_scores(p[1::2], labels[1::2])
    weighted = detailed_scores(p, labels, weights=weights)
    assert weighted.smooth_ece == pytest.approx(half.smooth_ece)
    assert weighted.aurc == pytest.approx(half.aurc)
    assert weighted.mean_entropy == pytest.approx(half.mean_entropy)
    assert weighted.debiased_ece == pytest.approx(half.debiased_ece)
