import json

import numpy as np
import pytest

from trueprob import (
    CalibrationSet,
    IdentityCalibrator,
    InvalidInput,
    TemperatureCalibrator,
    admit,
    fit,
)
from trueprob.admission.decision import is_new_row
from trueprob.scores.interval import MAX_UNITS, resampled_sums, unit_of_rows


def test_a_clear_improvement_is_admitted_with_its_numbers(overconfident):
    data = CalibrationSet(*overconfident(600))
    verdict = admit(IdentityCalibrator(5), "smart", data)
    assert verdict.admitted
    assert verdict.n_compared == 600
    assert verdict.scores["candidate"].nll < verdict.scores["incumbent"].nll
    assert verdict.reasons[0].startswith("NLL ")
    assert "80 % interval of the difference −" in verdict.reasons[0]
    document = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
    assert list(document) == ["admitted", "reasons", "scores", "n_compared"]
    assert admit(IdentityCalibrator(5), "smart", data) == verdict


def test_without_an_improvement_the_incumbent_stays(overconfident):
    incumbent = fit(*overconfident(5_000, seed=1)).calibrator
    verdict = admit(incumbent, "smart", CalibrationSet(*overconfident(200, seed=2)))
    assert not verdict.admitted
    assert verdict.reasons[0].startswith("no evidence of improvement: NLL ")


def test_the_same_calibrator_is_no_improvement(overconfident):
    verdict = admit(IdentityCalibrator(5), "identity", CalibrationSet(*overconfident(200)))
    assert not verdict.admitted


@pytest.mark.slow
def test_an_equal_candidate_is_admitted_about_once_in_ten_uploads(overconfident):
    incumbent = TemperatureCalibrator(5, 2.5)  # the truth
    admitted = [
        admit(incumbent, "temperature", CalibrationSet(*overconfident(100, seed=seed))).admitted
        for seed in range(60)
    ]
    assert np.mean(admitted) <= 0.2


def test_rows_that_were_seen_are_not_compared(overconfident):
    logits, labels = overconfident(300)
    data = CalibrationSet(logits, labels)
    seen = data.subset(np.arange(100))
    incumbent = fit(seen.logits, seen.labels, "temperature").calibrator
    assert admit(incumbent, "smart", data, seen_row_digests=seen.row_digests).n_compared == 200
    as_bytes = [row.tobytes() for row in seen.row_digests]
    assert admit(incumbent, "smart", data, seen_row_digests=as_bytes).n_compared == 200
    refused = admit(incumbent, "smart", seen, seen_row_digests=data.row_digests)
    assert not refused.admitted
    assert refused.n_compared == 0
    assert "none of the 100 rows is new" in refused.reasons[0]
    assert refused.scores == {"incumbent": None, "candidate": None}


def test_few_rows_or_groups_are_no_evidence(overconfident):
    logits, labels = overconfident(100)
    few = admit(IdentityCalibrator(5), "smart", CalibrationSet(logits[:9], labels[:9]))
    assert few.reasons[0].startswith("no evidence of improvement: 9 new rows")
    groups = np.arange(100) % 3
    grouped = admit(IdentityCalibrator(5), "smart", CalibrationSet(logits, labels, None, groups))
    assert "3 new groups" in grouped.reasons[0]


def test_copies_of_a_row_are_no_evidence_when_they_are_a_group(overconfident):
    logits, labels = overconfident(40, seed=7, factor=1.5)
    incumbent = IdentityCalibrator(5)
    groups = np.tile(np.arange(40), 30)
    many = np.tile(logits, (30, 1)), np.tile(labels, 30)
    assert admit(incumbent, "temperature", CalibrationSet(*many)).admitted
    assert not admit(incumbent, "temperature", CalibrationSet(*many, None, groups)).admitted


