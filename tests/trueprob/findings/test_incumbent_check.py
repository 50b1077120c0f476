"""A candidate is held for what the incumbent, the traffic or its own parameters say."""

from pathlib import Path

import numpy as np
import pytest

from trueprob import CalibrationSet, Severity, fit, softmax
from trueprob.arrays.logit_functions import logit_gap
from trueprob.calibrators import (
    FitOutcome,
    FittedCalibrator,
    IdentityCalibrator,
    TemperatureCalibrator,
    loads_calibrator,
)
from trueprob.drift import ReferenceBins
from trueprob.findings.incumbent_check import check_candidate
from trueprob.fitting.methods import fit_rows
from trueprob.repository.baseline import Baseline

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def digits():
    with np.load(ROOT / "examples" / "digits_test.npz") as arrays:
        return arrays["logits"], arrays["labels"].astype(np.int64)


@pytest.fixture(scope="module")
def factory():
    return loads_calibrator((ROOT / "models/digits/1/calibrator.json").read_bytes())


@pytest.fixture(scope="module")
def usual_gaps():
    baseline = Baseline.load(ROOT / "models/digits/1/baseline.npz")
    return ReferenceBins.of_percentiles(baseline.gap_quantiles, baseline.n)


def checked(incumbent, logits, labels, method="smart", weights=None, **known):
    data = CalibrationSet(logits, labels, weights)
    return check_candidate(incumbent, fit_rows(method, data), data, **known)


def codes(check, severity=Severity.HOLD):
    return [finding.code for finding in check.findings if finding.severity is severity]


def mixed(labels, share, seed=0):
    """Labels of which a share is replaced by random ones."""
    generator = np.random.default_rng(seed)
    random = generator.integers(0, 10, labels.size)
    return np.where(generator.random(labels.size) < share, random, labels)


def temperature(n_classes, value):
    return FittedCalibrator(TemperatureCalibrator(n_classes, value), FitOutcome.CONVERGED)


# ----- Accuracy -----


def test_an_accuracy_below_a_third_is_held_while_the_gaps_are_as_usual(digits, factory, usual_gaps):
    logits, labels = digits
    wrong = mixed(labels, 0.8)  # related to the scores, so the check of the set passes it
    check = checked(factory, logits, wrong, usual_gaps=usual_gaps)
    assert codes(check) == ["low_accuracy"]
    p = factory.predict_proba(logits)
    expected, accuracy = p.max(axis=1).mean(), (factory.prediction(logits) == wrong).mean()
    assert accuracy < expected / 3
    assert f"accuracy {accuracy:.3f}, where the incumbent expects {expected:.3f}" in str(
        check.findings[0]
    )
    # Recent rows serve where there is no baseline, but not a few of them.
    traffic = logits[:256]
    assert codes(checked(factory, logits, wrong, traffic=traffic)) == ["low_accuracy"]
    assert codes(checked(factory, logits, wrong, traffic=logits[:50])) == []
    assert codes(checked(factory, logits, wrong)) == []


def test_a_shift_of_the_gaps_explains_a_low_accuracy(digits, factory, usual_gaps):
    """The world changed: smaller gaps, and most predictions wrong."""
    logits, labels = digits
    generator = np.random.default_rng(1)
    harder = (0.4 * logits + generator.normal(scale=3.0, size=logits.shape)).astype(np.float32)
    p = factory.predict_proba(harder)
    wrong = mixed(labels, 0.75)
    assert (harder.argmax(axis=1) == wrong).mean() < p.max(axis=1).mean() / 3
    assert codes(checked(factory, harder, wrong, usual_gaps=usual_gaps)) == []
    # Neither does traffic that has shifted as the set has make it suspicious.
    known = {"usual_gaps": usual_gaps, "traffic": harder}
    assert codes(checked(factory, harder, wrong, **known)) == []


def test_plain_softmax_expects_nothing(digits, usual_gaps):
    logits, labels = digits
    wrong = mixed(labels, 0.8)
    assert codes(checked(IdentityCalibrator(10), logits, wrong, usual_gaps=usual_gaps)) == []


def test_few_rows_of_an_unsure_incumbent_are_low_by_chance():
    logits = (0.3 * np.random.default_rng(2).normal(size=(60, 50))).astype(np.float32)
    labels = (logits.argmax(axis=1) + 1) % 50  # none right, where 2 are expected
    quantiles = np.quantile(logit_gap(logits), np.arange(101) / 100, method="inverted_cdf")
    known = {"usual_gaps": ReferenceBins.of_percentiles(quantiles, 60)}
    incumbent = TemperatureCalibrator(50, 0.9)
    few = CalibrationSet(logits, labels)
    assert "low_accuracy" not in codes(
        check_candidate(incumbent, temperature(50, 1.0), few, **known)
    )
    many = CalibrationSet(np.tile(logits, (20, 1)), np.tile(labels, 20))
    assert "low_accuracy" in codes(check_candidate(incumbent, temperature(50, 1.0), many, **known))


