"""The interval of the error holds at all times, and the verdict never contradicts an alarm."""

import json
import math
from itertools import product

import numpy as np
import pytest

from tests.trueprob.drift.streams import stream
from trueprob import CalibrationBets, Evidence
from trueprob.drift import ErrorInterval, ErrorSums, VerdictState, live_verdict
from trueprob.drift.live_verdict import LEADS, LiveSums, live_verdicts
from trueprob.errors import InvalidDocument, InvalidInput

TOLERANCE = 0.02
INTERVAL = ErrorInterval(alpha=0.05)
RANGES = (0.5, 0.7, 0.85, 0.95)


def error_of(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The error after each label, by its definition."""
    ranges = np.searchsorted(RANGES, p, side="left")
    sums = np.stack([np.cumsum(np.where(ranges == b, q - p, 0.0)) for b in range(5)])
    return np.abs(sums).sum(axis=0) / np.arange(1, p.size + 1)


def test_the_evidence_has_a_mean_of_at_most_one_under_every_error_within_the_tolerance():
    """All outcomes of six labels, for gaps at the corners of the null hypothesis and inside it."""
    p = np.array([0.3, 0.6, 0.8, 0.9, 0.97, 0.97])
    all_y = np.array(list(product([0.0, 1.0], repeat=p.size)))
    for tolerance in (0.0, 0.02, 0.1):
        wealth = np.exp(
            [INTERVAL.log_evidence(ErrorSums.of(p, y == 1.0), tolerance) for y in all_y]
        )
        for signs in product([-1.0, 0.0, 1.0], repeat=p.size):
            q = np.clip(p + tolerance * np.array(signs), 0.0, 1.0)
            chance = np.where(all_y == 1.0, q, 1.0 - q).prod(axis=1)
            assert chance @ wealth <= 1.0 + 1e-12
    half_right = ErrorSums.of(np.full(400, 0.9), np.arange(400) % 2 == 0)
    assert INTERVAL.log_evidence(half_right, 0.02) > 20.0  # and it can win


@pytest.mark.parametrize("gap", [0.0, 0.02, 0.1])
def test_the_interval_holds_after_every_label_of_drifting_streams(gap):
    """200 streams of 1 000 labels: misses at most α of them, here 5 % and three deviations."""
    generator = np.random.default_rng(7)
    missed = 0
    for _ in range(200):
        p = generator.uniform(0.3, 1.0, 1_000)
        drift = gap * np.sin(np.arange(p.size) / 150.0 + generator.uniform(0.0, 6.0))
        q = np.clip(p + drift * np.where(p > 0.7, 1.0, -1.0), 0.0, 1.0)
        y = generator.random(p.size) < q
        error = error_of(p, q)
        # The sums after every 20th label, without the cost of a thousand calls.
        for index, state in enumerate(after_every_block(p, y, rows=20)):
            low, high = INTERVAL.bounds(state)
            if not low <= error[20 * (index + 1) - 1] <= high:
                missed += 1
                break
    assert missed <= 19


def after_every_block(p: np.ndarray, y: np.ndarray, *, rows: int) -> list[ErrorSums]:
    sums, states = ErrorSums(), []
    for start in range(0, p.size, rows):
        sums += ErrorSums.of(p[start : start + rows], y[start : start + rows])
        states.append(sums)
    return states


def test_without_the_groups_copies_break_the_interval_and_groups_repair_it():
    generator = np.random.default_rng(1)
    p = generator.uniform(0.5, 1.0, 200)
    y = generator.random(200) < p
    copies = np.repeat(np.arange(200), 50)
    grouped = ErrorSums.of(p[copies], y[copies], groups=copies)
    single = ErrorSums.of(p, y)
    assert grouped.n == 200
    np.testing.assert_allclose(grouped.gaps, single.gaps, atol=1e-9)
    assert grouped.squares == pytest.approx(single.squares)
    repeated = ErrorSums.of(p[copies], y[copies], groups=copies, repeated=np.ones(10_000, bool))
    assert repeated == ErrorSums()
    low, high = INTERVAL.bounds(ErrorSums.of(p[copies], y[copies]))
    assert high - low < 0.4 * np.diff(INTERVAL.bounds(grouped))[0]  # falsely narrow


def test_streaming_equals_batch_and_json_keeps_the_sums_bit_for_bit():
    p, y = stream(3_000, temperature=1.5)
    batch, streamed = ErrorSums.of(p, y), after_every_block(p, y, rows=7)[-1]
    np.testing.assert_allclose(streamed.gaps, batch.gaps, atol=1e-9)
    assert (streamed.n, streamed.squares) == (batch.n, pytest.approx(batch.squares))
    assert ErrorSums.from_dict(json.loads(json.dumps(batch.to_dict()))) == batch


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"gaps": [0.0]}, {"gaps": None}, {"n": -1}, {"squares": math.inf}]
)
def test_documents_that_hold_no_sums_are_refused(change):
    with pytest.raises(InvalidDocument):
        ErrorSums.from_dict({**ErrorSums().to_dict(), **change})
    with pytest.raises(InvalidInput, match="alpha must lie between 0 and 1"):
        ErrorInterval(1.0)


def slow_bounds(gaps: list[float], squares: float, n: int, n_cells: int) -> tuple[float, float]:
    """The interval by the formulas of the module, in plain Python."""
    alpha, lambdas = INTERVAL.alpha, [0.8 / 2**j for j in range(10)]
    psi = [-math.log(1 - each) - each for each in lambdas]

    def evidence(tau: float) -> float:
        cosh = [[abs(x * gap) + math.log((1 + math.exp(-2 * abs(x * gap))) / 2) for gap in gaps]
                for x in lambdas]  # fmt: skip
        logs = [sum(c) - x * tau * n - p * squares
                for c, x, p in zip(cosh, lambdas, psi, strict=True)]  # fmt: skip
        return max(logs) + math.log(sum(math.exp(each - max(logs)) for each in logs) / 10)

    patterns = math.log(2 * 10 / alpha) + n_cells * math.log(2)
    radius = min((patterns + p * squares) / x for x, p in zip(lambdas, psi, strict=True))
    observed = sum(map(abs, gaps))
    low, above, threshold = 0.0, observed / n, -math.log(0.2 * alpha)
    if evidence(0.0) < threshold:
        above = 0.0
    for _ in range(60):
        middle = (low + above) / 2
        low, above = (middle, above) if evidence(middle) >= threshold else (low, middle)
    return low, min((observed + radius) / n, 1.0)


def many_streams(n_streams: int) -> list[LiveSums]:
    """Streams of every kind: few and many labels, 2 to 40 classes, off or not, with alarms."""
    generator, streams = np.random.default_rng(11), [LiveSums(ErrorSums(), None, False, False)]
    for _ in range(n_streams):
        k, n = int(generator.choice([2, 3, 10, 40])), int(10 ** generator.uniform(0, 4))
        p, prediction = generator.uniform(1 / k, 1, n), generator.integers(0, k, n)
        off = generator.choice([0.0, 0.1, -0.3]) * (prediction == 0) + generator.choice([0, 0.1])
        y = generator.random(n) < np.clip(p - off, 0, 1)
        sums = ErrorSums.of(p, y, prediction=prediction, n_classes=k)
        since = None
        if generator.random() < 0.3:
            last = slice(int(generator.integers(0, n)), None)
            since = ErrorSums.of(p[last], y[last], prediction=prediction[last], n_classes=k)
        alarms = (generator.random(2) < 0.1).tolist()
        streams.append(LiveSums(sums, since, *alarms))
    return streams


def test_many_streams_have_the_figures_that_each_has_alone():
    streams = many_streams(60)
    sums = [each.since_promotion for each in streams]
    tolerances = {"tolerance": TOLERANCE, "class_tolerance": 0.05}
    alone = [live_verdict(INTERVAL, **each._asdict(), **tolerances) for each in streams]
    assert live_verdicts(INTERVAL, streams, **tolerances) == alone
    assert {each.state for each in alone} > {VerdictState.OFF, VerdictState.UNKNOWN}
    needed = INTERVAL.labels_needed_of_each(sums, TOLERANCE)
    assert needed == [INTERVAL.labels_needed(each, TOLERANCE) for each in sums]
    off = INTERVAL.classes_off_of_each(sums, 0.05)
    assert off == [INTERVAL.classes_off(each, 0.05) for each in sums]
    assert max(off) > 0
    assert live_verdicts(INTERVAL, [], **tolerances) == []
    bounds, class_bounds = INTERVAL.bounds_of_each(sums), INTERVAL.class_bounds_of_each(sums)
    assert bounds[0] == class_bounds[0] == (0.0, 1.0)
    for each, found, of_classes in list(zip(sums, bounds, class_bounds, strict=True))[1:]:
        expected = slow_bounds(list(each.gaps), each.squares, each.n, len(each.gaps))
        assert found == pytest.approx(expected, abs=1e-12)
        _, confidence, right, _ = each.classes.arrays()[1].T
        gaps, k = (right - confidence).tolist(), each.classes.n_classes
        expected = slow_bounds(gaps, each.squares, each.n, k)
        assert of_classes == pytest.approx(expected, abs=1e-12)


def test_a_lower_bound_above_the_tolerance_always_comes_with_the_alarm():
    """Sums of every shape: what `low` proves, the joined evidence proves at the same labels."""
    generator = np.random.default_rng(3)
    interval, proven = ErrorInterval(0.01), 0
    for _ in range(3_000):
        n = int(generator.integers(1, 5_000))
        gaps = tuple((generator.normal(size=5) * 0.1 * n * generator.random()).tolist())
        sums = ErrorSums(n, gaps, float(n * generator.uniform(0.02, 0.3)))
        low, high = interval.bounds(sums)
        assert 0.0 <= low <= high <= 1.0
        if low > TOLERANCE:
            proven += 1
            worst_wealth = -50.0  # the bets have lost nearly everything
            assert interval.joined_log10(worst_wealth, sums, TOLERANCE) >= 2.0
    assert proven > 300


def test_joining_costs_the_evidence_little_and_stays_a_test_with_the_same_threshold():
    assert INTERVAL.joined_log10(0.0, ErrorSums(), TOLERANCE) == pytest.approx(0.0)
    assert INTERVAL.joined_log10(5.0, ErrorSums(), TOLERANCE) == pytest.approx(5.0, abs=0.1)
    p, y = stream(20_000, temperature=1.0, seed=4)
    sums = ErrorSums.of(p, y)
    assert INTERVAL.joined_log10(-3.0, sums, TOLERANCE) < 0.0


def say(
    since_promotion: ErrorSums,
    since_change: ErrorSums | None = None,
    *,
    evidence_alarm: bool = False,
    change_alarm: bool = False,
):
    return live_verdict(
        ErrorInterval(0.01),
        since_promotion=since_promotion,
        since_change=since_change,
        tolerance=TOLERANCE,
        evidence_alarm=evidence_alarm,
        change_alarm=change_alarm,
    )


def test_a_calibrated_stream_goes_from_unknown_to_proven_about_when_it_was_forecast():
    p, y = stream(60_000, seed=2)
    early = say(ErrorSums.of(p[:1_000], y[:1_000]))
    assert early.state is VerdictState.UNKNOWN
    assert early.labels == 1_000
    assert early.labels_needed is not None
    assert early.sentence == (
        f"Too few labels to tell: the error is {100 * early.error_low:.1f} to "
        f"{100 * early.error_high:.1f} % on average over 1000 labels, tolerance 2.0 %; "
        f"about {early.labels_needed} more decide."
    )
    promised = 1_000 + early.labels_needed
    assert say(ErrorSums.of(p[: promised // 2], y[: promised // 2])).state is VerdictState.UNKNOWN
    later = int(1.5 * promised)
    proven = say(ErrorSums.of(p[:later], y[:later]))
    assert proven.state is VerdictState.WITHIN_TOLERANCE
    assert proven.error_high <= TOLERANCE
    assert proven.labels_needed is None


def test_an_overconfident_stream_is_off_by_an_interval_that_holds_its_error():
    p, y = stream(8_000, temperature=2.0, seed=3)
    sums = ErrorSums.of(p, y)
    verdict = say(sums)
    q = 1.0 / (1.0 + np.exp(-np.log(p / (1.0 - p)) / 2.0))
    assert verdict.state is VerdictState.OFF
    assert TOLERANCE < verdict.error_low <= error_of(p, q)[-1] <= verdict.error_high
    assert verdict.sentence == (
        f"Off by {100 * verdict.error_low:.1f} to {100 * verdict.error_high:.1f} % "
        "on average over 8000 labels, tolerance 2.0 %."
    )
    bets, evidence = CalibrationBets(TOLERANCE), Evidence()
    assert evidence.alarm(evidence.update(evidence.start(), bets.factors(p, y)))


def test_every_alarm_shows_whatever_the_interval_says():
    p, y = stream(500, seed=5)
    few = ErrorSums.of(p, y)
    off = say(few, evidence_alarm=True)
    assert off.state is VerdictState.OFF
    assert off.sentence.startswith(
        "Off by more than the tolerance of 2.0 % for some predictions; by"
    )
    p, y = stream(60_000, seed=6)
    many = ErrorSums.of(p, y)
    assert say(many).state is VerdictState.WITHIN_TOLERANCE
    assert say(many, evidence_alarm=True).state is VerdictState.OFF
    changed = say(many, ErrorSums(), change_alarm=True)
    assert changed.state is VerdictState.CHANGED_LATELY
    assert changed.sentence == "Changed lately: no labels since the alarm."
    assert say(many, few, change_alarm=True).sentence.endswith(
        "over the 500 labels since the alarm."
    )
    assert say(many, few, change_alarm=True, evidence_alarm=True).state is VerdictState.OFF


def test_after_an_acknowledged_change_only_the_labels_since_then_count():
    p, y = stream(60_000, seed=6)
    old = ErrorSums.of(p, y)
    assert say(old, ErrorSums.of(p[:100], y[:100])).state is VerdictState.UNKNOWN
    assert say(old, ErrorSums()).sentence == "Too few labels to tell: none has come yet."
    p, y = stream(8_000, temperature=2.0, seed=3)
    verdict = say(old + ErrorSums.of(p, y), ErrorSums.of(p, y))
    assert verdict.state is VerdictState.OFF
    assert verdict.labels == 8_000  # the newer labels prove more than the whole stream
    assert set(LEADS) == set(VerdictState)


def test_classes_off_are_those_whose_interval_lies_above_the_tolerance():
    random = np.random.default_rng(8)
    p, c = random.uniform(0.3, 1.0, 6000), random.integers(0, 7, 6000)
    shift = np.array([0.0, 0.3, -0.25, 0.05, 0.1, -0.1, 0.0])[c]
    y = random.random(6000) < np.clip(p - shift, 0.0, 1.0)
    sums = ErrorSums.of(p, y, prediction=c, n_classes=9)
    found = {}
    for tolerance in (0.0, 0.02, 0.05, 0.1, 0.2, 0.5):
        found[tolerance] = INTERVAL.classes_off(sums, tolerance)
        worse = [each for each in INTERVAL.of_classes(sums) if each.low > tolerance]
        assert found[tolerance] == len(worse)
    assert found[0.0] > found[0.1] > found[0.5] == 0
    assert INTERVAL.classes_off(ErrorSums(), 0.0) == 0


def test_a_class_that_is_proven_off_makes_the_model_off_though_the_average_is_within():
    """One row in a hundred is of class 0 and 60 points off; the error stays below 2 %."""
    generator = np.random.default_rng(8)
    p = generator.uniform(0.6, 1.0, 60_000)
    classes = np.where(generator.random(p.size) < 0.01, 0, generator.integers(1, 10, p.size))
    y = generator.random(p.size) < np.where(classes == 0, p - 0.6, p)
    sums = ErrorSums.of(p, y, prediction=classes, n_classes=10)

    def state(class_tolerance: float | None) -> VerdictState:
        return live_verdict(
            ErrorInterval(0.01),
            since_promotion=sums,
            since_change=None,
            tolerance=TOLERANCE,
            evidence_alarm=False,
            change_alarm=False,
            class_tolerance=class_tolerance,
        ).state

    assert state(None) is state(0.7) is VerdictState.WITHIN_TOLERANCE
    assert state(0.05) is VerdictState.OFF


def test_the_interval_of_a_class_is_that_of_its_rows_alone():
    """With one cell at α / k, whatever the other classes are."""
    generator = np.random.default_rng(9)
    p = generator.uniform(0.96, 1.0, 3_000)  # one range of confidence
    classes = generator.integers(0, 4, p.size)
    y = generator.random(p.size) < p - 0.1 * classes
    found = ErrorInterval(0.04).of_classes(ErrorSums.of(p, y, prediction=classes, n_classes=4))
    assert [each.class_index for each in found[:2]] == [3, 2]
    for each in found:
        own = classes == each.class_index
        sums = ErrorSums.of(p[own], y[own])
        alone = ErrorSums(sums.n, (sum(sums.gaps),), sums.squares)
        assert (each.low, each.high) == pytest.approx(ErrorInterval(0.01).bounds(alone), abs=1e-12)
        assert each.n == own.sum()
    assert found[0].low > 0.2
