import json

import numpy as np
import pytest

from trueprob import CalibrationSet, admit, cross_fit, fit
from trueprob.calibrators import KINDS
from trueprob.fitting.auto import CANDIDATES, candidates, fit_auto
from trueprob.fitting.methods import keeps_prediction


def favoured(overconfident, n=100):
    logits, labels = overconfident(n)
    logits[:, 2] += 6.0
    return logits, labels


@pytest.fixture(scope="module")
def free(overconfident):
    """`auto` on favoured rows, allowed to change predictions."""
    return fit(*favoured(overconfident), "auto", allow_prediction_change=True)


def test_candidates_that_change_predictions_must_be_allowed():
    kept = candidates(5, allow_prediction_change=False)
    assert all(KINDS[method].preserves_prediction for method in kept)
    assert set(candidates(5, allow_prediction_change=True)) == set(CANDIDATES)
    assert "smart-matrix" not in candidates(1_000, allow_prediction_change=True)


@pytest.mark.slow
def test_every_candidate_is_reported_and_the_rule_holds(free):
    report = free.report
    assert [score.method for score in report.candidates] == list(CANDIDATES)
    best = min(report.candidates, key=lambda score: score.nll)
    assert (best.behind, best.behind_standard_error) == (0.0, 0.0)
    for score in report.candidates:
        assert score.behind == pytest.approx(score.nll - best.nll, abs=1e-12)
        assert score.standard_error > 0
    written = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert written["candidates"][0]["method"] == "identity"


@pytest.mark.slow
def test_predictions_change_only_when_allowed(overconfident, free):
    without = fit(*favoured(overconfident), "auto")
    assert without.calibrator.preserves_prediction
    assert not free.calibrator.preserves_prediction
    assert without.report.after.accuracy == without.report.before.accuracy
    assert free.report.after.accuracy > free.report.before.accuracy
    assert keeps_prediction("auto", 5)
    assert not keeps_prediction("auto", 5, allow_prediction_change=True)


@pytest.mark.slow
def test_the_simplest_that_is_not_significantly_worse_is_taken(overconfident):
    calibrated = fit(*overconfident(300, factor=1.0), "auto", allow_prediction_change=True)
    first = calibrated.report.candidates[0]
    assert calibrated.calibrator.kind == "identity"
    assert first.behind <= first.behind_standard_error
    # One temperature is all that is wrong: nothing richer is taken.
    assert fit(*overconfident(300), "auto").calibrator.kind == "temperature"


def test_standard_errors_count_groups_not_rows(overconfident):
    logits, labels = overconfident(80)
    groups = np.repeat(np.arange(80), 4)
    many, truth = np.repeat(logits, 4, axis=0), np.repeat(labels, 4)
    grouped = fit_auto(many, truth, groups=groups).candidates
    copies = fit_auto(many, truth).candidates
    single = -np.log(cross_fit("identity", CalibrationSet(logits, labels))[np.arange(80), labels])
    expected = single.std(ddof=1) / np.sqrt(80)
    assert grouped[0].standard_error == pytest.approx(expected, rel=1e-5)
    assert copies[0].standard_error == pytest.approx(expected / 2, rel=0.02)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_few_rows_are_enough(n, overconfident):
    fitted = fit_auto(*overconfident(n), allow_prediction_change=True)
    assert (fitted.candidates == ()) == (n == 1)
    assert ("cannot be left out" in " ".join(fitted.warnings)) == (n == 1)


def test_it_is_deterministic_and_takes_weights(overconfident):
    logits, labels = overconfident(60)
    weights = np.where(np.arange(60) % 3, 1.0, 0.0)
    weights[0] = 2.0
    assert fit_auto(logits, labels, weights) == fit_auto(logits, labels, weights)
    one = np.zeros(60)
    one[5] = 1.0
    assert np.isfinite(fit_auto(logits, labels, one).candidates[0].nll)


@pytest.mark.slow
def test_admission_lets_auto_change_predictions_only_when_allowed(overconfident):
    logits, labels = favoured(overconfident)
    data = CalibrationSet(logits, labels)
    incumbent = fit(logits[:50], labels[:50], "identity").calibrator
    kept = admit(incumbent, "auto", data)
    free = admit(incumbent, "auto", data, allow_prediction_change=True)
    assert kept.scores["candidate"].accuracy == kept.scores["incumbent"].accuracy
    assert free.scores["candidate"].accuracy > free.scores["incumbent"].accuracy
    assert free.admitted
