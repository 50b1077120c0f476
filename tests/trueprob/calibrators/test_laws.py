"""Laws that every calibrator obeys, over all kinds in the registry."""

from dataclasses import replace

import numpy as np
import pytest

from tests.trueprob.every_kind import (
    BINARY,
    assert_prediction_is_above,
    cases,
    fit_kind,
    width,
)
from trueprob import InvalidInput, from_dict, logit_gap, to_dict
from trueprob.calibrators import KINDS
from trueprob.calibrators.smart.second_stage import SecondStage

every_kind = pytest.mark.parametrize("kind", cases(sorted(KINDS)))


def fitted(kind, logits, labels, weights=None):
    calibrator = fit_kind(kind, logits, labels, weights)
    assert calibrator.kind == kind
    return calibrator


def drawn_for(kind, overconfident, n):
    """Rows of five classes, or of two for a kind that has only two."""
    return overconfident(n, width(kind, 5))


def hard_rows(k):
    """Near ties, a gap of 0, a gap of 1e4, huge and tiny values."""
    generator = np.random.default_rng(5)
    rows = generator.normal(size=(60, k)).astype(np.float32)
    rows[0] = 0.0
    rows[1, 0] = 1e4
    rows[2] = 3e4
    rows[3, -1] = np.nextafter(rows[3].max(), np.float32(9))
    rows[4] *= np.float32(1e30)
    rows[5] *= np.float32(1e-30)
    rows[6:20, 0] = rows[6:20, 1] = 5.0
    rows[20:40] *= np.float32(37.0)
    return rows


def check(calibrator, logits):
    p = calibrator.predict_proba(logits)
    assert p.shape == logits.shape
    assert p.dtype == np.float32
    assert p.flags.c_contiguous
    assert np.isfinite(p).all()
    assert p.min() >= 0.0
    assert p.max() <= 1.0
    assert p.sum(axis=1, dtype=np.float64) == pytest.approx(1.0, abs=1e-5)
    assert_prediction_is_above(p, calibrator.prediction(logits))
    if calibrator.preserves_prediction:
        assert np.array_equal(calibrator.prediction(logits), logits.argmax(axis=1))
    temperature = calibrator.temperature(logits)
    if temperature is not None:
        assert temperature.shape == (logits.shape[0],)
        assert temperature.dtype == np.float64
        assert (temperature > 0).all()
        assert np.isfinite(temperature).all()
    log_odds = calibrator.log_odds(logits)
    assert (log_odds is None) == (calibrator.kind != BINARY)
    if log_odds is not None:
        assert log_odds.shape == (logits.shape[0],)
        assert log_odds.dtype == np.float64
        assert np.isfinite(log_odds).all()
    if calibrator.preserves_ranking and calibrator.n_classes == 2:
        s = np.subtract(logits[:, 1], logits[:, 0], dtype=np.float64)
        ranked = p[np.argsort(s, kind="stable")]
        rounding = 0.0 if calibrator.kind == BINARY else 1e-5
        assert np.diff(ranked[:, 1]).min(initial=0.0) >= -rounding
        assert np.diff(ranked[:, 0]).max(initial=0.0) <= rounding


@every_kind
@pytest.mark.parametrize("k", [2, 5, 70])
def test_probabilities_are_probabilities_and_the_prediction_has_the_largest(kind, k, overconfident):
    if k != width(kind, k):
        with pytest.raises(InvalidInput, match=f"{kind} is for two classes, got {k}: use smart"):
            fitted(kind, *overconfident(80, k))
        return
    calibrator = fitted(kind, *overconfident(80, k))
    check(calibrator, hard_rows(k))


@pytest.mark.parametrize("k", [2, 5, 70])
@pytest.mark.parametrize("values", [(-30.0, 0.0, 1.0, 40.0), (-9.0, -8.0, -7.0, -6.0)])
def test_the_laws_hold_with_a_second_stage_however_it_bends(k, values, overconfident):
    first = fitted("smart", *overconfident(80, k))
    bent = replace(first, second_stage=SecondStage((-3.0, 0.5, 1.0, 7.0), values))
    check(bent, hard_rows(k))
    again = from_dict(to_dict(bent))
    assert again == bent
    assert np.array_equal(again.predict_proba(hard_rows(k)), bent.predict_proba(hard_rows(k)))


