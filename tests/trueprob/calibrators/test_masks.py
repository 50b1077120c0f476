"""Minus infinity masks a class: probability 0 after every calibrator, and no part in a fit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.trueprob.every_kind import BINARY, cases, fit_kind, width
from trueprob import CalibrationSet, InvalidInput, as_logits, fit, logit_gap, softmax
from trueprob.arrays.logits import ZERO_CELL
from trueprob.calibrators import KINDS, IdentityCalibrator
from trueprob.calibrators.input_stage import InputStage, ZeroCells
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
    with pytest.raises(InvalidInput, match=r"row 1 has the label 0, .* log_probabilities") as error:
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


def test_masks_and_zero_cells_are_told_apart():
    stage = InputStage(ZeroCells((0.1,), (0.25, 0.25, 0.25, 0.25)))
    calibrator = replace(IdentityCalibrator(4), input_stage=stage)
    row = np.array([[np.log(0.75), np.log(0.25), ZERO_CELL, -np.inf]])
    assert calibrator.predict_proba(row)[0] == pytest.approx([0.675, 0.225, 0.1, 0.0], abs=1e-6)
