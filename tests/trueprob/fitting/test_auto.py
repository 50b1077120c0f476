import json
from collections import Counter

import numpy as np
import pytest

from trueprob import CalibrationSet, InvalidInput, admit, cross_fit, fit, from_dict, to_dict
from trueprob.calibrators import KINDS, StackCalibrator
from trueprob.fitting import cross_validation
from trueprob.fitting.auto import CANDIDATES, candidates, fit_auto
from trueprob.fitting.methods import keeps_prediction
from trueprob.scores.score import negative_log_likelihood


def favoured(overconfident, n=100, seed=0):
    logits, labels = overconfident(n, seed=seed)
    logits[:, 2] += 6.0
    return logits, labels


@pytest.fixture(scope="module")
def free(overconfident):
    """`auto` on favoured rows, allowed to change predictions."""
    return fit(*favoured(overconfident), "auto", allow_prediction_change=True)


def test_candidates_are_those_that_keep_what_must_be_kept():
    kept = candidates(5)
    assert all(KINDS[method].preserves_prediction for method in kept)
    assert kept == candidates(5, keep_prediction=True)
    assert set(candidates(5, allow_prediction_change=True)) == {*CANDIDATES} - {"smart-binary"}
    assert set(candidates(2, allow_prediction_change=True)) == set(CANDIDATES)
    assert "smart-matrix" not in candidates(1_000, allow_prediction_change=True)
    two = candidates(2)
    assert all(KINDS[method].preserves_ranking for method in two)
    assert "isotonic" not in two
    assert "smart-binary" in two
    assert "smart-binary" not in candidates(2, keep_prediction=True)
    with pytest.raises(InvalidInput, match="contradict each other"):
        candidates(3, keep_prediction=True, allow_prediction_change=True)
    assert "isotonic" in candidates(2, keep_prediction=True)


@pytest.mark.slow
def test_every_candidate_is_reported_with_its_weight(free):
    report = free.report
    methods = [score.method for score in report.candidates]
    # A linear stage that is shrunk to a scale is no candidate of its own.
    assert methods == [method for method in CANDIDATES if method in methods]
    assert {"identity", "temperature", "smart", "isotonic", "vector"} <= set(methods)
    best = min(report.candidates, key=lambda score: score.nll)
    assert (best.behind, best.behind_standard_error) == (0.0, 0.0)
    for score in report.candidates:
        assert score.behind == pytest.approx(score.nll - best.nll, abs=1e-12)
        assert score.standard_error > 0
    assert sum(score.weight for score in report.candidates) == pytest.approx(1.0)
    members = getattr(free.calibrator, "members", (free.calibrator,))
    assert [each.kind for each in members] == [s.method for s in report.candidates if s.weight]
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
    assert not keeps_prediction("auto", 2)
    assert keeps_prediction("auto", 2, keep_prediction=True)


@pytest.mark.slow
def test_it_says_what_keeping_predictions_costs(overconfident, free):
    logits, labels = favoured(overconfident, 300)
    sentences = [str(finding) for finding in fit(logits, labels, "auto").report.findings]
    assert any(
        "smart-vector, which may change them, has a held-out NLL that is lower by 0." in sentence
        and "allow_prediction_change" in sentence
        for sentence in sentences
    )
    # Not where that would gain nothing, and not where it is allowed already.
    plain = fit(*overconfident(300), "auto").report
    for report in (plain, free.report):
        assert not any("predictions are kept" in warning for warning in report.warnings)


@pytest.mark.slow
def test_the_mixture_beats_the_choice_and_no_calibration(overconfident):
    """Means of held-out NLL over sets of 100 rows; the same rows for all."""
    nll = Counter()
    for seed in range(6):
        logits, labels = favoured(overconfident, 100, seed)
        fresh, truth = favoured(overconfident, 3_000, 100 + seed)
        for select in ("stack", "simplest"):
            fitted = fit_auto(logits, labels, allow_prediction_change=True, select=select)
            p = fitted.calibrator.predict_proba(fresh)
            nll[select] += negative_log_likelihood(p, truth) / 6
        nll["none"] += fit(fresh, truth, "identity").report.before.nll / 6
    assert nll["stack"] < nll["simplest"] - 0.001
    assert nll["stack"] < nll["none"] - 0.1