def test_weights_and_zero_weights_are_survived(overconfident):
    logits, labels = overconfident(200)
    weights = np.where(np.arange(200) < 150, 0.0, 2.0)
    verdict = admit(IdentityCalibrator(5), "smart", CalibrationSet(logits, labels, weights))
    kept = CalibrationSet(logits[150:], labels[150:])
    expected = admit(IdentityCalibrator(5), "smart", kept)
    incumbent = verdict.scores["incumbent"]
    assert incumbent.nll == pytest.approx(expected.scores["incumbent"].nll)


def test_a_calibrator_for_other_classes_and_unknown_methods_are_refused(overconfident):
    data = CalibrationSet(*overconfident(50))
    with pytest.raises(InvalidInput, match=r"logits must have shape \(n, 4\), got \(50, 5\)"):
        admit(IdentityCalibrator(4), "smart", data)
    with pytest.raises(InvalidInput, match="method must be one of"):
        admit(IdentityCalibrator(5), "magic", data)


def test_new_rows_are_a_multiset_difference():
    a, b, c = (np.full(16, value, dtype=np.uint8) for value in (1, 2, 3))
    rows = np.stack([a, b, a, c, a])
    assert is_new_row(rows, np.stack([a, b, b])).tolist() == [False, False, True, True, True]
    assert is_new_row(rows, ()).tolist() == [True] * 5
    with pytest.raises(InvalidInput, match="16 bytes each"):
        is_new_row(rows, [b"short"])


def test_the_bootstrap_has_the_spread_of_the_mean():
    values = np.random.default_rng(0).exponential(size=(MAX_UNITS + 3_000, 1))
    sums = resampled_sums(values, unit_of_rows(values.shape[0], None), seed=0)
    assert sums.std() == pytest.approx(values.std() * np.sqrt(values.shape[0]), rel=0.08)
    groups = np.repeat(np.arange(500), 10)
    sums = resampled_sums(values, unit_of_rows(5_000, groups), seed=0)
    by_group = values.reshape(500, 10).sum(axis=1)
    assert sums.std() == pytest.approx(by_group.std() * np.sqrt(500), rel=0.08)


def one_bad_class(n, seed=0):
    """Three classes; answers 0 are 45 points too confident on a tenth of the rows."""
    rng = np.random.default_rng(seed)
    predicted = np.where(rng.random(n) < 0.1, 0, rng.integers(1, 3, n))
    confidence = rng.uniform(0.75, 0.99, n)
    right = rng.random(n) < confidence - np.where(predicted == 0, 0.45, 0.0)
    logits = np.log(np.tile((1.0 - confidence)[:, None] / 2.0, 3))
    logits[np.arange(n), predicted] = np.log(confidence)
    labels = np.where(right, predicted, (predicted + rng.integers(1, 3, n)) % 3)
    return CalibrationSet(logits.astype(np.float32), labels)


def test_a_candidate_that_repairs_the_average_and_ruins_classes_is_refused():
    data = one_bad_class(1_500)
    average = admit(IdentityCalibrator(3), "temperature", data)
    assert not average.admitted
    assert average.reasons[0].startswith("debiased class error ")
    assert average.reasons[0].endswith(", significantly worse")
    # Every other condition speaks for it.
    assert [reason.split(" ")[0] for reason in average.reasons[1:]] == [
        "NLL",
        "accuracy",
        "debiased",
    ]
    scores = average.scores
    assert scores["candidate"].nll < scores["incumbent"].nll
    assert scores["candidate"].ece < scores["incumbent"].ece
    assert scores["candidate"].class_error > scores["incumbent"].class_error + 0.02
    by_class = admit(IdentityCalibrator(3), "smart-vector", data)
    assert by_class.admitted, by_class.reasons
    assert by_class.scores["candidate"].class_error < scores["incumbent"].class_error / 4


def test_the_class_error_is_compared_from_thirty_rows_a_class_on():
    for n, compared in ((89, False), (90, True)):
        reasons = admit(IdentityCalibrator(3), "temperature", one_bad_class(n)).reasons
        assert any("class error" in reason for reason in reasons) == compared
