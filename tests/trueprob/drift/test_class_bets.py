"""Bets on single classes: the promise by enumeration, and errors that only classes show."""

import json
from itertools import product

import numpy as np
import pytest

from tests.trueprob.drift.streams import stream
from trueprob import CalibrationBets, ChangeDetector, Evidence
from trueprob.drift import BetState
from trueprob.drift.alarm_statistics import LEARN_EVERY
from trueprob.errors import InvalidDocument, InvalidInput

K = 3
CONFIDENCES = np.array([0.55, 0.8, 0.97, 0.9, 0.6, 0.8, 1.0])
CLASSES = np.array([0, 1, 1, 2, 0, 1, 2])


def factors(bets: CalibrationBets, p, y, classes, **options):
    return bets.factors(p, y, prediction=classes, n_classes=K, **options)


@pytest.mark.parametrize(("tolerance", "class_tolerance"), [(0.0, 0.0), (0.02, 0.05), (0.1, 0.1)])
def test_the_expected_wealth_is_at_most_one_and_the_expected_sum_at_most_the_labels(
    tolerance, class_tolerance, monkeypatch
):
    """All outcomes of seven labels; the learned bet learns after every two."""
    monkeypatch.setattr("trueprob.drift.alarm_statistics.LEARN_EVERY", 2)
    bets = CalibrationBets(tolerance, class_tolerance)
    evidence, change = Evidence(bets), ChangeDetector(bets, 1e9)
    all_y = np.array(list(product([0.0, 1.0], repeat=CONFIDENCES.size)))
    wealth, sums = [], []
    for y in all_y:
        new = factors(bets, CONFIDENCES, y, CLASSES)
        wealth.append(10.0 ** evidence.log10(evidence.update(evidence.start(), new)))
        after = change.update(change.start(), new)
        assert after.classes is not None
        of_all = bets.weights @ np.expm1(np.array(after.logs))
        of_classes = np.exp(after.classes.arrays(7)[1][:, :4]).mean(axis=1).sum()
        sums.append(0.5 * of_all + 0.25 * of_classes + 0.25 * np.exp(after.classes.learned_log))
    generator = np.random.default_rng(0)
    errors = [-1.0, 1.0, 0.0, *generator.uniform(-1.0, 1.0, (4, CONFIDENCES.size))]
    for error in errors:
        q = np.clip(CONFIDENCES + tolerance * error, 0.0, 1.0)
        chance = np.where(all_y == 1.0, q, 1.0 - q).prod(axis=1)
        assert chance @ wealth <= 1.0 + 1e-12
        assert chance @ sums <= CONFIDENCES.size + 1e-9


def test_class_0_may_be_wrong_by_the_class_tolerance_when_another_makes_up_for_it():
    """The wider null of classes: a gap of 5 points within one class does not alarm."""
    bets = CalibrationBets(0.05, 0.05)
    evidence = Evidence(bets)
    p, classes = np.array([0.8, 0.9]), np.array([0, 1])
    for gaps in ((-0.05, 0.05), (0.05, -0.05)):
        mean = 0.0
        for y in product([0.0, 1.0], repeat=2):
            q = p + gaps
            chance = np.where(np.array(y) == 1.0, q, 1.0 - q).prod()
            state = evidence.update(evidence.start(), factors(bets, p, np.array(y), classes))
            mean += chance * 10.0 ** evidence.log10(state)
        assert mean <= 1.0 + 1e-12


def streams(kind: str, n: int, k: int, seed: int):
    generator = np.random.default_rng(seed)
    p, _ = stream(n, seed=seed)
    classes = generator.integers(0, k, n)
    if kind == "opposite":
        q = p + np.where(classes == 0, -0.1, 0.1)
    elif kind == "rare":
        classes = np.where(generator.random(n) < 0.01, 0, generator.integers(1, k, n))
        q = np.where(classes == 0, p - 0.5, p)
    else:
        q = p
    return p, generator.random(n) < np.clip(q, 0.0, 1.0), classes


@pytest.mark.parametrize(("kind", "k", "limit"), [("opposite", 2, 2_000), ("rare", 10, 8_000)])
def test_errors_that_cancel_over_classes_alarm_and_name_the_class(kind, k, limit):
    """Each within the limit in at least 15 of 20 streams; without classes in few."""
    bets, blind = CalibrationBets(0.02, 0.02), CalibrationBets(0.02)
    seen = {"evidence": 0, "change": 0, "blind": 0}
    for seed in range(20):
        p, y, classes = streams(kind, limit, k, seed)
        new = bets.factors(p, y, prediction=classes, n_classes=k)
        evidence, change = Evidence(bets), ChangeDetector(bets, 20_000)
        wealth = evidence.update(evidence.start(), new)
        sums = change.update(change.start(), new)
        seen["evidence"] += evidence.alarm(wealth)
        seen["change"] += change.alarm(sums)
        if kind == "rare":
            assert evidence.worst_class(wealth) == 0
            if change.alarm(sums):
                assert change.worst_class(sums) == 0
        without = Evidence(blind)
        seen["blind"] += without.alarm(without.update(without.start(), blind.factors(p, y)))
    assert seen["evidence"] >= 15
    assert seen["change"] >= 15
    assert seen["blind"] <= 3  # it sees what the clipped gaps near 1 leave


