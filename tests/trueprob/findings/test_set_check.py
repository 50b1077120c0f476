"""Broken sets are found and their repair is named; honest ones pass, drift included."""

import itertools
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from trueprob import (
    CalibrationSet,
    InvalidInput,
    Severity,
    SuspiciousSet,
    check_set,
    fit,
    log_softmax,
    logits_from_log_probabilities,
    logits_from_probabilities,
    softmax,
)
from trueprob.cli.__main__ import main
from trueprob.findings.agreement import agreement, column_ranks, moments
from trueprob.findings.class_order import mann_whitney, named_orders, sign_test
from trueprob.fitting.fit import fit_calibration_set

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.fixture(scope="module")
def digits():
    with np.load(EXAMPLES / "digits_test.npz") as arrays:
        return arrays["logits"], arrays["labels"].astype(np.int64)


def found(logits, labels, **arrays):
    return check_set(CalibrationSet(logits, labels, **arrays))


def held(logits, labels):
    return [f.code for f in found(logits, labels) if f.severity is Severity.HOLD]


def the_one(logits, labels, code):
    (finding,) = (f for f in found(logits, labels) if f.code == code)
    return finding


def draw(n, k, seed, *, strength=2.0, bias=0.0, noise=0.0, factor=2.5):
    """Labels drawn from softmax(z), and the scores of a network that is wrong about z."""
    generator = np.random.default_rng(seed)
    z = strength * generator.normal(size=(n, k))
    labels = (z + generator.gumbel(size=(n, k))).argmax(axis=1)
    scores = factor * z + np.linspace(0.0, bias, k) + noise * generator.normal(size=(n, k))
    return scores.astype(np.float32), labels


# ----- The formulas -----


def test_moments_are_those_of_all_assignments():
    generator = np.random.default_rng(0)
    for k, n in [(2, 6), (3, 7), (4, 5)]:
        logits = generator.normal(size=(n, k)).round(1).astype(np.float32)  # with ties
        labels = generator.integers(0, k, n)
        ranks = column_ranks(logits)
        sums = [ranks[list(p), np.arange(n)].sum() for p in itertools.permutations(labels)]
        total, deviation = moments(ranks, labels)
        assert total == pytest.approx(ranks[labels, np.arange(n)].sum())
        assert np.mean(sums) == pytest.approx(0.0, abs=1e-12)
        assert np.std(sums) == pytest.approx(deviation)


def test_the_variance_is_that_of_the_doubly_centred_matrix():
    logits, labels = draw(200, 5, 0)
    ranks = column_ranks(logits)
    matrix = ranks[labels].T  # a_{i, y_j}
    d = matrix - matrix.mean(axis=0) - matrix.mean(axis=1)[:, None] + matrix.mean()
    assert moments(ranks, labels)[1] == pytest.approx(np.sqrt(np.square(d).sum() / 199))


def test_ranks_share_ties():
    scipy_stats = pytest.importorskip("scipy.stats")
    logits = np.random.default_rng(1).integers(0, 4, (30, 3)).astype(np.float32)
    expected = scipy_stats.rankdata(log_softmax(logits).astype(np.float32), axis=0)
    assert np.allclose(column_ranks(logits).T, (2 * expected - 31) / 29)
    assert np.array_equal(column_ranks(logits[:1]), np.zeros((3, 1)))


def test_two_standard_errors_are_what_a_normal_tail_says_at_50_rows():
    logits, labels = draw(50, 3, 0)
    ranks = column_ranks(logits)
    generator = np.random.default_rng(0)
    z = np.array([agreement(ranks, generator.permutation(labels)) for _ in range(4_000)])
    assert 0.016 < (z >= 2.0).mean() < 0.030  # 0.0228
    assert z.std() == pytest.approx(1.0, abs=0.03)


def test_the_sign_test_is_exact_where_it_matters():
    speaking, counts = np.array([14, 13, 7, 28]), np.array([14, 14, 14, 30])
    exact = [1 / 2**14, 15 / 2**14, None, 466 / 2**30]
    p = sign_test(speaking, counts)
    for value, expected in zip(p, exact, strict=True):
        assert value == pytest.approx(expected) if expected else value > 0.01


