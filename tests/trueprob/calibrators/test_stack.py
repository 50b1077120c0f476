"""The mixture of calibrators: its formula, what it keeps, and its document."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tests.trueprob.every_kind import fit_kind
from trueprob import InvalidDocument, SmartCalibrator, TemperatureCalibrator, from_dict, to_dict
from trueprob.arrays.logit_functions import logit_gap
from trueprob.calibrators import IdentityCalibrator, StackCalibrator
from trueprob.calibrators.smart.second_stage import SecondStage
from trueprob.calibrators.stack import pooled

# The second stage presses confidences down to the runner-up.
FLAT = SmartCalibrator(
    3, (0.5,), (0.1, -0.4), 0.01, SecondStage((-3.0, 0.0, 9.0), (-9.0, -8.0, -7.0))
)
KEEPING = StackCalibrator(
    3, (IdentityCalibrator(3), TemperatureCalibrator(3, 7.0), FLAT), (0.2, 0.5, 0.3), 1.3
)


@pytest.fixture(scope="module")
def changing(overconfident):
    return fit_kind("stack", *overconfident(300))


@pytest.mark.parametrize("k", [2, 5, 70])
def test_it_is_the_power_of_the_weighted_mean(k, overconfident):
    stack = fit_kind("stack", *overconfident(200, k))
    logits = overconfident(50, k, seed=1)[0]
    expected = np.empty((50, k))
    for row in range(50):
        mean = np.zeros(k)
        for member, weight in zip(stack.members, stack.weights, strict=True):
            mean += weight * member.predict_proba(logits[row : row + 1])[0].astype(np.float64)
        expected[row] = mean**stack.power / (mean**stack.power).sum()
    assert stack.predict_proba(logits) == pytest.approx(expected, rel=2e-5)
    assert np.array_equal(stack.prediction(logits), expected.argmax(axis=1))
    assert stack.temperature(logits) is None


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(
        np.float32, (20, 3), elements=st.sampled_from([0.0, 1e-7, 1.0, 1.0000001, 3.0, 40.0, 1e4])
    )
)
def test_keepers_keep_the_prediction_of_every_row(rows):
    p = KEEPING.predict_proba(rows)
    top = rows.argmax(axis=1)
    assert KEEPING.preserves_prediction
    assert np.array_equal(KEEPING.prediction(rows), top)
    others = p.copy()
    others[np.arange(20), top] = -1.0
    assert (p[np.arange(20), top] > others.max(axis=1)).all()


def test_what_it_keeps_follows_from_its_members(changing):
    assert not changing.preserves_prediction
    assert not changing.preserves_ranking
    assert KEEPING.preserves_ranking
    kinds = [member.kind for member in changing.members]
    assert kinds == ["temperature", "smart", "smart-vector"]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_members_that_keep_the_ranking_keep_it_together(scale, overconfident):
    members = tuple(fit_kind(kind, *overconfident(400, 2)) for kind in ("identity", "smart"))
    stack = StackCalibrator(2, members, (0.4, 0.6), 1.2)
    difference = np.sort(np.random.default_rng(0).normal(size=5_000) * scale).astype(np.float32)
    rows = np.stack([np.zeros_like(difference), difference], axis=1)
    p = stack.predict_proba(rows)
    assert (np.diff(p[:, 1]) >= 0.0).all()
    assert (np.diff(p[:, 0]) <= 0.0).all()
    assert np.array_equal(p.argmax(axis=1), rows.argmax(axis=1))


def test_a_class_that_no_member_allows_stays_at_zero():
    p = np.float32([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5]])
    mixed, top = pooled([p.copy(), p.copy()], (0.5, 0.5), 1.5)
    assert (mixed[p == 0.0] == 0.0).all()
    assert np.isfinite(mixed).all()
    assert top.tolist() == [0, 1]
    assert mixed[1, 1] > mixed[1, 2]
    one_sided, _ = pooled([np.float32([[1.0, 0.0]]), np.float32([[1.0, 0.0]])], (0.5, 0.5), 1.5)
    assert one_sided.tolist() == [[1.0, 0.0]]


def test_blocks_of_rows_are_the_same_as_all_at_once(overconfident, changing):
    logits = np.resize(overconfident(300, seed=2)[0], (40_000, 5))
    whole = changing.predict_proba(logits)
    assert np.array_equal(whole[30_000:30_300], changing.predict_proba(logits[30_000:30_300]))
    assert all(np.array_equal(a, b) for a, b in pairwise([whole[:300], whole[300:600]]))


def edited(document, **changes):
    parameters = {**document["parameters"], **changes}
    return {**document, "parameters": parameters}


@pytest.mark.parametrize("n", [1, 40])
@pytest.mark.parametrize("k", [3, 70])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_the_gap_is_that_of_the_logits_wherever_smart_stands(first, masked, k, n, overconfident):
    smart, others = SmartCalibrator(k, (0.5,), (0.1, -0.4), 0.01), (TemperatureCalibrator(k, 7.0),)
    members = (smart, *others) if first else (*others, smart)
    without = StackCalibrator(k, (IdentityCalibrator(k), *others), (0.4, 0.6), 1.3)
    logits = overconfident(n, k)[0]
    if masked:
        logits[0, logits[0].argmin()] = -np.inf
    found = StackCalibrator(k, members, (0.4, 0.6), 1.3).calibrated(logits)
    assert np.array_equal(found.logit_gap, logit_gap(logits))
    assert np.array_equal(found.logit_gap, without.calibrated(logits).logit_gap)
    assert np.array_equal(found.prediction, logits.argmax(axis=1))
    assert (found.probabilities[np.isneginf(logits)] == 0.0).all()


def test_its_document_is_read_back_and_checked(changing):
    document = to_dict(changing)
    assert from_dict(document) == changing
    members = document["parameters"]["members"]
    inner = {"kind": "stack", "weight": 0.5, "parameters": document["parameters"]}
    for changes, message in (
        (
            {"members": [inner, members[0]]},
            r"members\[0\].kind must be one of identity.*got 'stack'",
        ),
        ({"members": [{**members[0], "kind": 3}, *members[1:]]}, r"members\[0\].kind .* got int"),
        ({"members": members[:1]}, "a list of at least 2"),
        ({"members": 3}, "a list of at least 2"),
        ({"members": [3, *members[1:]]}, r"members\[0\] must be an object, got int"),
        ({"members": [{}, *members[1:]]}, r"members\[0\] must have the key"),
        ({"members": [{**members[0], "parameters": 1}, *members[1:]]}, "parameters must be an obj"),
        ({"members": [{**members[0], "weight": 0.3}, *members[1:]]}, "must sum to 1, got 1.05"),
        ({"members": [{**members[0], "weight": 0.0}, *members[1:]]}, r"weight must lie between"),
        ({"power": 0.0}, "parameters.power must lie between"),
        ({"power": 1e9}, "parameters.power must lie between"),
        ({"power": 1.3}, "the document was altered"),
    ):
        with pytest.raises(InvalidDocument, match=message):
            from_dict(edited(document, **changes))
