import json

import numpy as np
import pytest
from scipy.stats import chi2

from tests.trueprob.label_shift.made_rows import calibrated_rows, nll, probabilities
from trueprob import InvalidInput, check_label_shift, estimate_class_prior
from trueprob.label_shift.label_shift_check import MOST_ROWS, N_RESAMPLES, _upper

TAIL = (60, 30, 8, 2)


def passed(found):
    return {check.name: check.passed for check in found.checks}


def test_another_mix_is_found_and_adapting_to_it_repairs_the_probabilities():
    labelled, labels = calibrated_rows(0, 1_500, 4)
    traffic, truth = calibrated_rows(1, 4_000, 4, mix=TAIL)
    p = probabilities(traffic)
    found = check_label_shift(probabilities(labelled), labels, p)
    assert found.advised, str(found)
    mix = np.bincount(truth, minlength=4) / len(truth)
    np.testing.assert_allclose(found.prior.target, mix, atol=0.05)
    np.testing.assert_allclose(found.prior.source, 0.25, atol=0.03)
    adapted = found.adapt(p)
    gain = nll(p, truth) - nll(adapted, truth)
    assert gain > 0.15
    assert (adapted.argmax(axis=1) == truth).mean() > (p.argmax(axis=1) == truth).mean() + 0.04
    # The replay, which knows no label of the traffic, foretells the gain.
    replay = found.checks[2]
    assert replay.limit < gain
    assert replay.value == pytest.approx(gain, abs=0.06)
    assert str(found).startswith("advised: the mix of classes changed: ")
    assert found.changed_classes(2) == [0, 3] or found.changed_classes(2) == [0, 2]


def test_the_result_is_json_and_the_same_for_the_same_seed():
    (labelled, labels), (traffic, _) = calibrated_rows(0, 300, 3), calibrated_rows(1, 200, 3)
    first, second, other = (
        check_label_shift(probabilities(labelled), labels, probabilities(traffic), seed=seed)
        for seed in (0, 0, 1)
    )
    document = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert document == second.to_dict()
    assert document["checks"] != other.to_dict()["checks"]
    assert document["target"] == other.to_dict()["target"]
    assert [check["name"] for check in document["checks"]] == [
        "mix_changed", "label_shift_fits", "adapting_helps",
    ]  # fmt: skip


def test_without_a_shift_it_is_rarely_advised():
    advised = changed = fits = 0
    for seed in range(60):
        logits, labels = calibrated_rows(100 + seed, 600, 3)
        p = probabilities(logits)
        found = check_label_shift(p[:300], labels[:300], p[300:])
        advised += found.advised
        changed += found.checks[0].passed
        fits += found.checks[1].passed
    assert changed <= 4  # 0.6 expected; 5 or more have probability 0.0003
    assert fits >= 55  # 59 expected
    assert advised <= min(changed, 2)


def test_a_wrong_temperature_is_no_change_of_the_mix():
    """The likelihood-ratio test takes probabilities for exact, and rejects; the replay does not."""
    by_ratio = changed = 0
    for seed in range(12):
        logits, labels = calibrated_rows(300 + seed, 11_000, 10, offset=np.linspace(0.0, 3.0, 10))
        p = probabilities(logits, temperature=1.15)
        labelled, traffic = slice(0, 1_000), slice(1_000, None)
        frequency = np.bincount(labels, minlength=10) / labels.size
        ratio = estimate_class_prior(p[traffic], frequency).ratio
        by_ratio += 2 * np.log(p[traffic] @ ratio).sum() > chi2.ppf(0.95, 9)
        found = check_label_shift(p[labelled], labels[labelled], p[traffic])
        changed += found.checks[0].passed
        assert not found.advised
    assert by_ratio >= 11
    assert changed <= 2


def test_other_inputs_are_no_label_shift():
    labelled, labels = calibrated_rows(0, 1_000, 4)
    calm, truth = calibrated_rows(1, 1_000, 4)
    noise = np.random.default_rng(2).normal(scale=2.0, size=calm.shape)
    noise[:, 0] += 1.5  # noise looks like class 0, as noisy pictures look like one class
    traffic = probabilities((calm + noise).astype(np.float32))
    found = check_label_shift(probabilities(labelled), labels, traffic)
    assert passed(found)["mix_changed"]
    assert not passed(found)["label_shift_fits"]
    assert nll(found.adapt(traffic), truth) > nll(probabilities(calm), truth)
    assert "does not explain" in str(found)


def test_probabilities_that_are_wrong_by_class_are_not_adapted():
    """A network that favours class 0; one temperature cannot repair that, and EM goes wrong."""
    bias = np.array([2.5, 0.0, 0.0, 0.0], np.float32)
    labelled, labels = calibrated_rows(0, 1_500, 4, scale=1.0)
    harmful = 0
    for seed, mix in enumerate(np.eye(4) * 20 + 1):
        traffic, truth = calibrated_rows(10 + seed, 3_000, 4, mix=mix, scale=1.0)
        biased = probabilities(traffic + bias)
        found = check_label_shift(probabilities(labelled + bias), labels, biased)
        harm = nll(found.adapt(biased), truth) - nll(biased, truth)
        harmful += harm > 0.1
        assert not (found.advised and harm > 0.0), (seed, str(found))
        right = probabilities(traffic)
        found = check_label_shift(probabilities(labelled), labels, right)
        assert nll(found.adapt(right), truth) < nll(right, truth) - 0.1
    assert harmful >= 1  # so the check is needed