def test_named_orders_are_permutations_that_differ():
    for k in (2, 3, 4, 10, 11, 100):
        orders = [order for order, _ in named_orders(k, 1)]
        assert len(set(orders)) == len(orders)
        assert all(sorted(order) == list(range(k)) for order in orders)
    assert len(orders) == 6  # the shift, reversed, text from 0 and from 1, both directions
    assert [order for order, _ in named_orders(2, 1)] == []  # the pair says it


def test_the_pair_test_is_that_of_mann_and_whitney():
    scipy_stats = pytest.importorskip("scipy.stats")
    generator = np.random.default_rng(0)
    for n, m in [(15, 20), (40, 9)]:
        high, low = generator.normal(1.0, size=n), generator.normal(size=m)
        expected = scipy_stats.mannwhitneyu(
            high, low, alternative="greater", method="asymptotic", use_continuity=False
        )
        assert mann_whitney(high, low) == pytest.approx(expected.pvalue)
    assert mann_whitney(np.ones(9), np.ones(9)) == pytest.approx(0.5)


# ----- Broken sets -----


@pytest.mark.parametrize(
    ("change", "look", "remedy"),
    [
        (lambda y: (y + 1) % 10, "labels look shifted by one", "lower each label by one"),
        (lambda y: (y - 1) % 10, "labels look shifted by one", "raise each label by one"),
        (lambda y: (y + 3) % 10, "shifted by 3", "lower each label by 3 (modulo 10)"),
        (lambda y: (y - 4) % 10, "shifted by 4", "raise each label by 4 (modulo 10)"),
        (lambda y: 9 - y, "classes look reversed", "number the classes from the other end"),
        (
            lambda y: np.array([0, 1, 2, 7, 4, 5, 6, 3, 8, 9])[y],
            "classes 3 and 7 look exchanged",
            "exchange the two labels",
        ),
        (
            lambda y: np.array([5, 1, 2, 7, 4, 0, 6, 3, 8, 9])[y],
            "look exchanged",
            "exchange the two labels of each pair",
        ),
        (
            lambda y: np.array([4, 9, 0, 1, 7, 2, 8, 5, 6, 3])[y],
            "classes look permuted: label 0 looks like class 2",
            "renumber the labels",
        ),
    ],
)
def test_another_class_order_is_named_with_its_repair(digits, change, look, remedy):
    logits, labels = digits
    finding = the_one(logits, change(labels), "class_order")
    assert finding.severity is Severity.HOLD
    assert look in finding.sentence
    assert "0.916 after the repair" in finding.sentence
    assert finding.repair.sentence == remedy
    assert np.array_equal(np.array(finding.repair.labels)[change(labels)], labels)
    assert finding.repair.accuracy == pytest.approx(0.916, abs=1e-3)
    assert json.loads(json.dumps(finding.to_dict()))["repair"]["labels"]


def test_labels_that_count_from_one_are_named():
    logits, labels = draw(300, 6, 0)
    fewer = labels < 5
    finding = the_one(logits[fewer], labels[fewer] + 1, "class_order")
    assert finding.sentence.startswith("labels look counted from 1")


@pytest.mark.parametrize("start", [0, 1])
def test_classes_that_are_sorted_as_text_are_named(start):
    logits, labels = draw(600, 12, 0)
    order = np.array(sorted(range(12), key=lambda c: str(c + start)))
    for change in (order, np.argsort(order)):
        finding = the_one(logits, change[labels], "class_order")
        shown = "0, 1, 10, 11" if start == 0 else "1, 10, 11, 12"
        assert f"classes look sorted as text ({shown}, …)" in finding.sentence
        assert np.array_equal(np.array(finding.repair.labels)[change], np.arange(12))


def test_two_classes_that_a_biased_network_confuses_and_exchanges_are_named():
    logits, labels = draw(400, 2, 0, bias=4.0)
    assert held(logits, labels) == []
    finding = the_one(logits, 1 - labels, "class_order")
    assert "classes 0 and 1 look exchanged" in finding.sentence
    assert finding.repair.labels == (1, 0)


