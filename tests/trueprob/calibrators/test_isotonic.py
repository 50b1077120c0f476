import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from trueprob import InvalidDocument, IsotonicCalibrator, from_dict, to_dict
from trueprob.calibrators import fit_isotonic

rows = st.lists(
    st.tuples(st.floats(0.01, 9), st.booleans(), st.floats(0.01, 9)), min_size=1, max_size=40
)


@given(rows)
def test_the_map_is_that_of_scikit_learn(triples):
    gaps, right, weights = np.array(triples).T
    gaps = np.ceil(8.0 * gaps) / 8.0  # exact in float32; some rows share a confidence
    logits = np.column_stack([gaps, np.zeros_like(gaps)]).astype(np.float32)
    calibrator = fit_isotonic(logits, 1 - right.astype(np.int64), weights).calibrator
    found = np.interp(gaps, calibrator.knots, calibrator.confidences)
    expected = IsotonicRegression().fit(gaps, right, sample_weight=weights).predict(gaps)
    margin = 0.5 / (gaps.shape[0] + 1)
    assert found == pytest.approx(np.clip(expected, margin, 1.0 - margin), abs=1e-9)


def test_the_confidence_is_the_share_that_is_right(overconfident):
    logits, labels = overconfident(2_000, 2)
    p = fit_isotonic(logits, labels).calibrator.predict_proba(logits)
    top = logits.argmax(axis=1)
    # Two classes: nothing but the floor of one half keeps the blocks' means from being exact.
    confidence, correct = p.max(axis=1), top == labels
    for value in np.unique(confidence[confidence > 0.51]):
        block = confidence == value
        if block.sum() >= 20:
            assert value == pytest.approx(correct[block].mean(), abs=1e-3)


def test_zero_weights_are_as_if_absent(overconfident):
    logits, labels = overconfident(200)
    weights = (np.arange(200) < 120).astype(np.float64)
    some = fit_isotonic(logits, labels, weights).calibrator
    alone = fit_isotonic(logits[:120], labels[:120]).calibrator
    assert some.knots == alone.knots
    assert np.array(some.confidences) == pytest.approx(np.array(alone.confidences), abs=5e-3)


def test_no_confidence_is_certain(overconfident):
    logits, _ = overconfident(50)
    calibrator = fit_isotonic(logits, logits.argmax(axis=1)).calibrator
    p = calibrator.predict_proba(logits)
    assert p.max() == pytest.approx(1 - 0.5 / 51)
    assert p.min() > 0


@pytest.mark.parametrize("gap", [10.0, 30.0, 37.0, 60.0, 80.0])
def test_the_other_classes_keep_their_ratios_in_sure_rows(gap):
    logits = np.array([[gap, 0.0, -1.0, -2.0]], dtype=np.float32)
    p = IsotonicCalibrator(4, (0.0,), (0.8,)).predict_proba(logits)[0]
    shares = np.exp([0.0, -1.0, -2.0])
    assert p == pytest.approx([0.8, *(0.2 * shares / shares.sum())], rel=1e-4)


def test_rows_beyond_float32_share_the_rest_evenly():
    logits = np.array([[1e4, 0.0, -1.0], [0.0, 3e38, -3e38]], dtype=np.float32)
    p = IsotonicCalibrator(3, (0.0,), (0.8,)).predict_proba(logits)
    assert p == pytest.approx(np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]))


@pytest.mark.parametrize(
    ("knots", "confidences", "message"),
    [
        ([], [], "as many confidences as knots, at least 1, got 0 and 0"),
        ([1.0, 2.0], [0.5], "as many confidences as knots"),
        ([2.0, 1.0], [0.5, 0.6], "knots must be increasing"),
        ([1.0, 2.0], [0.6, 0.5], "confidences must not decrease"),
        ([1.0, 2.0], [0.0, 0.5], "between 0 and 1, both excluded"),
        ([1.0, 2.0], [0.5, 1.0], "between 0 and 1, both excluded"),
    ],
)
def test_documents_that_do_not_follow_the_format_are_refused(knots, confidences, message):
    document = to_dict(IsotonicCalibrator(3, (0.0,), (0.5,)))
    document["parameters"] = {"knots": knots, "confidences": confidences}
    with pytest.raises(InvalidDocument, match=message):
        from_dict(document)