@every_kind
def test_a_round_trip_is_bit_exact(kind, overconfident):
    calibrator = fitted(kind, *drawn_for(kind, overconfident, 80))
    again = from_dict(to_dict(calibrator))
    assert again == calibrator
    assert again.id == calibrator.id
    logits = hard_rows(calibrator.n_classes)
    assert np.array_equal(again.predict_proba(logits), calibrator.predict_proba(logits))


@every_kind
def test_fits_are_deterministic(kind, overconfident):
    logits, labels = drawn_for(kind, overconfident, 60)
    assert fitted(kind, logits, labels) == fitted(kind, logits.copy(), labels.copy())


@every_kind
def test_a_constant_added_to_a_row_changes_nothing(kind, overconfident):
    logits, labels = drawn_for(kind, overconfident, 80)
    grid = np.round(logits * 64) / 64  # on this grid adding 4 096 is exact in float32
    shift = np.where(np.arange(80) % 2, 4096.0, -512.0).astype(np.float32)[:, None]
    calibrator = fitted(kind, grid, labels)
    assert np.array_equal(calibrator.predict_proba(grid), calibrator.predict_proba(grid + shift))
    assert fitted(kind, grid + shift, labels) == calibrator


@every_kind
def test_permuting_classes_permutes_the_output(kind, overconfident):
    logits, labels = drawn_for(kind, overconfident, 80)
    order = np.array([1, 0] if kind == BINARY else [3, 0, 4, 1, 2])
    position = np.argsort(order)
    calibrator = fitted(kind, logits, labels)
    permuted = fitted(kind, np.ascontiguousarray(logits[:, order]), position[labels])
    expected = calibrator.predict_proba(logits)[:, order]
    # The fits add in another order; the published network amplifies that a little.
    assert permuted.predict_proba(logits[:, order]) == pytest.approx(expected, abs=2e-3)
    if calibrator.preserves_prediction:  # no parameter belongs to a class
        same = calibrator.predict_proba(np.ascontiguousarray(logits[:, order]))
        assert same == pytest.approx(expected, rel=1e-5, abs=1e-12)


@every_kind
def test_a_class_without_rows_does_no_harm(kind, overconfident):
    logits, labels = drawn_for(kind, overconfident, 80)
    kept = labels != logits.shape[1] // 2
    check(fitted(kind, logits[kept], labels[kept]), logits)


@every_kind
@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("right", [True, False])
def test_one_row_is_enough(kind, k, right):
    k = width(kind, k)
    logits = np.zeros((1, k), dtype=np.float32)
    logits[0, 0] = 3.0
    calibrator = fitted(kind, logits, np.array([0 if right else 1]))
    check(calibrator, logits)
    check(calibrator, hard_rows(k))


@every_kind
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("share_wrong", [0.0, 0.2, 1.0])
def test_odd_scales_and_sets_without_errors_or_hits_are_survived(kind, scale, share_wrong):
    generator = np.random.default_rng(3)
    k = width(kind, 4)
    logits = (generator.normal(size=(50, k)) * scale).astype(np.float32)
    labels = logits.argmax(axis=1)
    labels[: int(50 * share_wrong)] = (labels[: int(50 * share_wrong)] + 1) % k
    check(fitted(kind, logits, labels), logits)


@every_kind
def test_degenerate_gaps_are_survived(kind):
    k = width(kind, 3)
    logits = np.zeros((30, k), dtype=np.float32)
    logits[10:20, 1] = 1e4
    labels = np.arange(30) % k
    check(fitted(kind, logits, labels), logits)
    check(fitted(kind, np.zeros((5, k), np.float32), np.arange(5) % k), logits)


@every_kind
def test_equal_weights_change_nothing(kind, overconfident):
    logits, labels = drawn_for(kind, overconfident, 60)
    plain = fitted(kind, logits, labels).predict_proba(logits)
    even = fitted(kind, logits, labels, np.full(60, 7.0)).predict_proba(logits)
    assert even == pytest.approx(plain, abs=2e-3)


@every_kind
def test_logits_of_another_width_are_refused(kind, overconfident):
    calibrator = fitted(kind, *drawn_for(kind, overconfident, 40))
    k = calibrator.n_classes
    with pytest.raises(InvalidInput, match=rf"logits must have shape \(n, {k}\), got \(2, 4\)"):
        calibrator.predict_proba(np.zeros((2, 4)))