def test_an_exchanged_rare_event_is_named():
    logits, _ = draw(1_000, 2, 0, bias=-6.0, factor=1.0)
    rare = (logits + np.random.default_rng(0).gumbel(size=logits.shape)).argmax(axis=1)
    assert 20 <= rare.sum() < 100
    assert held(logits, rare) == []
    assert the_one(logits, 1 - rare, "class_order").repair.labels == (1, 0)


def test_an_exchange_is_named_on_few_rows_and_among_many_classes():
    pairs = Counter()
    for seed in range(20):
        for n, k, noise in [(200, 10, 1.5), (1_500, 100, 0.0)]:
            logits, labels = draw(n, k, seed, strength=4.0, noise=noise)
            a, b = np.argsort(-np.bincount(labels, minlength=k))[:2]
            order = np.arange(k)
            order[[a, b]] = b, a
            found_orders = [f.repair.labels for f in found(logits, order[labels]) if f.repair]
            pairs[k] += found_orders == [tuple(order)]
            assert held(logits, labels) == []
    assert min(pairs[10], pairs[100]) >= 19


@pytest.mark.parametrize("rows", [1, -1, 7, -100, 256])
def test_misaligned_rows_are_named_with_their_repair(digits, rows):
    logits, labels = digits
    given = np.roll(labels, rows)
    finding = the_one(logits, given, "rows_misaligned")
    assert finding.severity is Severity.HOLD
    assert np.array_equal(np.roll(given, finding.repair.rows), labels)


def test_misaligned_rows_of_a_sampled_set_are_named():
    logits, labels = draw(50_001, 10, 0)
    for rows in (1, -9, 25_000):
        finding = the_one(logits, np.roll(labels, rows), "rows_misaligned")
        assert finding.repair.rows == -rows
        assert finding.repair.accuracy == pytest.approx(
            (logits.argmax(axis=1) == labels).mean(), abs=0.02
        )


def test_neighbours_with_equal_labels_are_not_misaligned():
    logits, labels = draw(60, 3, 1, noise=4.0)
    rows = np.repeat(np.arange(60), 4)  # four frames of each
    assert held(logits[rows], labels[rows]) == []
    assert held(logits[rows], np.roll(labels[rows], 1)) == []  # nearly right


def test_shuffled_labels_are_held(digits):
    logits, labels = digits
    for seed in range(20):
        mixed = np.random.default_rng(seed).permutation(labels)
        assert held(logits, mixed) == ["unrelated_labels"]
        small = draw(200, 3, seed)
        assert held(small[0], np.random.default_rng(seed).permutation(small[1])) != []


def test_labels_that_contradict_without_an_order_are_no_class_order():
    logits, _ = draw(500, 5, 0)
    assert held(logits, logits.argmin(axis=1)) == ["unrelated_labels"]


def test_probabilities_as_logits_are_held_with_the_field(digits):
    logits, labels = digits
    p = softmax(logits)
    many = draw(300, 100, 0, strength=4.0, factor=1.0)
    finding = the_one(softmax(many[0]).round(2), many[1], "distribution_as_logits")
    assert finding.repair.field == "probabilities"
    for numbers in (p, p.round(2)):
        finding = the_one(numbers, labels, "distribution_as_logits")
        assert (finding.severity, finding.repair.field) == (Severity.HOLD, "probabilities")
    assert the_one(p[:5], labels[:5], "distribution_as_logits").severity is Severity.WARN
    named = CalibrationSet.from_arrays({"probabilities": p, "labels": labels})
    assert check_set(named) == ()


def test_one_probability_per_row_as_logits_is_held_with_the_field():
    logits, labels = draw(300, 2, 0)
    p = softmax(logits)[:, 1]
    assert the_one(p, labels, "distribution_as_logits").repair.field == "probabilities"
    assert check_set(CalibrationSet.from_arrays({"probabilities": p, "labels": labels})) == ()
    z = logits[:, 1] - logits[:, 0]
    assert check_set(CalibrationSet.from_arrays({"logits": z, "labels": labels})) == ()


