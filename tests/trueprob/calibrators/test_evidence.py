"""Few rows of a network that needs nothing change nothing, and clear rows change all."""

import json
from itertools import pairwise

import numpy as np
import pytest

from tests.trueprob.onnx_export.exported_graphs import answers, check
from trueprob import from_dict, to_dict
from trueprob.calibrators import (
    SmartBinaryCalibrator,
    fit_identity,
    fit_smart,
    fit_smart_binary,
    fit_temperature,
)
from trueprob.calibrators.evidence import (
    FitEvidence,
    effective_parameters,
    effective_rows,
    sampled,
    weigh,
)
from trueprob.onnx_export import head_onnx

# How they are fitted, and the classes of the rows.
FITS = {
    "temperature": (fit_temperature, 5),
    "smart": (fit_smart, 5),
    "binary": (fit_smart_binary, 2),
}
BY_FIT = pytest.mark.parametrize("name", FITS)


@pytest.mark.parametrize(
    ("gain", "parameters", "share"),
    [
        (-3.0, 1, 0.0),
        (0.75, 1, 0.0),
        (0.9375, 1, 0.25),
        (1.5, 1, 1.0),
        (40.0, 1, 1.0),
        (1.5, 2, 0.0),
        (2.25, 2, 0.5),
        (3.0, 2, 1.0),
    ],
)
def test_the_share_rises_from_three_quarters_of_a_nat_a_parameter(gain, parameters, share):
    evidence = FitEvidence(gain, parameters)
    assert evidence.share == pytest.approx(share)
    assert len(evidence.warnings) == (share == 0.0)
    if share == 0.0:
        assert f"gains {gain:.2f} nats" in evidence.warnings[0]
        assert f"more than {0.75 * parameters:.2g} are needed" in evidence.warnings[0]


def test_weighted_rows_count_as_so_many_equal_ones():
    plain, fitted = np.array([[1.0, 3.0, 2.0], [0.5, 1.0, 9.0]])
    weights = np.array([2.0, 2.0, 0.0])
    assert effective_rows(3, None) == 3.0
    assert effective_rows(3, weights) == 2.0
    found = weigh(plain, fitted, None, effective_rows(3, None))
    assert found.gain == pytest.approx(-4.5)
    for factor in (1.0, 1e-3, 1e5):
        w = factor * weights
        found = weigh(plain, fitted, w, effective_rows(3, w))
        assert found.gain == pytest.approx(2.5)


@pytest.mark.parametrize("per_row", [0.0, 1e-4, 0.1])
def test_of_many_rows_a_sample_is_judged_and_all_of_them_where_that_is_not_clear(per_row):
    judged = []

    def judge(part, rows):
        judged.append(len(range(10_000)[part]))
        return FitEvidence(rows * per_row)

    assert sampled(judge, 10_000, None).gain == pytest.approx(1e4 * per_row)
    assert judged == ([500] if per_row == 0.1 else [500, 10_000])
    judged.clear()
    sampled(judge, 10_000, np.arange(10_000) % 20 * 1.0)  # the sample has no weight
    assert judged == [10_000]


def test_parameters_that_priors_hold_do_not_count():
    likelihood = np.diag([8.0, 8.0, 8.0, 0.0])
    assert effective_parameters(likelihood[:3, :3], np.zeros((3, 3))) == pytest.approx(3.0)
    prior = np.diag([0.0, 8.0, 24.0, 1.0])
    assert effective_parameters(likelihood + prior, prior) == pytest.approx(1.0 + 0.5 + 0.25)
    assert effective_parameters(likelihood + 1e9 * np.eye(4), 1e9 * np.eye(4)) == 1.0


@BY_FIT
@pytest.mark.parametrize("n", [20, 50, 200])
def test_many_fits_of_an_honest_network_are_exactly_none(name, n, overconfident):
    fit, k = FITS[name]
    test, _ = overconfident(500, k, seed=999, factor=1.0)
    plain = fit_identity(test, test.argmax(axis=1)).calibrator.predict_proba(test)
    untouched = 0
    for seed in range(30):
        fitted = fit(*overconfident(n, k, seed=seed, factor=1.0))
        p = fitted.calibrator.predict_proba(test)
        same = bool(np.abs(p - plain).max() < 1e-6)
        assert same == (len(fitted.warnings) == 1)
        untouched += same
    assert untouched >= 12


