import json

import numpy as np
import pytest

from tests.trueprob.every_kind import width
from trueprob import (
    METHODS,
    CalibrationSet,
    InvalidInput,
    SuspiciousSet,
    cross_fit,
    dumps_calibrator,
    fit,
    negative_log_likelihood,
)
from trueprob.calibrators import KINDS
from trueprob.fitting import fit as fitting
from trueprob.fitting.methods import fit_rows, keeps_prediction, needs_permission


@pytest.mark.slow
def test_every_method_fits_and_reports(overconfident):
    for method in METHODS:
        k = width(method, 5)
        fitted = fit(*overconfident(60, k), method)
        report = fitted.report
        assert fitted.calibrator.kind == method or method == "auto"
        assert (report.method, report.n, report.k) == (method, 60, k)
        if keeps_prediction(method, k):
            assert report.after.accuracy == report.before.accuracy
        assert report.seconds >= 0
        json.dumps(report.to_dict(), allow_nan=False)
    assert set(METHODS) == {*KINDS, "auto"} - {"stack"}


def test_smart_is_the_default(overconfident):
    assert fit(*overconfident(60)).calibrator.kind == "smart"


def test_with_two_classes_the_default_may_move_the_threshold_unless_it_must_not(overconfident):
    rows = overconfident(60, 2)
    assert (
        fit(*rows).calibrator.kind == fit(*rows, "smart-binary").calibrator.kind == "smart-binary"
    )
    kept = fit(*rows, keep_prediction=True)
    assert (kept.calibrator.kind, kept.report.method) == ("smart", "smart")
    assert not keeps_prediction("smart", 2)
    assert keeps_prediction("smart", 2, keep_prediction=True)
    assert keeps_prediction("smart", 3)
    data = CalibrationSet(*rows)
    assert np.array_equal(cross_fit("smart", data), cross_fit("smart-binary", data))
    assert not np.array_equal(
        cross_fit("smart", data, keep_prediction=True), cross_fit("smart", data)
    )


def test_one_score_per_row_is_fitted_as_two_columns(overconfident):
    logits, labels = overconfident(120, 2)
    difference = logits[:, 1] - logits[:, 0]
    two = fit(np.stack([np.zeros_like(difference), difference], axis=1), labels).calibrator
    for one in (difference, difference[:, None]):
        fitted = fit(one, labels)
        assert fitted.report.k == 2
        assert np.array_equal(fitted.calibrator.predict_proba(one), two.predict_proba(one))
        assert np.array_equal(fitted.calibrator.log_odds(one), two.log_odds(one))
    higher = two.predict_proba(np.array([-4.0, 4.0]))
    assert higher.shape == (2, 2)
    assert higher[0, 1] < higher[1, 1]
    many = fit(*overconfident(60)).calibrator
    with pytest.raises(InvalidInput, match="one number per row is for two classes"):
        many.predict_proba(difference)


@pytest.mark.parametrize("ignored", [-100, -1])
def test_rows_without_a_label_are_left_out_when_asked(overconfident, ignored):
    logits, labels = overconfident(120)
    marked = labels.copy()
    marked[::7] = ignored
    weights = np.linspace(1.0, 2.0, 120)
    groups = np.arange(120) // 2
    kept = marked != ignored
    fitted = fit(logits, marked, weights=weights, groups=groups, ignore_label=ignored)
    alone = fit(logits[kept], labels[kept], weights=weights[kept], groups=groups[kept])
    assert fitted.report.n == kept.sum()
    assert dumps_calibrator(fitted.calibrator) == dumps_calibrator(alone.calibrator)
    (said,) = (f for f in fitted.report.findings if f.code == "ignored_rows")
    assert said.sentence == f"18 rows have the label {ignored} and were left out"
    with pytest.raises(InvalidInput, match="row 0 does not"):
        fit(logits, marked)
    with pytest.raises(InvalidInput, match=f"must not all be the ignore_label {ignored}"):
        fit(logits, np.full(120, ignored), ignore_label=ignored)


def test_an_ignored_text_is_no_class_and_no_row(overconfident):
    logits, labels = overconfident(60, 3)
    names = ["a", "b", "c"]
    texts = [names[label] for label in labels]
    given = {"logits": logits, "labels": ["?", *texts[1:]]}
    found = CalibrationSet.from_arrays(given, class_names=names, ignore_label="?")
    assert found.digest == CalibrationSet(logits[1:], labels[1:], class_names=names).digest
    masked = logits.copy()
    masked[0, 0] = -np.inf  # the row without a label may mask any class
    found = CalibrationSet.from_arrays(
        {**given, "logits": masked}, class_names=names, ignore_label="?"
    )
    assert found.n == 59