@pytest.mark.parametrize(("label", "severity"), [(3, Severity.HOLD), (None, Severity.WARN)])
def test_labels_of_one_class_are_held_if_the_incumbent_disagrees(digits, factory, label, severity):
    logits, labels = digits
    if label is None:
        logits, labels = logits[labels == 3], labels[labels == 3]
    check = checked(factory, logits, np.full_like(labels, 3))
    (finding,) = (f for f in check.findings if f.code == "one_class")
    assert finding.severity is severity


def test_rows_of_weight_zero_count_for_nothing(digits, factory):
    logits, labels = digits
    weights = (labels == 3).astype(np.float64)
    check = checked(factory, logits, np.full_like(labels, 3), weights=weights)
    assert "one_class" in codes(check, Severity.WARN)
    alone = checked(factory, logits[labels == 3], labels[labels == 3])
    assert check.on_set.before == pytest.approx(alone.on_set.before)


# ----- Traffic -----


def test_confidence_that_falls_on_traffic_only_is_held(digits, factory):
    logits, labels = digits
    scaled = (5.0 * logits).astype(np.float32)
    assert codes(checked(factory, scaled, labels)) == []
    check = checked(factory, scaled, labels, traffic=logits[:200])
    assert codes(check) == ["traffic_confidence"]
    assert check.on_traffic.rows == 200
    before = factory.predict_proba(logits[:200]).max(axis=1).mean()
    assert check.on_traffic.before == pytest.approx(before, abs=1e-6)
    assert check.on_traffic.difference < -0.3
    assert f"{check.on_traffic.before:.3f} → {check.on_traffic.after:.3f}" in str(check)


def test_a_large_change_that_the_set_shows_too_is_not_held(digits):
    logits, _ = digits
    generator = np.random.default_rng(3)
    labels = (logits / 6 + generator.gumbel(size=logits.shape)).argmax(axis=1)
    check = checked(IdentityCalibrator(10), logits, labels, traffic=logits[:256])
    assert check.on_traffic.difference < -0.3
    assert codes(check) == []


def test_traffic_of_few_different_rows_holds_nothing(digits, factory):
    logits, labels = digits
    scaled = (5.0 * logits).astype(np.float32)
    health_check = np.tile(logits[:19], (20, 1))  # 380 rows, 19 of them different
    check = checked(factory, scaled, labels, traffic=health_check)
    assert check.on_traffic.rows == 19
    assert codes(check) == []
    assert codes(checked(factory, scaled, labels, traffic=logits[:20])) != []


def test_the_standard_error_counts():
    generator = np.random.default_rng(4)
    logits = generator.normal(scale=3.0, size=(4_000, 5)).astype(np.float32)
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    data = CalibrationSet(0.4 * logits[2_000:], labels[2_000:])
    incumbent, candidate = IdentityCalibrator(5), temperature(5, 4.0)
    many = check_candidate(incumbent, candidate, data, traffic=logits[:2_000])
    few = check_candidate(incumbent, candidate, data, traffic=logits[:20])
    for check in (many, few):
        assert check.on_traffic.difference < -0.3
        assert check.on_set.difference - check.on_traffic.difference > 0.1
    assert (codes(many), codes(few)) == (["traffic_confidence"], [])
    differences = softmax(logits[:20] / 4).max(axis=1) - softmax(logits[:20]).max(axis=1)
    assert few.on_traffic.variance == pytest.approx(differences.var() / 20, rel=1e-4)


# ----- The fit -----


def test_an_absurd_fit_is_held():
    generator = np.random.default_rng(5)
    logits = generator.normal(scale=3.0, size=(400, 5)).astype(np.float32)
    labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
    data = CalibrationSet(logits, labels)
    check = check_candidate(IdentityCalibrator(5), temperature(5, 400.0), data)
    assert codes(check) == ["absurd_temperature"]


def test_an_honest_set_has_nothing_against_it(digits, factory, usual_gaps):
    logits, labels = digits
    check = checked(factory, logits, labels, usual_gaps=usual_gaps, traffic=logits)
    assert (check.findings, check.holds) == ((), ())
    assert check.on_set.to_dict().keys() == {"rows", "before", "after"}


# ----- Scale only -----


@pytest.mark.parametrize("method", ["vector", "smart-vector", "smart-matrix", "auto"])
def test_one_class_is_fitted_by_a_method_that_keeps_the_prediction(digits, method):
    logits, labels = digits
    one = labels == 3
    fitted = fit(logits[one], labels[one], method, allow_prediction_change=True)
    assert (fitted.report.method, fitted.calibrator.kind) == ("smart", "smart")
    assert [f.code for f in fitted.report.findings][:2] == ["one_class", "scale_only"]
    assert method in str(fitted.report.findings[1])
    kept = (logits[one].argmax(axis=1) == 3).mean()
    assert fitted.report.after.accuracy == pytest.approx(kept)


def test_other_methods_and_sets_are_left_alone(digits):
    logits, labels = digits
    one = labels == 3
    assert fit(logits[one], labels[one], "temperature").report.method == "temperature"
    assert fit(logits[:100], labels[:100], "vector").report.method == "vector"
