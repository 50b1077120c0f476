"""Scores of confidences against independent implementations, and against their definitions.

The golden numbers were made on the rows of `golden_rows` (Python 3.11, NumPy 2.4) with
relplot 1.0.3, torchmetrics 1.9.0, netcal 1.4.0 and uncertainty-calibration 0.1.4, each by the
expression beside it.
"""

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from trueprob import InvalidInput, brier_score, softmax
from trueprob.scores.binned import BinnedCalibration
from trueprob.scores.brier import brier_decomposition, top_label_brier_decomposition
from trueprob.scores.confidence import adaptive_ece, aurc, auroc
from trueprob.scores.debiased_ece import debiased_ece
from trueprob.scores.smooth_ece import smooth_ece, smooth_ece_at_width, smooth_ece_value


def golden_rows():
    i = np.arange(400)
    confidence = 0.25 + 0.7499 * ((i * 0.6180339887) % 1)
    share = confidence - 0.05 + 0.15 * np.sin(9 * confidence)
    return confidence, (((i * 0.4142135624) % 1) < share).astype(float)


def calibrated_rows(n, seed):
    generator = np.random.default_rng(seed)
    confidence = 1 - generator.random(n) ** 1.5 / 2
    return confidence, generator.random(n) < confidence


def test_binned_errors_are_those_of_netcal_and_torchmetrics():
    rows = golden_rows()
    # netcal.metrics.ECE(15).measure(*rows); torchmetrics' multiclass_calibration_error with
    # n_bins=15, norm="l1" says 0.09466092 in float32.
    ece = BinnedCalibration.of(*rows).ece()
    assert ece == pytest.approx(0.09466093333229182, rel=1e-12)
    # MCE(15).measure(*rows); torchmetrics with norm="max": 0.21483359.
    mce = BinnedCalibration.of(*rows).mce()
    assert mce == pytest.approx(0.2148336379796868, rel=1e-12)
    # The same of netcal with equal_intervals=False.
    adaptive = adaptive_ece(*rows)
    assert adaptive == pytest.approx(0.09161742015854467, rel=1e-12)


def test_debiased_error_is_kumars():
    # Mean of eight calibration.utils.normal_debiased_ce(bins, resamples=50_000), their bins
    # replaced by the 15 of equal width; plug-in 0.0947.
    assert debiased_ece(*golden_rows()) == pytest.approx(0.0793517, abs=5e-5)


@pytest.mark.parametrize(
    ("sigma", "expected"),
    # relplot.metrics.smECE_sigma with relplot.config.smECE_mesh_pts = 20_001. Its kernel ends
    # at ±½ and reflects once, so wider ones are not comparable.
    [(0.02, 0.08978965622712773), (0.05, 0.08540991245218743), (0.1, 0.07621799899929071)],
)
def test_smooth_error_of_a_width_is_relplots(sigma, expected):
    assert smooth_ece_at_width(*golden_rows(), sigma) == pytest.approx(expected, abs=3e-6)


def test_smooth_error_is_relplots():
    # relplot.smECE, whose search stops at widths 1/1024 apart.
    assert smooth_ece(*golden_rows()).value == pytest.approx(0.08006323864394797, abs=5e-4)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
def test_smooth_error_is_the_integral_that_defines_it(sigma):
    p, y = golden_rows()
    t = (np.arange(4000) + 0.5)[:, None] / 4000
    images = [2 * m + side * p for m in range(-4, 5) for side in (1, -1)]
    kernel = sum(np.exp(-0.5 * ((t - image) / sigma) ** 2) for image in images)
    direct = np.abs(kernel @ (y - p)).mean() / (sigma * math.sqrt(2 * math.pi) * p.shape[0])
    assert smooth_ece_at_width(p, y, sigma) == pytest.approx(direct, abs=3e-6)


def test_smooth_error_is_the_fixed_point():
    rows = golden_rows()
    value = smooth_ece_value(*rows)
    assert smooth_ece_at_width(*rows, value) == pytest.approx(value, abs=1e-9)
    assert smooth_ece(*rows).value == value


def test_smooth_error_of_calibrated_rows_is_at_its_floor():
    found = [smooth_ece(*calibrated_rows(2000, seed)) for seed in range(40)]
    ratio = np.mean([s.value for s in found]) / np.mean([s.floor for s in found])
    assert 0.85 < ratio < 1.15


def test_debiasing_moves_towards_the_truth():
    plain, debiased = [], []
    for seed in range(40):
        rows = calibrated_rows(1000, seed)
        plain.append(BinnedCalibration.of(*rows).ece())
        debiased.append(debiased_ece(*rows))
    # √2 − 1 of the excess at perfect calibration, as the module says.
    assert np.mean(debiased) / np.mean(plain) == pytest.approx(2 - math.sqrt(2), abs=0.05)


