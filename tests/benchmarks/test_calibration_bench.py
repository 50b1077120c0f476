"""The benchmark runs end to end on one tiny set, without peers, and its statistics are right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibration.ablations import METHODS_OF_PRIORS, priors_report
from benchmarks.calibration.paired import by_family, holm, worse_than
from benchmarks.calibration.peers import Method, our_methods
from benchmarks.calibration.quality import measure
from benchmarks.calibration.quality_tables import difference, quality_report
from benchmarks.calibration.report import write_section
from benchmarks.calibration.scoring import Rows, quick_scores, scores_of
from benchmarks.calibration.sets import LogitSet, logit_sets
from benchmarks.calibration.shifts import long_tailed, noisy
from trueprob import METHODS, softmax

FACTOR = 3.0  # how overconfident the synthetic network is


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(3)
    logits = 2.0 * generator.normal(size=(900, 4))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    logits = (FACTOR * logits).astype(np.float32)
    (tmp_path / "logits").mkdir()
    np.savez(
        tmp_path / "logits" / "made_gumbel.npz",
        val_logits=logits[:400],
        val_labels=labels[:400],
        test_logits=logits[400:],
        test_labels=labels[400:],
    )
    return tmp_path


@pytest.fixture
def made(folder: Path) -> LogitSet:
    (data,) = logit_sets(folder, small=True)
    return data


@pytest.mark.slow
def test_the_quality_part_runs_and_names_what_is_missing(made: LogitSet) -> None:
    def fails(logits: object, labels: object) -> None:
        raise RuntimeError("no such thing")

    absent = Method("absent", fails, needs="a_package_that_nobody_has")
    failing = Method("failing", fails)
    slow = {"smart-mlp"}
    ours = [method for method in our_methods() if method.name not in slow]
    assert {method.name for method in ours} >= set(METHODS) - slow
    methods = [*ours, failing, absent]
    results = measure([made], methods, verbose=False)
    text = quality_report(results, methods)

    assert "- absent: not installed." in text
    assert "- failing on made_gumbel: RuntimeError: no such thing" in text
    assert made.family == "made"
    found = difference(results, "identity", "nll")
    assert found is not None
    assert found.mean > 0.1, "a network three times too sure is far worse uncalibrated"
    assert "significantly worse after Holm at 5 %: 0" in text


def test_one_of_our_own_methods_that_fails_ends_the_run(made: LogitSet) -> None:
    def fails(logits: object, labels: object) -> None:
        raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        measure([made], [Method("mine", fails, ours=True)], verbose=False)


def test_the_quick_scores_are_the_scores(made: LogitSet) -> None:
    p = softmax(made.test_logits)
    predicted = made.test_logits.argmax(axis=1)
    scores, rows = scores_of(p, made.test_labels, predicted)
    ece, nll = quick_scores(p, made.test_labels, predicted)
    assert ece == pytest.approx(scores["ece"], rel=1e-12)
    assert nll == pytest.approx(scores["nll"], rel=1e-6)
    chance = np.clip(rows.confidence, 1e-12, 1 - 1e-12)
    expected = -np.where(rows.correct, np.log(chance), np.log1p(-chance)).mean()
    assert scores["top_ce"] == pytest.approx(expected, rel=0.02)


def test_methods_for_two_classes_are_not_asked_for_more(made: LogitSet) -> None:
    def never(logits: object, labels: object) -> None:
        raise AssertionError("asked")

    results = measure([made], [Method("binary", never, most_classes=2)], verbose=False)
    assert results.scores["made_gumbel"] == {}
    assert results.failures["made_gumbel"] == {}


def test_priors_are_compared_within_the_calibration_half(made: LogitSet) -> None:
    methods = {name: METHODS_OF_PRIORS[name] for name in list(METHODS_OF_PRIORS)[:2]}
    nothing = replace(made, test_logits=made.test_logits[:0], test_labels=made.test_labels[:0])
    lines = priors_report([nothing], methods, sizes=(20, 50)).splitlines()
    assert lines[2] == "| prior | 20 rows | 50 rows |"
    assert [line.split("|")[1].strip() for line in lines[4:]] == list(methods)


def test_shifts_do_what_they_say(made: LogitSet) -> None:
    thin = long_tailed(made)
    before = np.bincount(made.test_labels, minlength=4)
    shares = np.sort(np.bincount(thin.test_labels, minlength=4) / before)
    assert shares[-1] == 1.0
    assert shares[0] < 0.05
    assert np.array_equal(thin.val_logits, made.val_logits)
    worse = (noisy(made).test_logits.argmax(axis=1) == made.test_labels).mean()
    assert worse < (made.test_logits.argmax(axis=1) == made.test_labels).mean()


def test_holm_agrees_with_a_calculation_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_a_family_counts_once_however_many_networks_it_has() -> None:
    many = by_family(np.array([1.0] * 50 + [-1.0, -1.0]), ["a"] * 50 + ["b", "c"])
    assert many.low < 0.0 < many.high
    assert many.mean == pytest.approx(48 / 52)


def test_worse_is_found_where_it_is_and_only_there() -> None:
    generator = np.random.default_rng(0)
    chance = generator.uniform(0.3, 0.9, 4_000)
    correct = generator.random(4_000) < chance

    def rows(confidence: np.ndarray) -> Rows:
        own = np.where(correct, confidence, 1.0 - confidence)
        return Rows(-np.log(own), confidence, correct)

    good, bad = rows(chance), rows(np.minimum(chance + 0.08, 0.99))
    for score in ("nll", "debiased_ece"):
        assert worse_than(bad, good)[score][1] < 1e-6
        assert worse_than(good, bad)[score][1] > 0.99
        assert worse_than(good, good)[score] == (0.0, 1.0)


def test_a_section_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    text = "before\n<!-- calibration:speed:begin -->\nold\n<!-- calibration:speed:end -->\nafter\n"
    document.write_text(text, "utf-8")
    write_section(document, "speed", r"new \1 |table|")
    assert document.read_text("utf-8") == text.replace("old", r"new \1 |table|")
    with pytest.raises(ValueError, match="no markers of section sizes"):
        write_section(document, "sizes", "x")