def test_few_labelled_rows_of_the_classes_that_grew_are_too_few():
    logits, labels = calibrated_rows(0, 4_000, 3)
    rare = np.flatnonzero(labels == 2)[:6]
    kept = np.concatenate([np.flatnonzero(labels < 2)[:1_000], rare])
    p = probabilities(logits)
    # Class 2 is six of 1 006 rows, and nearly all of the traffic.
    old = np.bincount(labels[kept], minlength=3) / kept.size
    p = p * old
    p /= p.sum(axis=1, keepdims=True)
    traffic = p[np.flatnonzero(labels == 2)[6:806]]
    found = check_label_shift(p[kept], labels[kept], traffic)
    assert passed(found)["mix_changed"]
    assert not found.advised
    assert found.effective_rows < 30
    assert "are worth" in found.checks[2].sentence


def test_groups_are_resampled_together():
    logits, labels = calibrated_rows(0, 100, 3)
    traffic = probabilities(calibrated_rows(1, 400, 3)[0])
    p, y, groups = (
        np.repeat(array, 6, axis=0) for array in (probabilities(logits), labels, np.arange(100))
    )
    apart = check_label_shift(p, y, traffic)
    together = check_label_shift(p, y, traffic, groups=groups)
    # Six copies are one row: the mix of so few rows varies more.
    assert together.checks[0].limit > 1.5 * apart.checks[0].limit
    assert together.prior.target.tolist() == apart.prior.target.tolist()
    names = check_label_shift(p, y, traffic, groups=np.char.add("g", groups.astype(str)))
    assert names.prior.target.tolist() == apart.prior.target.tolist()


def test_weights_count_rows():
    logits, labels = calibrated_rows(0, 400, 3)
    p, traffic = probabilities(logits), probabilities(calibrated_rows(1, 300, 3)[0])
    twice = np.arange(400) < 100
    weighted = check_label_shift(p, labels, traffic, weights=np.where(twice, 2.0, 1.0))
    rows = np.concatenate([np.arange(400), np.flatnonzero(twice)])
    repeated = check_label_shift(p[rows], labels[rows], traffic)
    np.testing.assert_allclose(weighted.prior.target, repeated.prior.target, rtol=1e-9)
    without = check_label_shift(p, labels, traffic, weights=(~twice).astype(float))
    left = check_label_shift(p[100:], labels[100:], traffic)
    assert without.to_dict() == left.to_dict()


def test_a_class_without_a_labelled_row_keeps_its_share():
    logits, labels = calibrated_rows(0, 1_000, 4)
    seen = labels != 3
    traffic = probabilities(calibrated_rows(1, 3_000, 4, mix=TAIL)[0])
    found = check_label_shift(probabilities(logits)[seen], labels[seen], traffic)
    assert found.prior.ratio[3] == 1.0
    assert found.prior.target[3] == found.prior.source[3]
    assert found.prior.target.sum() == pytest.approx(1.0)


def test_large_sets_are_thinned():
    logits, labels = calibrated_rows(0, 2 * MOST_ROWS + 2_000, 2)
    p, half = probabilities(logits), MOST_ROWS + 1_000
    found = check_label_shift(p[:half], labels[:half], p[half:])
    assert (found.labelled_rows, found.traffic_rows) == (MOST_ROWS, MOST_ROWS)


def test_a_limit_is_exceeded_as_often_as_its_level_says():
    values = np.arange(1.0, N_RESAMPLES + 1.0)
    # With the observed value there are 200: ten of them are 5 %, two are 1 %.
    assert _upper(values, 0.05) == 190.0
    assert _upper(values, 0.01) == 198.0


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"rows": 49}, "labels", "at least 50 rows, got 49"),
        ({"traffic_rows": 199}, "traffic", "at least 200 rows, got 199"),
        ({"groups": np.arange(60) // 2}, "labels", "at least 50 groups, got 30"),
        ({"traffic_columns": 2}, "traffic", r"shape \(n, 3\)"),
        ({"weights": -np.ones(60)}, "weights", "not negative"),
    ],
)
def test_bad_input_names_the_argument(change, field, message):
    logits, y = calibrated_rows(0, 300, 3)
    p, rows = probabilities(logits), change.get("rows", 60)
    traffic = p[: change.get("traffic_rows", 300), : change.get("traffic_columns", 3)]
    extra = {name: change[name] for name in ("groups", "weights") if name in change}
    with pytest.raises(InvalidInput, match=message) as raised:
        check_label_shift(p[:rows], y[:rows], traffic, **extra)
    assert raised.value.field == field