@BY_FIT
@pytest.mark.parametrize("factor", [0.2, 4.0])
def test_a_clear_fault_is_put_right_by_few_rows(name, factor, overconfident):
    fit, k = FITS[name]
    test, truth = overconfident(2_000, k, seed=999, factor=factor)
    rows = np.arange(2_000)
    for seed in range(5):
        fitted = fit(*overconfident(50, k, seed=seed, factor=factor))
        assert fitted.warnings == ()
        after = fitted.calibrator.predict_proba(test)[rows, truth]
        before = fit_identity(test, truth).calibrator.predict_proba(test)[rows, truth]
        assert np.log(after).mean() > np.log(np.maximum(before, 1e-30)).mean() + 0.02


@BY_FIT
def test_a_fit_does_not_jump_where_evidence_begins(name, overconfident):
    fit, k = FITS[name]
    logits, labels = overconfident(60, k, seed=4, factor=1.0)
    half = labels.copy()
    half[:30] = logits[:30].argmin(axis=1)  # these rows say that confidence is too high
    found = []
    for weight in np.linspace(0.0, 1.0, 401):
        weights = np.where(np.arange(60) < 30, weight, 1.0)
        found.append(fit(logits, half, weights).calibrator.predict_proba(logits))
    steps = [np.abs(a - b).max() for a, b in pairwise(found)]
    assert np.abs(found[0] - found[-1]).max() > 0.2
    assert max(steps) < 0.03


@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("n", [20, 50])
def test_rows_of_a_sure_network_without_errors_change_nothing(k, n, overconfident):
    fit = fit_smart_binary if k == 2 else fit_smart
    logits, _ = overconfident(4_000, k, factor=30.0)
    gap = np.sort(logits, axis=1)[:, -1] - np.sort(logits, axis=1)[:, -2]
    sure = logits[gap > 12.0]
    fitted = fit(sure[:n], sure[:n].argmax(axis=1))
    assert len(fitted.warnings) == 1
    # On other rows too, so that no test finds it worse than no calibration.
    plain = fit_identity(sure, sure.argmax(axis=1)).calibrator.predict_proba(sure)
    assert fitted.calibrator.predict_proba(sure) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("k", [2, 5])
def test_an_error_of_sure_rows_limits_what_a_confident_mistake_costs(k, overconfident):
    fit = fit_smart_binary if k == 2 else fit_smart
    logits, _ = overconfident(4_000, k, factor=30.0)
    gap = np.sort(logits, axis=1)[:, -1] - np.sort(logits, axis=1)[:, -2]
    sure = logits[gap > 12.0][:20]
    labels = sure.argmax(axis=1)
    labels[0] = sure[0].argmin()
    fitted = fit(sure, labels)
    assert fitted.warnings == ()
    p = fitted.calibrator.predict_proba(np.array([[200.0] + [0.0] * (k - 1)], np.float32))
    assert p[0, 1] > 1e-4


@pytest.mark.parametrize("k", [2, 5])
def test_a_fit_that_changes_nothing_is_stored_and_exported(k, overconfident):
    fit = fit_smart_binary if k == 2 else fit_smart
    fitted = next(
        found
        for seed in range(30)
        if (found := fit(*overconfident(20, k, seed=seed, factor=1.0))).warnings
    ).calibrator
    again = from_dict(json.loads(json.dumps(to_dict(fitted))))
    assert again == fitted
    logits, _ = overconfident(300, k, seed=7)
    p = again.predict_proba(logits)
    assert p == pytest.approx(
        fit_identity(logits, logits.argmax(axis=1)).calibrator.predict_proba(logits), abs=1e-6
    )
    if isinstance(fitted, SmartBinaryCalibrator):
        assert np.array_equal(
            again.log_odds(logits), np.subtract(*logits.T[::-1], dtype=np.float64)
        )
    check(fitted, logits, answers(head_onnx(fitted), {"logits": logits}))