def test_log_probabilities_as_probabilities_are_refused_with_the_field(digits):
    with pytest.raises(InvalidInput, match="are these log_probabilities"):
        logits_from_probabilities(log_softmax(digits[0]))
    some = np.where(log_softmax(digits[0]) < -9.0, -np.inf, log_softmax(digits[0]))
    with pytest.raises(InvalidInput, match="are these log_probabilities"):
        logits_from_probabilities(some)
    with pytest.raises(InvalidInput, match="are these logits"):
        logits_from_probabilities(digits[0])
    with pytest.raises(InvalidInput, match="are these probabilities"):
        logits_from_log_probabilities(softmax(digits[0]))
    with pytest.raises(InvalidInput, match="are these logits"):
        logits_from_log_probabilities(digits[0])


def test_one_class_rare_others_and_small_sets_are_warned_about(digits):
    logits, labels = digits
    three = labels == 3
    assert [f.code for f in found(logits[three], labels[three])] == ["one_class"]
    filled_in = the_one(logits, np.zeros(512, dtype=np.int64), "one_class")
    assert filled_in.severity is Severity.HOLD
    assert "all 512 labels are 0, but 4" in filled_in.sentence
    assert held(*draw(200, 2, 0, bias=9.0)[:1], np.zeros(200, dtype=np.int64)) == []
    with_few = three.copy()
    with_few[np.flatnonzero(labels == 4)[:5]] = True
    mixed = np.random.default_rng(0).permutation(labels[with_few])
    finding = the_one(logits[with_few], mixed, "cannot_tell")
    assert finding.severity is Severity.WARN
    assert "5 of them outside the commonest label" in finding.sentence
    right = logits.argmax(axis=1)
    assert [f.code for f in found(logits[:299], right[:299])] == ["no_errors"]
    assert found(logits[:300], right[:300]) == ()
    assert "few_rows" in [f.code for f in found(logits[:49], labels[:49])]
    assert found(logits[:1], labels[:1])[0].severity is Severity.WARN


def test_copies_are_warned_about_unless_they_are_groups_or_coarse_scores(digits):
    logits, labels = digits
    copies = np.repeat(np.arange(40), 10)
    finding = the_one(logits[copies], labels[copies], "copies")
    assert "400 rows are copies of 40" in finding.sentence
    assert finding.sentence.endswith(", and so do folds")
    one_row = np.concatenate([np.zeros(300, int), np.arange(1, 100)])
    finding = the_one(logits[one_row], labels[one_row], "copies")
    assert finding.sentence.endswith("as new evidence")  # kept together in folds
    assert found(logits[copies], labels[copies], groups=copies) == ()
    coarse, drawn = draw(2_000, 2, 0, factor=1.0)
    rounded = np.stack([np.zeros(2_000), (coarse[:, 1] - coarse[:, 0]).round()], axis=1)
    assert found(rounded.astype(np.float32), drawn) == ()


def test_joint_log_likelihoods_are_warned_about_and_cosines_are_not(digits):
    logits, labels = digits
    assert the_one(100.0 * logits, labels, "wild_scale").severity is Severity.WARN
    assert fit(logits / 500.0, labels, "temperature").report.findings == ()


# ----- Honest sets -----


@pytest.mark.parametrize("n", [50, 200, 1_000])
@pytest.mark.parametrize("k", [2, 3, 10])
def test_honest_sets_are_never_held(n, k):
    kinds = {
        "plain": {},
        "one class is favoured": {"bias": 8.0},
        "rare events": {"bias": -9.0, "factor": 1.0},
        "noise on the scores": {"noise": 2.0},
    }
    codes = Counter(
        code
        for options in kinds.values()
        for seed in range(15)
        for code in held(*draw(n, k, seed, **options))
    )
    assert codes == {}


def test_rare_events_pass_in_either_size():
    for seed in range(30):
        generator = np.random.default_rng(seed)
        event = generator.random(1_000) < 0.01
        score = 2.0 * event + generator.normal(size=1_000) - 4.6
        logits = np.stack([np.zeros(1_000), score], axis=1).astype(np.float32)
        for rows in (slice(50), slice(None)):
            assert held(logits[rows], event[rows].astype(np.int64)) == []


