"""Minus infinity masks a class: probability 0 after every calibrator, and no part in a fit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.trueprob.every_kind import BINARY, cases, fit_kind, width
from trueprob import (
    CalibrationSet,
    InvalidDocument,
    InvalidInput,
    as_logits,
    fit,
    logit_gap,
    logits_from_probabilities,
    softmax,
)
from trueprob.arrays.logits import ZERO_CELL
from trueprob.calibrators import (
    KINDS,
    IdentityCalibrator,
    dumps_calibrator,
    loads_calibrator,
)
from trueprob.calibrators.input_stage import InputStage, ZeroCells, mask_stage
from trueprob.calibrators.smart.second_stage import SecondStage
from trueprob.fitting.methods import FITTERS, METHODS, fit_rows

every_kind = pytest.mark.parametrize("kind", cases(sorted(KINDS)))
every_method = pytest.mark.parametrize("method", cases(m for m in METHODS if m != BINARY))


def masked_rows(logits, share=0.4, *, keep=None, seed=0):
    """The rows with some classes masked; `keep` holds a class of each row that is not."""
    generator = np.random.default_rng(seed)
    n, k = logits.shape
    masked = generator.random((n, k)) < share
    kept = logits.argmax(axis=1) if keep is None else keep
    masked[np.arange(n), kept] = False
    return np.where(masked, np.float32(-np.inf), logits), masked


@every_kind
@pytest.mark.parametrize("k", [2, 5, 70])
def test_masked_classes_get_nothing(kind, k, overconfident):
    k = width(kind, k)
    calibrator = fit_kind(kind, *overconfident(80, k))
    plain, _ = overconfident(60, k, seed=1)
    logits, masked = masked_rows(plain, keep=np.arange(60) % k)
    found = calibrator.calibrated(logits)
    p = found.probabilities
    assert (p[masked] == 0.0).all()
    assert p.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    alone = (~masked).sum(axis=1) == 1
    assert (p[alone].max(axis=1) == 1.0).all()
    assert not masked[np.arange(60), found.prediction].any()
    assert np.array_equal(p.argmax(axis=1)[masked.any(1)], found.prediction[masked.any(1)])
    assert np.array_equal(found.confidence, p.max(axis=1))
    assert np.array_equal(found.logit_gap, logit_gap(logits))
    if calibrator.preserves_prediction:
        assert np.array_equal(found.prediction, logits.argmax(axis=1))
    assert np.array_equal(calibrator.predict_proba(logits), p)
    assert np.array_equal(calibrator.prediction(logits), found.prediction)
    if (temperature := calibrator.temperature(logits)) is not None:
        assert np.array_equal(temperature, found.temperature)
        assert np.isfinite(temperature).all()
    # Rows without a mask are not changed by others beside them.
    whole = ~masked.any(axis=1)
    assert np.array_equal(p[whole], calibrator.predict_proba(plain)[whole])


@settings(max_examples=50, deadline=None)
@given(
    logits=arrays(np.float32, (4, 3), elements=st.floats(-(2.0**127), 2.0**127, width=32)),
    masked=arrays(np.bool_, (4, 3)).filter(lambda cells: not cells.all(axis=1).any()),
)
def test_any_logits_may_be_masked(logits, masked):
    rows = np.where(masked, np.float32(-np.inf), logits)
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(40, 3)).astype(np.float32)
    for kind in ("identity", "temperature", "smart", "isotonic", "vector", "smart-matrix"):
        plain = FITTERS[kind](scores, scores.argmax(axis=1), None, seed=0).calibrator
        zeros = ZeroCells((0.1,), (0.2, 0.3, 0.5))
        for stage in (None, InputStage(zeros, 7.0)):
            found = replace(plain, input_stage=stage).calibrated(rows)
            assert (found.probabilities[masked] == 0.0).all()
            assert found.probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
            assert np.isfinite(found.logit_gap).all()
            assert not masked[np.arange(4), found.prediction].any()


def test_a_masked_row_is_the_row_without_that_class():
    logits = np.array([[1.0, -np.inf, 3.0, 2.5], [-np.inf, -2.0, -np.inf, 0.5]])
    expected = np.zeros((2, 4))
    expected[0, [0, 2, 3]] = softmax(as_logits([[1.0, 3.0, 2.5]]))[0]
    expected[1, [1, 3]] = softmax(as_logits([[-2.0, 0.5]]))[0]
    assert IdentityCalibrator(4).predict_proba(logits) == pytest.approx(expected, abs=1e-7)
    smart = FITTERS["smart"](np.eye(4, dtype=np.float32) * 3, np.arange(4), None).calibrator
    bent = replace(smart, second_stage=SecondStage((-3.0, 0.5, 7.0), (-9.0, 1.0, 6.0)))
    gaps = np.array([0.5, 2.5])
    assert logit_gap(as_logits(logits)) == pytest.approx(gaps)
    two = np.zeros((2, 4), dtype=np.float32)
    two[:, 0] = gaps
    assert bent.temperature(logits) == pytest.approx(bent.temperature(two), rel=1e-12)


@every_method
def test_a_class_that_is_always_masked_is_not_there(method, overconfident):
    logits, labels = overconfident(300, 4)
    wide = np.insert(logits, 2, -np.inf, axis=1)
    moved = labels + (labels >= 2)
    found = fit_rows(method, CalibrationSet(wide, moved), allow_prediction_change=True).calibrator
    narrow = fit_rows(method, CalibrationSet(logits, labels), allow_prediction_change=True)
    rows, _ = overconfident(50, 4, seed=3)
    p = found.predict_proba(np.insert(rows, 2, -np.inf, axis=1))
    assert found.input_stage is None
    assert (p[:, 2] == 0.0).all()
    expected = narrow.calibrator.predict_proba(rows)
    # Priors and the uniform weight count classes.
    assert np.delete(p, 2, axis=1) == pytest.approx(expected, abs=0.03)


@every_method
def test_sets_with_masks_are_fitted_and_scored(method, overconfident):
    logits, labels = overconfident(300)
    rows, masked = masked_rows(logits, keep=labels)
    fitted = fit(rows, labels, method, allow_prediction_change=True)
    assert fitted.report.after.nll < fitted.report.before.nll or method == "identity"
    assert (fitted.calibrator.predict_proba(rows)[masked] == 0.0).all()
    assert fitted.report.findings == ()


def test_a_label_that_is_masked_is_refused_with_the_remedy():
    with pytest.raises(InvalidInput, match=r"of 1 of 2 rows .* row 1 .* log_prob") as error:
        fit([[0.0, 1.0, 2.0], [-np.inf, 0.0, 1.0]], [0, 0])
    assert error.value.field == "labels"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.0, 1.0], [-np.inf, -np.inf]], "in row 1 all are masked by minus infinity"),
        ([[0.0, 1.0], [-np.inf, np.inf]], "logits must be finite as float32, row 1 is not"),
        ([[0.0, np.nan, -np.inf]], "row 0 is not"),
        ([[0.0, 1.0], [-1e39, 0.0]], "row 1 is not"),  # no mask: finite in float64
    ],
)
def test_what_is_no_mask_is_refused(values, message):
    with pytest.raises(InvalidInput, match=message):
        as_logits(values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_masks_are_kept(dtype):
    logits = as_logits(np.array([[0.0, -np.inf, 1.5]], dtype=dtype))
    assert logits.tolist() == [[0.0, -np.inf, 1.5]]


def other_masks(kind, overconfident):
    """A calibrator for logits, the same for stand-ins at −1e9, and rows with their masks."""
    k = width(kind, 5)
    plain = fit_kind(kind, *overconfident(80, k))
    rows, masked = masked_rows(overconfident(60, k, seed=1)[0], keep=np.arange(60) % k)
    return plain, rows, masked


@every_kind
@pytest.mark.parametrize("threshold", [-1e9, -1e4, np.float32(-1e9)])
def test_a_threshold_masks_what_is_at_or_below_it(kind, threshold, overconfident):
    plain, rows, masked = other_masks(kind, overconfident)
    calibrator = plain.with_masks(mask_stage(threshold))
    below = np.where(np.arange(rows.shape[1]) % 2, threshold, 2 * float(threshold))
    found = calibrator.calibrated(as_logits(np.where(masked, below, rows)))
    expected = plain.calibrated(rows)
    assert (found.probabilities[masked] == 0.0).all()
    for name in ("probabilities", "prediction", "confidence", "logit_gap", "temperature"):
        got, wanted = getattr(found, name), getattr(expected, name)
        assert np.array_equal(got, wanted) if wanted is not None else got is None
    assert np.array_equal(calibrator.predict_proba(rows), expected.probabilities)
    restored = loads_calibrator(dumps_calibrator(calibrator))
    assert restored == calibrator
    assert restored.id != plain.id
    with pytest.raises(InvalidInput, match=r"row 1 all are masked at or below mask_below, -1"):
        calibrator.predict_proba([rows[0], np.full(rows.shape[1], threshold)])


@every_kind
def test_a_zero_is_a_mask_when_asked(kind, overconfident):
    plain, rows, masked = other_masks(kind, overconfident)
    p = np.where(masked, 0.0, softmax(rows).clip(1e-6))
    logits = logits_from_probabilities(p / p.sum(axis=1, keepdims=True))
    expected = plain.calibrated(np.where(masked, np.float32(-np.inf), logits))
    calibrator = plain.with_masks(mask_stage(zeros="mask"))
    found = calibrator.calibrated(logits)
    assert (found.probabilities[masked] == 0.0).all()
    assert np.array_equal(found.probabilities, expected.probabilities)
    assert np.array_equal(found.logit_gap, expected.logit_gap)
    assert loads_calibrator(dumps_calibrator(calibrator)) == calibrator


@every_method
def test_a_fit_keeps_what_it_was_told_about_masks(method, overconfident):
    logits, labels = overconfident(120, 4)
    rows, masked = masked_rows(logits, keep=labels)
    expected = fit(rows, labels, method, allow_prediction_change=True)
    given = np.where(masked, -1e9, logits)
    fitted = fit(given, labels, method, allow_prediction_change=True, mask_below=-1e9)
    assert fitted.calibrator.masks == InputStage(mask_below=-1e9)
    assert fitted.report.after == expected.report.after
    assert fitted.report.before == expected.report.before
    assert fitted.report.findings == expected.report.findings
    assert np.array_equal(
        fitted.calibrator.predict_proba(given), expected.calibrator.predict_proba(rows)
    )
    low = fitted.calibrator.predict_interval(given).low
    alone = (~masked).sum(axis=1) == 1
    assert alone.any()
    assert (low[alone] == 1.0).all()


def test_zeros_are_learnt_unless_they_are_masks():
    p = np.tile([[0.7, 0.3, 0.0], [0.2, 0.0, 0.8], [0.0, 1.0, 0.0]], (20, 1))
    labels = np.tile([0, 2, 1], 20)
    logits = logits_from_probabilities(p)
    assert (fit(logits, labels).calibrator.predict_proba(logits) > 0.0).all()
    found = fit(logits, labels, zeros="mask").calibrator
    q = found.predict_proba(logits)
    assert ((q > 0.0) == (p > 0.0)).all()
    assert (q[2] == [0.0, 1.0, 0.0]).all()
    assert found.input_stage == InputStage(zeros_are_masks=True)
    two = fit(logits_from_probabilities([0.0, 0.2, 0.9, 1.0] * 5), [0, 0, 1, 1] * 5, zeros="mask")
    assert (two.calibrator.predict_proba(logits_from_probabilities([0.0, 1.0])) == np.eye(2)).all()


@pytest.mark.parametrize(
    ("options", "message", "field"),
    [
        ({"mask_below": -4.0}, r"of 1 of 3 rows are, such as row 1 with the label 2", "labels"),
        ({"mask_below": 2.0}, "in row 1 all are masked at or below mask_below, 2", "logits"),
        ({"mask_below": -np.inf}, "mask_below must be finite as float32, got -inf", "mask_below"),
        ({"mask_below": np.nan}, "mask_below must be finite as float32, got nan", "mask_below"),
        ({"mask_below": -1e39}, "mask_below must be finite as float32, got -1e", "mask_below"),
        ({"mask_below": "-1e9"}, "mask_below must be a number, got str", "mask_below"),
        ({"mask_below": True}, "mask_below must be a number, got bool", "mask_below"),
        ({"zeros": "masks"}, "zeros must be one of learn, mask, got 'masks'", "zeros"),
        ({"zeros": None}, "zeros must be one of learn, mask, got 'None'", "zeros"),
    ],
)
def test_masks_that_cannot_be_are_refused(options, message, field):
    with pytest.raises(InvalidInput, match=message) as error:
        fit([[3.0, 0.0, -1.0], [0.0, 1.0, -5.0], [2.0, 3.0, 4.0]], [0, 2, 1], **options)
    assert error.value.field == field


def test_a_zero_that_is_a_mask_is_no_label():
    logits = logits_from_probabilities([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    with pytest.raises(InvalidInput, match=r"of 1 of 2 rows .* row 1 .* is 0 no mask here\?"):
        fit(logits, [0, 1], zeros="mask")


def test_masks_that_mask_nothing_are_said(overconfident):
    logits, labels = overconfident(60)
    for options in ({"mask_below": -1e9}, {"zeros": "mask"}):
        findings = fit(logits, labels, "temperature", **options).report.findings
        assert [each.code for each in findings] == ["masks_nothing"]
        assert f"whose lowest logit is {logits.min():g}" in findings[0].sentence


@pytest.mark.parametrize(
    ("key", "value"), [("mask_below", "x"), ("mask_below", None), ("zeros_are_masks", False)]
)
def test_documents_of_masks_are_checked(key, value):
    stage = {"zeros": None, "clip": None, key: value}
    with pytest.raises(InvalidDocument, match=key):
        InputStage.from_parameters(3, stage)


def test_masks_and_zero_cells_are_told_apart():
    stage = InputStage(ZeroCells((0.1,), (0.25, 0.25, 0.25, 0.25)))
    calibrator = replace(IdentityCalibrator(4), input_stage=stage)
    row = np.array([[np.log(0.75), np.log(0.25), ZERO_CELL, -np.inf]])
    assert calibrator.predict_proba(row)[0] == pytest.approx([0.675, 0.225, 0.1, 0.0], abs=1e-6)
