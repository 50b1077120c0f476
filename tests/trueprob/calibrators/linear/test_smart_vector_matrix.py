import numpy as np
import pytest

from trueprob import InvalidDocument, SmartVectorCalibrator, from_dict, to_dict
from trueprob.calibrators import fit_smart, fit_smart_matrix, fit_smart_vector

FITS = pytest.mark.parametrize("fit", [fit_smart_vector, fit_smart_matrix])


@FITS
def test_with_few_errors_there_is_no_linear_stage_and_the_report_says_so(fit, overconfident):
    logits, labels = overconfident(400)
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    assert wrong.shape[0] >= 60
    labels[wrong[49:]] = logits.argmax(axis=1)[wrong[49:]]  # 49 errors: one fold has 9
    refused = fit(logits, labels)
    assert refused.calibrator.linear is None
    assert "a fold has 9 errors, at least 10 are needed" in refused.warnings[0]
    assert refused.calibrator.gap_stage == fit_smart(logits, labels).calibrator
    labels[wrong[49]] = (logits[wrong[49]].argmax() + 1) % 5
    accepted = fit(logits, labels)
    assert accepted.calibrator.linear is not None
    assert accepted.warnings == ()


@FITS
def test_rows_that_weigh_nothing_are_no_errors(fit, overconfident):
    logits, labels = overconfident(400)
    weights = (logits.argmax(axis=1) == labels).astype(np.float64)
    assert fit(logits, labels, weights).calibrator.linear is None


@FITS
def test_a_favoured_class_is_put_right(fit, overconfident):
    logits, labels = overconfident(2_000, factor=1.0)
    favoured = logits + np.array([0, 0, 3, 0, 0], dtype=np.float32)
    calibrator = fit(favoured[:1_000], labels[:1_000]).calibrator
    rows = np.arange(1_000)
    test, truth = favoured[1_000:], labels[1_000:]
    p = calibrator.predict_proba(test)
    plain = fit_smart(favoured[:1_000], labels[:1_000]).calibrator.predict_proba(test)
    nll = -np.log(p[rows, truth]).mean()
    assert nll < -np.log(plain[rows, truth]).mean() - 0.1
    # The labels were drawn from the logits without the favour: no probabilities can be better.
    ideal = logits[1_000:] - logits[1_000:].max(axis=1, keepdims=True)
    ideal = ideal - np.log(np.exp(ideal).sum(axis=1, keepdims=True))
    assert nll < -ideal[rows, truth].mean() + 0.03


def changed(**parameters):
    document = to_dict(FITTED)
    document["parameters"] = {**document["parameters"], **parameters}
    return document


FITTED = from_dict(
    to_dict(
        SmartVectorCalibrator(
            2, None, fit_smart(np.eye(2, dtype=np.float32), np.arange(2)).calibrator
        )
    )
)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (changed(linear=3), r"parameters\.linear must be an object"),
        (changed(gap_stage=None), r"parameters\.gap_stage must be an object"),
        (changed(linear={"weights": [1.0, 1.0]}), "must have the key 'bias'"),
        (
            changed(linear={"weights": [1.0] * 4, "bias": [0.0, 0.0]}),
            "weights must have 2 numbers for 2 classes, got 4",
        ),
        (
            changed(linear={"weights": [1.0] * 2, "bias": [0.0]}),
            "bias must have 2 numbers for 2 classes, got 1",
        ),
        (changed(extra=1), "unknown key 'extra'"),
    ],
)
def test_documents_that_do_not_follow_the_format_are_refused(document, message):
    with pytest.raises(InvalidDocument, match=message):
        from_dict(document)