@pytest.mark.slow
def test_the_simplest_that_is_not_significantly_worse_is_taken(overconfident):
    calibrated = fit(
        *overconfident(300, factor=1.0), "auto", allow_prediction_change=True, select="simplest"
    )
    first = calibrated.report.candidates[0]
    assert calibrated.calibrator.kind == "identity"
    assert first.weight == 1.0
    assert first.behind <= first.behind_standard_error + 1e-6  # but for rounding
    # One temperature is all that is wrong: nothing richer is taken.
    assert fit(*overconfident(300), "auto", select="simplest").calibrator.kind == "temperature"
    with pytest.raises(InvalidInput, match="select must be one of stack, simplest, got 'best'"):
        fit(*overconfident(30), "auto", select="best")


@pytest.mark.slow
@pytest.mark.parametrize("n", [60, 400])
def test_nothing_is_fitted_twice(n, overconfident, monkeypatch):
    fits = Counter()

    def counted(name, fitter):
        def fit_and_count(logits, labels, *arguments, **options):
            fits[name, len(labels), logits.tobytes() + labels.tobytes()] += 1
            return fitter(logits, labels, *arguments, **options)

        return fit_and_count

    simple = {name: counted(name, fitter) for name, fitter in cross_validation.SIMPLE.items()}
    monkeypatch.setattr(cross_validation, "SIMPLE", simple)
    linear = counted("linear", cross_validation.cross_fit_linear_stage)
    monkeypatch.setattr(cross_validation, "cross_fit_linear_stage", linear)
    fit(*favoured(overconfident, n), "auto", allow_prediction_change=True)
    # `vector` and `smart-vector` share a diagonal stage; a matrix is the only other one.
    divisions = 3 if n < cross_validation.SMALL else 1
    linear_fits = sum(count for (name, _, _), count in fits.items() if name == "linear")
    assert linear_fits <= 2 * divisions
    assert max(count for (name, _, _), count in fits.items() if name != "linear") == 1


@pytest.mark.slow
def test_scores_of_the_report_do_not_flatter(overconfident):
    """Labels that have nothing to do with the scores: nothing seems to be learnt from them."""
    held_out, in_sample = [], []
    for seed in range(8):
        logits, _ = overconfident(60, seed=seed)
        labels = np.random.default_rng(seed).integers(0, 5, size=60)
        fitted = fit_auto(logits, labels, allow_prediction_change=True)
        held_out.append(negative_log_likelihood(fitted.out_of_fold, labels))
        p = fitted.calibrator.predict_proba(logits)
        in_sample.append(negative_log_likelihood(p, labels))
    assert np.mean(held_out) > np.log(5) - 0.003
    assert np.mean(in_sample) < np.mean(held_out) - 0.01


def test_cross_fitting_is_the_selection_alone(overconfident):
    logits, labels = overconfident(40)
    fitted = fit_auto(logits, labels)
    assert np.array_equal(cross_fit("auto", CalibrationSet(logits, labels)), fitted.out_of_fold)
    report = fit(logits, labels, "auto").report
    assert report.after.nll == pytest.approx(negative_log_likelihood(fitted.out_of_fold, labels))


def test_with_two_classes_the_ranking_is_kept(overconfident):
    logits, labels = overconfident(250, 2)
    fitted = fit_auto(logits, labels)
    assert fitted.calibrator.preserves_ranking
    order = np.argsort(logits[:, 1] - logits[:, 0], kind="stable")
    p = fitted.calibrator.predict_proba(logits)[order, 1]
    assert (np.diff(p) >= 0.0).all()


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
    fitted = fit_auto(logits, labels, weights)
    assert fitted == fit_auto(logits, labels, weights)
    assert from_dict(to_dict(fitted.calibrator)) == fitted.calibrator
    one = np.zeros(60)
    one[5] = 1.0
    assert np.isfinite(fit_auto(logits, labels, one).candidates[0].nll)


@pytest.mark.slow
def test_admission_lets_auto_change_predictions_only_when_allowed(overconfident):
    logits, labels = favoured(overconfident)
    data = CalibrationSet(logits, labels)
    incumbent = fit(logits[:50], labels[:50], "identity").calibrator
    shares = []
    kept = admit(incumbent, "auto", data, progress=shares.append)
    free = admit(incumbent, "auto", data, allow_prediction_change=True)
    assert kept.scores["candidate"].accuracy == kept.scores["incumbent"].accuracy
    assert free.scores["candidate"].accuracy > free.scores["incumbent"].accuracy
    assert free.admitted
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


def test_a_stack_is_never_around_one_member(overconfident):
    for seed in range(4):
        calibrator = fit_auto(*overconfident(60, seed=seed)).calibrator
        members = calibrator.members if isinstance(calibrator, StackCalibrator) else (None, None)
        assert 2 <= len(members) <= 3
