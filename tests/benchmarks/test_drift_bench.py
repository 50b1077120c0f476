"""The drift benchmark's fast paths say what the library and the peers say."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.calibration.report import write_section
from benchmarks.calibration.sets import of_arrays
from benchmarks.drift.cost import cost_report
from benchmarks.drift.delay import Watched, first_of, statistics, tuned_threshold
from benchmarks.drift.detectors import (
    PageHinkley,
    ShiryaevRoberts,
    TwoSample,
    WindowedEce,
    fixed_stakes,
)
from benchmarks.drift.promise import after_every_label, by_requests, of_real_set
from benchmarks.drift.quiet import one_stream
from benchmarks.drift.real_shifts import KINDS, first_sights
from benchmarks.drift.running import RunningSums, RunningWealth, of_bets
from benchmarks.drift.shift_cases import cases_of
from benchmarks.drift.streams import CALIBRATED, confidences, sigmoid, tempered
from trueprob import BinnedCalibration, CalibrationBets, ChangeDetector, Evidence


@pytest.fixture
def streams() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    p = confidences(generator, (3, 600))
    return p, (generator.random(p.shape) < tempered(1.4)(p)).astype(np.float64)


def test_the_running_statistics_are_those_of_the_library(streams) -> None:
    p, y = streams
    bets = CalibrationBets(0.01)
    evidence, change = Evidence(bets), ChangeDetector(bets)
    wealth = RunningWealth(of_bets(bets), bets.weights, 3)
    sums = RunningSums(of_bets(bets), bets.weights, 3)
    halves = (slice(0, 350), slice(350, 600))
    logs = np.concatenate([wealth.statistics(p[:, h], y[:, h]) for h in halves], axis=1)
    found = np.concatenate([sums.statistics(p[:, h], y[:, h]) for h in halves], axis=1)
    for stream in range(3):
        for n in (1, 7, 349, 600):
            factors = bets.factors(p[stream, :n], y[stream, :n])
            state = evidence.update(evidence.start(), factors)
            assert logs[stream, n - 1] == pytest.approx(evidence.log10(state), abs=1e-9)
            state = change.update(change.start(), factors)
            expected = max(np.log10(found[stream, n - 1]), 0.0)
            assert expected == pytest.approx(change.log10(state), abs=1e-9)


def test_windows_are_what_they_say(streams) -> None:
    p, y = streams
    found = statistics(WindowedEce(3, window=200), p, y)
    assert np.isinf(found[:, :199]).all()
    for n in (200, 251, 600):
        binned = BinnedCalibration.of(p[1, n - 200 : n], y[1, n - 200 : n])
        assert found[1, n - 1] == pytest.approx(binned.ece(), abs=1e-9)
    t = statistics(TwoSample(3, window=100, reference=250), p, y)
    assert np.isinf(t[:, :250]).all()
    scipy_stats = pytest.importorskip("scipy.stats")
    last, first = (y - p)[0, 500:], (y - p)[0, :250]
    expected = abs(scipy_stats.ttest_ind(last, first, equal_var=False).statistic)
    assert t[0, -1] == pytest.approx(expected, rel=0.01)  # variances divided by n, not n − 1


def test_page_hinkley_is_rivers(streams) -> None:
    drift = pytest.importorskip("river.drift", reason="river is a peer of the benchmark only")
    p, y = streams
    ours = statistics(PageHinkley(3), p, y)
    for threshold in (3.0, 5.0, 8.0):
        theirs = drift.PageHinkley(min_instances=1, delta=0.005, threshold=threshold)
        first = np.inf
        for t, x in enumerate((y - p)[0].tolist()):
            theirs.update(x)
            if theirs.drift_detected:
                first = t + 1
                break
        assert first_of(ours[:1] > threshold)[0] == first


def test_fixed_stakes_are_fair() -> None:
    p = np.linspace(0.1, 0.99, 30)
    right, wrong = fixed_stakes(p, np.ones(30), 0.0), fixed_stakes(p, np.zeros(30), 0.0)
    assert right.shape == (60, 30)
    np.testing.assert_allclose(p * right + (1 - p) * wrong, 1.0, rtol=1e-12)


def test_a_run_that_gave_a_false_alarm_begins_again() -> None:
    generator = np.random.default_rng(1)
    p = confidences(generator, (6, 400))
    y = (generator.random(p.shape) < CALIBRATED(p)).astype(np.float64)
    make = lambda n: ShiryaevRoberts(n, tolerance=0.0)  # noqa: E731
    threshold = tuned_threshold(make, (p, y), 0.5)
    watched = Watched(make, threshold, (p, y))
    assert 0.3 <= watched.false_alarms <= 0.7
    after = confidences(generator, (6, 500))
    shifted = {"wrong": (after, np.zeros_like(after)), "right": (after, np.ones_like(after))}
    delays = watched.delays(shifted)
    assert (delays["wrong"] < 50).all()
    for run in range(6):  # one by one, label by label
        alone, since = make(1), np.inf
        for t in range(900):
            both = [
                np.concatenate([x[run], z[run]])
                for x, z in zip((p, y), shifted["wrong"], strict=True)
            ]
            reached = alone.statistics(both[0][None, t : t + 1], both[1][None, t : t + 1])[0, 0]
            if reached >= threshold and t < 400:
                alone = make(1)
            elif reached >= threshold:
                since = t - 399
                break
        assert delays["wrong"][run] == since


def test_promises_are_counted_and_a_broken_rule_shows() -> None:
    size = {"n_streams": 4, "n_labels": 1_000}
    assert after_every_label(confidences, **size, seed=0) == (0, 0)
    assert by_requests(confidences, **size, rows=200, seed=0) == (0, 0)
    sorted_ones = by_requests(confidences, **size, rows=200, hashed=False, seed=0)
    assert sorted_ones[1] >= 3
    assert by_requests(confidences, **size, rows=60, copies=3, seed=0) == (0, 0)


def test_quiet_and_cost_print() -> None:
    rows, said = one_stream(1.05, n_labels=4_000, seed=0)
    assert len(rows) == 3
    assert "error 0.00 to" in said
    assert "after more labels" in said
    assert "bytes of JSON" in cost_report(small=True)


def test_a_shift_of_a_real_network_is_seen() -> None:
    generator = np.random.default_rng(3)
    logits = 2.0 * generator.normal(size=(1_600, 4))
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    data = of_arrays("made_gumbel", logits[:800], labels[:800], logits[800:], labels[800:])
    assert of_real_set(data)(generator, (2, 5)).shape == (2, 5)
    case = next(cases_of(data))
    assert case.name == "made_gumbel: none"
    wrong = type(case.calm)(case.calm.gap * 0.3, case.calm.confidence, case.calm.correct & False)
    stream = case.calm.drawn(generator, 2_000).then(wrong.drawn(generator, 600))
    before, after = first_sights(stream, case.baseline)
    seen = dict(zip(KINDS, after, strict=True))
    assert np.isinf(before).all()
    assert np.isinf(seen["expected accuracy"]), "nothing but labels tells: confidences stay"
    assert max(seen["PSI ratio"], seen["evidence"], seen["change"]) <= 600


def test_sections_of_both_benchmarks_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.md"
    path.write_text("<!-- drift:cost:begin -->\nold\n<!-- drift:cost:end -->\n", "utf-8")
    write_section(path, "cost", "new", benchmark="drift")
    assert "new" in path.read_text("utf-8")
    with pytest.raises(ValueError, match="no markers"):
        write_section(path, "cost", "new")


def test_the_streams_are_as_described() -> None:
    p = confidences(np.random.default_rng(0), 50_000)
    assert p.min() >= 0.1
    assert p.max() <= 0.9999
    assert p.mean() == pytest.approx(0.85, abs=0.01)
    assert tempered(2.0)(sigmoid(np.array([1.0])))[0] == pytest.approx(sigmoid(np.array([0.5]))[0])
