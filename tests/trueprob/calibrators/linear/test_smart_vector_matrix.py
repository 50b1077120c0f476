import numpy as np
import pytest

from trueprob import InvalidDocument, SmartVectorCalibrator, from_dict, to_dict
from trueprob.calibrators import FitOutcome, fit_smart, fit_smart_matrix, fit_smart_vector

FITS = pytest.mark.parametrize("fit", [fit_smart_vector, fit_smart_matrix])


def nll(calibrator, logits, labels):
    p = calibrator.predict_proba(logits)[np.arange(len(labels)), labels]
    return -np.log(p.astype(np.float64)).mean()


@FITS
def test_few_errors_of_a_favoured_class_are_repaired(fit, overconfident):
    logits, labels = overconfident(10_000, scale=4.0, factor=1.0)
    logits[:, 2] += np.float32(4.0)
    gains = []
    for rows in np.split(np.arange(1_200), 12):
        calibrator = fit(logits[rows], labels[rows]).calibrator
        errors = (logits[rows].argmax(axis=1) != labels[rows]).sum()
        assert 10 <= errors <= 45
        assert calibrator.linear is not None
        smart = fit_smart(logits[rows], labels[rows]).calibrator
        test = logits[1_200:], labels[1_200:]
        gains.append(nll(smart, *test) - nll(calibrator, *test))
    assert np.mean(gains) > 0.1


@FITS
@pytest.mark.parametrize("n", [50, 200])
def test_where_no_class_is_favoured_little_is_lost(fit, n, overconfident):
    logits, labels = overconfident(20_000)
    losses = []
    for rows in np.split(np.arange(10 * n), 10):
        fitted, smart = (f(logits[rows], labels[rows]).calibrator for f in (fit, fit_smart))
        test = logits[10_000:], labels[10_000:]
        losses.append(nll(fitted, *test) - nll(smart, *test))
        if fitted.linear is None:
            assert fitted.gap_stage == smart
    assert np.mean(losses) < 0.03


@FITS
def test_sets_without_errors_and_single_rows_are_fitted(fit, overconfident):
    logits, _ = overconfident(30)
    fitted = fit(logits, logits.argmax(axis=1))
    assert fitted.outcome is FitOutcome.CONVERGED
    assert all("cannot tell" in warning for warning in fitted.warnings)
    alone = fit(logits[:1], logits[:1].argmax(axis=1)).calibrator
    assert alone.linear is None


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