def test_harder_conditions_pass():
    with np.load(EXAMPLES / "digits_drifted.npz") as arrays:
        logits, labels = arrays["logits"], arrays["labels"]
    assert found(logits, labels) == ()
    for seed in range(40):
        rows = np.random.default_rng(seed).permutation(labels.size)[:50]
        assert held(logits[rows], labels[rows]) == []


def test_a_changed_class_mix_passes(digits):
    logits, labels = digits
    for seed in range(20):
        generator = np.random.default_rng(seed)
        share = 100.0 ** (-generator.permutation(10)[labels] / 9.0)
        kept = generator.random(labels.size) < share
        assert held(logits[kept], labels[kept]) == []


@pytest.mark.parametrize(
    "name",
    ["cifar10_lenet5", "agnews_gpt2zs", "pcam_randomforest", "sst2_gpt2zs", "20news_cleanlabcv"],
)
def test_real_networks_pass_and_their_shifted_labels_do_not(name, real_set):
    (logits, labels), _ = real_set(name)
    assert found(logits, labels) == ()
    k = logits.shape[1]
    finding = the_one(logits, (labels + 1) % k, "class_order")
    assert ("exchanged" if k == 2 else "shifted by one") in finding.sentence
    for seed in range(10):
        rows = np.random.default_rng(seed).permutation(labels.size)[:200]
        assert held(logits[rows], labels[rows]) == []
        assert held(logits[rows], np.random.default_rng(seed).permutation(labels[rows])) != []


# ----- Where findings are shown -----


def test_fit_warns_once_and_reports_everything(digits):
    logits, labels = digits
    with pytest.warns(SuspiciousSet, match="shifted by one.*lower each label by one") as caught:
        report = fit(logits, (labels + 1) % 10).report
    assert len(caught) == 1
    assert [f.code for f in report.findings] == ["class_order", "absurd_temperature"]
    assert report.to_dict()["findings"][0]["severity"] == "hold"
    assert report.warnings == tuple(map(str, report.findings))


def test_a_temperature_of_a_set_without_errors_is_no_finding(digits):
    logits, _ = digits
    report = fit(logits, logits.argmax(axis=1), "temperature").report
    assert report.findings == ()


def test_commands_show_findings_and_strict_says_no(digits, tmp_path, capsys):
    logits, labels = digits
    np.savez(tmp_path / "off.npz", logits=logits, labels=(labels + 1) % 10)
    np.savez(tmp_path / "good.npz", logits=logits, labels=labels)
    np.savez(tmp_path / "few.npz", logits=logits[:20], labels=labels[:20])
    for command in ("fit", "evaluate"):
        assert main([command, str(tmp_path / "off.npz"), "--json"]) == 0
        output = capsys.readouterr()
        assert output.err.startswith("trueprob: hold: labels look shifted by one: accuracy 0.010")
        document = json.loads(output.out)
        assert document["findings"][0]["repair"]["labels"] == [9, *range(9)]
        assert main([command, str(tmp_path / "off.npz"), "--strict"]) == 1
        assert main([command, str(tmp_path / "few.npz"), "--strict"]) == 0
        assert "trueprob: warning: only 20 rows" in capsys.readouterr().err
        assert main([command, str(tmp_path / "good.npz"), "--strict", "--json"]) == 0
        output = capsys.readouterr()
        assert (output.err, json.loads(output.out)["findings"]) == ("", [])


def test_weights_of_zero_leave_rows_out(digits):
    logits, labels = digits
    wrong = np.where(np.arange(512) < 400, (labels + 1) % 10, labels)
    weights = (np.arange(512) >= 400).astype(np.float64)
    assert found(logits, wrong, weights=weights) == ()


def test_a_check_is_cheap_beside_a_fit():
    rows = CalibrationSet(*draw(5_000, 10, 0))
    check_set(rows)
    start = time.perf_counter()
    check_set(rows)
    checked = time.perf_counter()
    fit_calibration_set(rows)
    assert checked - start < 0.25 * (time.perf_counter() - checked)  # 2 % on an idle machine