def test_risk_over_coverage_by_hand():
    # Right, wrong, right by falling confidence: (0/1 + 1/2 + 1/3)/3.
    area = aurc([0.9, 0.8, 0.7], [1, 0, 1])
    assert area == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)


def test_risk_over_coverage_is_the_mean_over_the_orders_of_ties():
    confidence, correct = golden_rows()
    confidence = np.round(confidence, 1)
    generator = np.random.default_rng(0)
    areas = []
    for _ in range(500):
        order = generator.permutation(400)
        order = order[np.argsort(-confidence[order], kind="stable")]
        areas.append((np.cumsum(1 - correct[order]) / np.arange(1, 401)).mean())
    error = np.std(areas) / math.sqrt(500)
    expected = aurc(confidence, correct)
    assert abs(np.mean(areas) - expected) < 4 * error
    assert error < 1e-4


def test_risk_over_coverage_of_one_tie_is_the_error_rate():
    assert aurc(np.full(10, 0.7), [1] * 7 + [0] * 3) == pytest.approx(0.3)


@pytest.mark.parametrize("compute", [aurc, smooth_ece_value, debiased_ece])
def test_integer_weights_are_repetitions(compute):
    confidence, correct = golden_rows()
    confidence = np.round(confidence, 2)
    weights = np.arange(400) % 3
    repeated = compute(np.repeat(confidence, weights), np.repeat(correct, weights))
    weighted = compute(confidence, correct, weights=weights)
    if compute is debiased_ece:
        assert weighted < repeated  # a repeated row is less evidence than two rows
    else:
        assert weighted == pytest.approx(repeated, rel=1e-9)


def test_brier_parts_add_up():
    confidence, correct = golden_rows()
    decomposition = top_label_brier_decomposition(confidence, correct)
    assert decomposition.brier == pytest.approx(brier_score_loss(correct, confidence))
    total = (
        decomposition.reliability
        - decomposition.resolution
        + decomposition.uncertainty
        + decomposition.within_bins
    )
    assert total == pytest.approx(decomposition.brier, abs=1e-12)
    assert decomposition.within_bins != pytest.approx(0.0, abs=1e-6)


def test_brier_parts_of_few_values_are_murphys():
    # Two forecasts, 0.8 (right 1 of 2) and 0.6 (right 2 of 2): ȳ = 3/4.
    decomposition = top_label_brier_decomposition([0.8, 0.8, 0.6, 0.6], [1, 0, 1, 1])
    assert decomposition.reliability == pytest.approx((0.3**2 + 0.4**2) / 2)
    assert decomposition.resolution == pytest.approx((0.25**2 + 0.25**2) / 2)
    assert decomposition.uncertainty == pytest.approx(3 / 16)
    assert decomposition.within_bins == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("k", [2, 6, 30])
@pytest.mark.parametrize("weighted", [False, True])
def test_brier_parts_of_all_classes_are_the_sum_of_each(overconfident, k, weighted):
    logits, labels = overconfident(500, k)
    p = softmax(logits)
    weights = np.random.default_rng(0).exponential(size=500) if weighted else None
    whole = brier_decomposition(p, labels, weights=weights)
    each = [top_label_brier_decomposition(p[:, c], labels == c, weights=weights) for c in range(k)]
    for name in set(vars(whole)) - {"n"}:
        expected = sum(getattr(decomposition, name) for decomposition in each)
        assert getattr(whole, name) == pytest.approx(expected, abs=1e-7), name
    assert whole.brier == pytest.approx(brier_score(p, labels, weights=weights), abs=1e-7)
    total = whole.reliability - whole.resolution + whole.uncertainty + whole.within_bins
    assert total == pytest.approx(whole.brier, abs=1e-7)


def test_reliability_of_calibrated_rows_is_at_its_floor():
    drawn = [top_label_brier_decomposition(*calibrated_rows(1000, seed)) for seed in range(60)]
    ratio = np.mean([q.reliability for q in drawn]) / np.mean([q.reliability_floor for q in drawn])
    assert 0.8 < ratio < 1.2


def test_rows_that_do_not_belong_together_are_refused():
    with pytest.raises(InvalidInput, match=r"correct must have shape \(2,\), got \(1,\)"):
        aurc([0.5, 0.6], [1])
    with pytest.raises(InvalidInput, match=r"confidence must lie in \[0, 1\]"):
        smooth_ece([1.5], [1])
    with pytest.raises(InvalidInput, match="with n of at least 1"):
        debiased_ece([], [])
    with pytest.raises(InvalidInput, match="correct must lie"):
        auroc([0.5], [2])
    with pytest.raises(InvalidInput, match="confidence must have at least one row"):
        top_label_brier_decomposition([], [])