def test_what_keeps_the_order_of_rows_needs_no_permission():
    needing = {method for method in METHODS if needs_permission(method)}
    assert needing == {"vector", "smart-vector", "smart-matrix"}


def test_the_scores_after_are_out_of_fold(overconfident):
    logits, labels = overconfident(300)
    data = CalibrationSet(logits, labels)
    report = fit(logits, labels, "temperature").report
    out_of_fold = cross_fit("temperature", data)
    chosen = out_of_fold[np.arange(300), labels].astype(np.float64)
    assert report.after.nll == pytest.approx(-np.log(chosen).mean())
    in_sample = fit(logits, labels, "temperature").calibrator.predict_proba(logits)
    assert not np.array_equal(out_of_fold, in_sample)


def test_no_row_is_predicted_by_a_fit_that_saw_its_label(overconfident):
    logits, labels = overconfident(40)
    data = CalibrationSet(logits, labels)
    first = cross_fit("temperature", data)
    # Another wrong label for a wrong row: folds stay, so its own prediction must too.
    row = int(np.flatnonzero(logits.argmax(axis=1) != labels)[0])
    changed = labels.copy()
    changed[row] = next(c for c in range(5) if c not in (labels[row], logits[row].argmax()))
    second = cross_fit("temperature", CalibrationSet(logits, changed))
    assert np.array_equal(first[row], second[row])
    assert not np.array_equal(first, second)


def test_repeats_are_averaged(overconfident):
    data = CalibrationSet(*overconfident(50))
    each = [cross_fit("temperature", data, seed=s) for s in (3, 4)]
    assert cross_fit("temperature", data, n_repeats=2, seed=3) == pytest.approx(
        (each[0] + each[1]) / 2
    )


def test_groups_are_never_on_both_sides(overconfident):
    logits, labels = overconfident(30)
    logits, labels = np.repeat(logits, 4, axis=0), np.repeat(labels, 4)
    groups = np.repeat(np.arange(30), 4)
    grouped = cross_fit("temperature", CalibrationSet(logits, labels, None, groups))
    for group in range(30):
        assert np.ptp(grouped[groups == group], axis=0).max() == 0.0
    with pytest.raises(InvalidInput, match="at least two rows or groups, got one"):
        cross_fit("temperature", CalibrationSet(logits, labels, None, np.zeros(120, np.int64)))


@pytest.mark.parametrize("n", [1, 2, 9, 10, 49])
def test_few_rows_are_fitted_with_a_warning(n, overconfident):
    report = fit(*overconfident(n)).report
    assert f"only {n} rows" in report.warnings[0]
    assert ("in-sample" in report.warnings[0]) == (n < 10)


def test_sets_that_say_nothing_are_warned_about(overconfident):
    logits, _ = overconfident(60)
    assert "no prediction is wrong" in fit(logits, logits.argmax(axis=1)).report.warnings[0]
    with pytest.warns(SuspiciousSet, match="labels look unrelated to the scores"):
        report = fit(logits, logits.argmin(axis=1)).report
    assert any("every prediction is wrong" in warning for warning in report.warnings)


def test_folds_whose_weights_are_all_zero_are_survived(overconfident):
    logits, labels = overconfident(20)
    weights = np.zeros(20)
    weights[3] = 1.0
    assert np.isfinite(fit(logits, labels, weights=weights).report.after.nll)


def test_unknown_methods_are_refused(overconfident):
    with pytest.raises(InvalidInput, match=r"method must be one of .*, got 'magic'") as caught:
        fit(*overconfident(20), "magic")
    assert caught.value.field == "method"


def test_the_docstring_example_runs():
    import doctest

    assert doctest.testmod(fitting).failed == 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["smart", "smart-vector"])
def test_methods_that_hold_rows_out_themselves_keep_groups_whole(method, overconfident):
    """Copies of a row on both sides of a fold make a fit look better than it is."""
    logits, labels = overconfident(4_600)
    fresh = slice(600, None)
    lost = {False: 0.0, True: 0.0}
    for start in range(0, 600, 120):
        copies = np.repeat(np.arange(start, start + 120), 8)
        arrays = {"logits": logits[copies], "labels": labels[copies]}
        for grouped in lost:
            rows = CalibrationSet.from_arrays({**arrays, **({"groups": copies} if grouped else {})})
            p = fit_rows(method, rows).calibrator.predict_proba(logits[fresh])
            lost[grouped] += negative_log_likelihood(p, labels[fresh])
    assert lost[True] < lost[False]