def test_calibrated_streams_keep_the_promise():
    """100 streams of 3 000 labels: at most 1 expected alarm of evidence; n/A = 15 of change."""
    bets = CalibrationBets(0.0, 0.0)
    alarms = [0, 0]
    for seed in range(100):
        p, y, classes = streams("calibrated", 3_000, 100, seed)
        evidence, change = Evidence(bets), ChangeDetector(bets, 20_000)
        states, found = [evidence.start(), change.start()], [False, False]
        for start in range(0, 3_000, 100):
            rows = slice(start, start + 100)
            new = bets.factors(p[rows], y[rows], prediction=classes[rows], n_classes=100)
            states = [evidence.update(states[0], new), change.update(states[1], new)]
            found[0] |= evidence.alarm(states[0])
            found[1] |= change.alarm(states[1])
        alarms = [a + b for a, b in zip(alarms, found, strict=True)]
    assert alarms[0] <= 4
    assert alarms[1] <= 24


def test_streaming_equals_batch_in_requests_of_every_size():
    bets = CalibrationBets(0.0, 0.01)
    p, y, classes = streams("opposite", 1_000, K, 3)
    evidence, change = Evidence(bets), ChangeDetector(bets)
    new = factors(bets, p, y, classes)
    batch = evidence.update(evidence.start(), new), change.update(change.start(), new)
    sizes, start = [1, 2, LEARN_EVERY - 1, LEARN_EVERY, 7, 300, 1, 1_000], 0
    states = evidence.start(), change.start()
    for size in sizes:
        rows = slice(start, start + size)
        start += size
        new = factors(bets, p[rows], y[rows], classes[rows])
        # The states go through JSON, as between two requests of a service.
        states = tuple(BetState.from_dict(json.loads(json.dumps(s.to_dict()))) for s in states)
        states = evidence.update(states[0], new), change.update(states[1], new)
        if start >= 1_000:
            break
    assert evidence.log10(states[0]) == pytest.approx(evidence.log10(batch[0]), abs=1e-9)
    assert change.log10(states[1]) == pytest.approx(change.log10(batch[1]), abs=1e-9)
    for one, other, width in zip(states, batch, (4, 7), strict=True):
        np.testing.assert_array_equal(one.classes.arrays(width)[0], other.classes.arrays(width)[0])
        np.testing.assert_allclose(
            one.classes.arrays(width)[1], other.classes.arrays(width)[1], atol=1e-9
        )


def test_a_group_makes_one_factor_of_its_class():
    bets = CalibrationBets(0.0, 0.0)
    evidence, change = Evidence(bets), ChangeDetector(bets)
    p, y, classes = np.full(6, 0.9), np.zeros(6), np.array([2, 2, 2, 1, 1, 1])
    grouped = factors(bets, p, y, classes, groups=np.array([0, 0, 0, 1, 1, 1]))
    single = factors(bets, p[::3], y[::3], classes[::3])
    for statistic in (evidence, change):
        one = statistic.update(statistic.start(), grouped)
        other = statistic.update(statistic.start(), single)
        assert statistic.log10(one) == pytest.approx(statistic.log10(other), abs=1e-12)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "prediction"),
        ({"prediction": [0, 1]}, "prediction"),
        ({"prediction": [0], "n_classes": 2}, "prediction"),
        ({"prediction": [0, 2], "n_classes": 2}, "prediction"),
        ({"prediction": [0, -1], "n_classes": 2}, "prediction"),
        ({"prediction": [0.0, 1.0], "n_classes": 2}, "prediction"),
        ({"prediction": [0, 0], "n_classes": 1}, "prediction"),
    ],
)
def test_wrong_predictions_are_refused(options, field):
    with pytest.raises(InvalidInput) as caught:
        CalibrationBets(0.02, 0.05).factors([0.9, 0.8], [True, False], **options)
    assert caught.value.field == field


def test_other_mixtures_classes_and_documents_are_refused():
    with pytest.raises(InvalidInput, match="class_tolerance must be at least tolerance"):
        CalibrationBets(0.05, 0.02)
    bets = CalibrationBets(0.02, 0.05)
    evidence = Evidence(bets)
    state = evidence.update(evidence.start(), factors(bets, [0.9], [True], [1]))
    with pytest.raises(InvalidInput, match="n_classes must be 3 as before, got 4"):
        evidence.update(state, bets.factors([0.9], [True], prediction=[1], n_classes=4))
    with pytest.raises(InvalidInput, match="calibration-2"):
        Evidence().log10(state)
    document = state.to_dict()
    for change in ({"ids": "?"}, {"ids": "AAA="}, {"numbers": "AAAA"}, {"pending": None}):
        with pytest.raises(InvalidDocument):
            BetState.from_dict({**document, "classes": {**document["classes"], **change}})