@every_kind
def test_float16_and_lists_are_taken(kind, overconfident):
    logits, labels = drawn_for(kind, overconfident, 40)
    half = logits.astype(np.float16)
    calibrator = fitted(kind, half.astype(np.float32), labels)
    expected = calibrator.predict_proba(half.astype(np.float32))
    assert np.array_equal(calibrator.predict_proba(half), expected)
    assert np.array_equal(calibrator.predict_proba(half.tolist()), expected)


@pytest.mark.parametrize("kind", ["smart-matrix", "smart-vector"])
@pytest.mark.parametrize("k", [2, 5])
def test_the_laws_hold_with_a_linear_stage(kind, k, overconfident):
    logits, labels = overconfident(400, k)
    logits[:, 1] += 6.0  # a favoured class, which a linear stage puts right
    grid = np.round(logits * 64) / 64
    calibrator = fitted(kind, grid, labels)
    assert calibrator.linear is not None
    check(calibrator, hard_rows(k))
    again = from_dict(to_dict(calibrator))
    assert again == calibrator
    assert np.array_equal(again.predict_proba(grid), calibrator.predict_proba(grid))
    assert fitted(kind, grid + np.float32(4096.0), labels) == calibrator
    shifted = calibrator.predict_proba(grid + np.float32(4096.0))
    assert np.array_equal(shifted, calibrator.predict_proba(grid))
    check(fitted(kind, grid[labels != 1], labels[labels != 1]), grid)
    even = fitted(kind, grid, labels, np.full(400, 7.0)).predict_proba(grid)
    assert even == pytest.approx(calibrator.predict_proba(grid), abs=2e-3)


def test_what_declares_that_it_may_change_predictions_does(overconfident):
    logits, labels = overconfident(400)
    logits[:, 2] += 4.0  # a network that favours one class
    calibrators = {kind: fitted(kind, logits, labels) for kind in sorted(set(KINDS) - {BINARY})}
    changing = {kind for kind, each in calibrators.items() if not each.preserves_prediction}
    assert changing == {"vector", "smart-vector", "smart-matrix", "stack"}
    for kind, calibrator in calibrators.items():
        predicted = calibrator.prediction(logits)
        assert (predicted != logits.argmax(axis=1)).any() == (kind in changing), kind
        if kind in changing:
            assert (predicted == labels).mean() > (logits.argmax(axis=1) == labels).mean() + 0.05


def test_smart_never_reverses_the_order_by_gap(overconfident):
    for seed in range(5):
        calibrator = fitted("smart", *overconfident(200, seed=seed))
        gap = np.concatenate([[0.0], np.logspace(-6, 4, 5_000)]).astype(np.float32)
        logits = np.stack([gap, np.zeros_like(gap), np.full_like(gap, -1e6)], axis=1)
        padded = np.pad(logits, ((0, 0), (0, 2)), constant_values=-1e6)
        scaled = logit_gap(padded) / calibrator.temperature(padded)
        assert (np.diff(scaled) > -1e-9 * scaled[1:]).all()


@every_kind
@pytest.mark.parametrize(("n", "k"), [(1, 2), (60, 5), (60, 70), (5000, 70)])
def test_all_at_once_is_the_same_bit_for_bit(kind, n, k, overconfident):
    k = width(kind, k)
    calibrator = fitted(kind, *overconfident(400, k))
    logits = np.resize(hard_rows(k), (n, k))
    found = calibrator.calibrated(logits)
    np.testing.assert_array_equal(found.probabilities, calibrator.predict_proba(logits))
    np.testing.assert_array_equal(found.prediction, calibrator.prediction(logits))
    np.testing.assert_array_equal(found.logit_gap, logit_gap(logits))
    log_odds = calibrator.log_odds(logits)
    assert (found.log_odds is None) == (log_odds is None)
    if log_odds is not None:
        np.testing.assert_array_equal(found.log_odds, log_odds)
        assert found.log_odds.dtype == log_odds.dtype
    temperature = calibrator.temperature(logits)
    if temperature is None:
        assert found.temperature is None
    else:
        np.testing.assert_array_equal(found.temperature, temperature)
        assert found.temperature.dtype == temperature.dtype
