"""Intervals of the probability: their posterior, their coverage, and where they are stored."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trueprob.every_kind import cases, fit_kind, width
from trueprob import (
    CalibrationSet,
    IdentityCalibrator,
    InvalidDocument,
    InvalidInput,
    TemperatureCalibrator,
    Uncertainty,
    fit,
    from_dict,
    to_dict,
)
from trueprob.calibrators import KINDS
from trueprob.fitting.methods import fit_rows


def calibration_set(logits, labels, **more):
    return CalibrationSet.from_arrays({"logits": logits, "labels": labels, **more})


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def two_classes(n, *, seed=0, shift=0.0, factor=1.0):
    """Logits whose true log-odds are shift + factor·(z₁ − z₀), the labels, and P(class 1)."""
    generator = np.random.default_rng(seed)
    s = generator.normal(size=n) * 3.0
    true = sigmoid(shift + factor * s)
    logits = np.stack([np.zeros(n), s], axis=1).astype(np.float32)
    return logits, (generator.random(n) < true).astype(np.int64), true


def of_class_1(interval):
    """Bounds of P(class 1)."""
    one = interval.prediction == 1
    low = np.where(one, interval.low, 1.0 - interval.high)
    return low, np.where(one, interval.high, 1.0 - interval.low)


def test_the_posterior_is_that_of_the_documented_model():
    """Against SciPy's minimiser of the objective as written, and differences for the Hessian."""
    from scipy.optimize import minimize

    logits, labels, _ = two_classes(150, shift=0.7, factor=0.5)
    s = (logits[:, 1] - logits[:, 0]).astype(np.float64)
    found = IdentityCalibrator(2).with_uncertainty(calibration_set(logits, labels)).uncertainty
    knots = np.array(found.logits)
    # Nine quantiles, and a knot 5 nats beyond on either side.
    assert knots[1:-1] == pytest.approx(np.quantile(s, np.linspace(0, 1, 9)), abs=1e-5)
    assert knots[[0, -1]] == pytest.approx([s.min() - 5.0, s.max() + 5.0], abs=1e-5)

    def objective(delta):
        v = s + np.interp(s, knots, delta)
        slopes = np.diff(delta) / np.diff(knots)
        likelihood = np.where(labels == 1, sigmoid(v), 1.0 - sigmoid(v))
        return (
            -np.log(likelihood).sum()
            + 0.625 * np.square(np.diff(slopes)).sum()
            + 0.5 * slopes.mean() ** 2
            + 0.125 * np.interp(np.median(s), knots, delta) ** 2
        )

    best = minimize(objective, np.zeros(knots.size), method="BFGS", options={"gtol": 1e-7})
    assert found.shifts == pytest.approx(best.x, abs=2e-4)
    step = 1e-3 * np.eye(knots.size)
    hessian = [
        [
            (
                objective(best.x + a + b)
                - objective(best.x + a - b)
                - objective(best.x - a + b)
                + objective(best.x - a - b)
            )
            / 4e-6
            for b in step
        ]
        for a in step
    ]
    covariance = np.linalg.inv(hessian)
    assert found.variances == pytest.approx(np.diag(covariance), rel=1e-3)
    assert found.covariances == pytest.approx(np.diag(covariance, 1), rel=1e-3, abs=1e-5)


def test_an_interval_is_the_mean_and_deviation_of_the_shift_between_and_beyond_the_knots():
    stored = Uncertainty((-1.0, 1.0, 3.0), (0.0, 0.4, 0.0), (0.04, 0.09, 0.25), (0.01, 0.06))
    calibrator = IdentityCalibrator(2, uncertainty=stored)
    interval = calibrator.predict_interval([[0.0, 0.0], [0.0, 5.0]], 0.9)
    z = 1.6448536269514722
    # Half-way between the first two knots; a step beyond the last, δ = 2·δ₃ − δ₂.
    for row, (mean, variance, logit) in enumerate(
        [(0.2, (0.04 + 2 * 0.01 + 0.09) / 4.0, 0.0), (-0.4, 4 * 0.25 - 4 * 0.06 + 0.09, 5.0)]
    ):
        half = z * np.sqrt(variance)
        low, high = (bound[row] for bound in of_class_1(interval))
        assert low == pytest.approx(sigmoid(logit + mean - half), rel=1e-6)
        assert high == pytest.approx(max(sigmoid(logit + mean + half), sigmoid(logit)), rel=1e-6)


@pytest.mark.parametrize("k", [2, 10])
def test_intervals_cover_the_truth_as_often_as_they_say(k):
    inside = []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        logits = (generator.normal(size=(1300, k)) * 4.0).astype(np.float32)
        true = np.exp(logits / 2.5 - (logits / 2.5).max(axis=1, keepdims=True))
        true /= true.sum(axis=1, keepdims=True)
        labels = (logits / 2.5 + generator.gumbel(size=logits.shape)).argmax(axis=1)
        rows = calibration_set(logits[:300], labels[:300])
        calibrator = fit_rows("smart", rows).calibrator.with_uncertainty(rows)
        new = logits[300:]
        interval = calibrator.predict_interval(new, 0.9)
        right = true[300:][np.arange(1000), interval.prediction]
        inside.append(((interval.low <= right) & (right <= interval.high)).mean())
    assert 0.85 <= np.mean(inside) <= 0.97


def test_where_labels_say_that_the_calibrator_is_off_the_interval_follows_them():
    logits, labels, true = two_classes(1_000, shift=1.5)
    calibrator = IdentityCalibrator(2).with_uncertainty(calibration_set(logits, labels))
    interval = calibrator.predict_interval(logits)
    low, high = of_class_1(interval)
    assert ((low <= true) & (true <= high)).mean() > 0.85
    p = calibrator.predict_proba(logits)[:, 1]
    # P(class 1) is too low everywhere: it is the lower end of its interval.
    assert np.median(p - low) == pytest.approx(0.0, abs=1e-6)
    assert (high >= p).all()


def test_four_times_the_rows_give_half_the_width():
    widths = []
    for n in (400, 1_600, 6_400):  # the last are averaged in cells
        logits, labels, _ = two_classes(n, seed=1)
        calibrator = IdentityCalibrator(2).with_uncertainty(calibration_set(logits, labels))
        interval = calibrator.predict_interval(two_classes(500, seed=2)[0])
        widths.append((interval.high - interval.low).mean())
    assert widths[1] / widths[0] == pytest.approx(0.5, abs=0.15)
    assert widths[2] / widths[1] == pytest.approx(0.5, abs=0.15)


def test_averaging_many_rows_in_cells_changes_nothing_that_matters():
    logits, labels, _ = two_classes(3_000)
    exact = IdentityCalibrator(2).with_uncertainty(calibration_set(logits, labels)).uncertainty
    # Copies that count as one row each, 12 000 of them.
    copies = calibration_set(
        np.repeat(logits, 4, axis=0),
        np.repeat(labels, 4),
        groups=np.repeat(np.arange(3_000), 4),
    )
    averaged = IdentityCalibrator(2).with_uncertainty(copies).uncertainty
    assert averaged.logits == pytest.approx(exact.logits, abs=1e-2)
    assert averaged.shifts[2:-2] == pytest.approx(exact.shifts[2:-2], abs=1e-2)
    assert averaged.variances == pytest.approx(exact.variances, rel=1e-2)


def test_weights_and_groups_count_as_the_rows_that_they_are_worth():
    logits, labels, _ = two_classes(300)
    plain = IdentityCalibrator(2).with_uncertainty(calibration_set(logits, labels)).uncertainty

    def variances(data):
        found = IdentityCalibrator(2).with_uncertainty(data).uncertainty
        return np.array(found.variances[1:-1])

    sevens = calibration_set(logits, labels, weights=np.full(300, 7.0))
    assert variances(sevens) == pytest.approx(plain.variances[1:-1], rel=1e-9)
    # Rows of weight 0 are not there.
    half = calibration_set(logits, labels, weights=np.repeat([2.0, 0.0], 150))
    alone = calibration_set(logits[:150], labels[:150])
    assert variances(half) == pytest.approx(variances(alone), rel=1e-9)
    unequal = calibration_set(logits, labels, weights=np.tile([0.1, 1.9], 150))
    assert (variances(unequal) > plain.variances[1:-1]).all()
    # Four copies of each row, as groups, are worth one row each.
    copies = {"logits": np.repeat(logits, 4, axis=0), "labels": np.repeat(labels, 4)}
    grouped = CalibrationSet.from_arrays({**copies, "groups": np.repeat(np.arange(300), 4)})
    assert variances(grouped) == pytest.approx(plain.variances[1:-1], rel=0.05)
    assert (variances(CalibrationSet.from_arrays(copies)) < plain.variances[1:-1]).all()


def test_the_order_of_two_classes_does_not_matter():
    logits, labels, _ = two_classes(400, shift=0.8)
    new = two_classes(100, seed=3)[0]
    calibrator = TemperatureCalibrator(2, 1.7)
    one = calibrator.with_uncertainty(calibration_set(logits, labels))
    other = calibrator.with_uncertainty(calibration_set(logits[:, ::-1], 1 - labels))
    here, there = one.predict_interval(new), other.predict_interval(new[:, ::-1])
    assert here.low == pytest.approx(there.low, abs=1e-5)
    assert here.high == pytest.approx(there.high, abs=1e-5)


@pytest.mark.parametrize("kind", cases(sorted(KINDS)))
@pytest.mark.parametrize("k", [2, 5])
def test_every_kind_has_intervals_that_travel_with_its_document(kind, k, overconfident):
    logits, labels = overconfident(200, width(kind, k))
    data = calibration_set(logits, labels)
    bare = fit_kind(kind, logits, labels)
    calibrator = bare.with_uncertainty(data)
    assert calibrator == bare
    assert calibrator.id == bare.id
    assert calibrator.predict_proba(logits).tobytes() == bare.predict_proba(logits).tobytes()
    document = json.loads(json.dumps(to_dict(calibrator)))
    assert len(json.dumps(document["uncertainty"])) < 1_500
    again = from_dict(document)
    assert again.uncertainty == calibrator.uncertainty
    narrow, wide = (again.predict_interval(logits, level) for level in (0.5, 0.95))
    assert np.array_equal(narrow.prediction, bare.prediction(logits))
    confidence = bare.predict_proba(logits)[np.arange(200), narrow.prediction]
    assert np.array_equal(narrow.confidence, confidence)
    for bounds in (wide, narrow):
        assert (bounds.low >= 0.0).all()
        assert (bounds.high <= 1.0).all()
        assert (bounds.low <= bounds.confidence).all()
        assert (bounds.confidence <= bounds.high).all()
    assert (wide.low <= narrow.low).all()
    assert (narrow.high <= wide.high).all()


def test_a_row_with_one_class_left_is_certain(overconfident):
    logits, labels = overconfident(300, 4)
    calibrator = fit_rows("smart", calibration_set(logits, labels)).calibrator
    calibrator = calibrator.with_uncertainty(calibration_set(logits, labels))
    masked = logits[:3].copy()
    masked[1, [0, 1, 3]] = -np.inf
    found = calibrator.predict_interval(masked)
    assert found.low[1] == found.high[1] == found.confidence[1] == 1.0
    alone = calibrator.predict_interval(logits[[0, 2]])
    assert np.array_equal(found.low[[0, 2]], alone.low)


def test_a_fit_has_its_uncertainty_and_other_rows_can_replace_it(overconfident):
    logits, labels = overconfident(300)
    calibrator = fit(logits, labels).calibrator
    assert calibrator.uncertainty is not None
    more = calibrator.with_uncertainty(calibration_set(*overconfident(5_000, seed=1)))
    before, after = (each.predict_interval(logits) for each in (calibrator, more))
    assert (after.high - after.low).mean() < 0.5 * (before.high - before.low).mean()


def test_what_cannot_be_answered_is_refused(overconfident):
    logits, labels = overconfident(50)
    calibrator = fit(logits, labels).calibrator
    for level in (0.0, 1.0, 90.0, float("nan")):
        with pytest.raises(InvalidInput, match="level must lie between 0 and 1"):
            calibrator.predict_interval(logits, level)
    with pytest.raises(InvalidInput, match="must have an uncertainty for intervals"):
        replace(calibrator, uncertainty=None).predict_interval(logits)
    with pytest.raises(InvalidInput, match="rows must have 5 classes, got 3"):
        calibrator.with_uncertainty(calibration_set(*overconfident(50, 3)))


GOOD = {
    "logits": [-1.0, 1.0],
    "shifts": [0.0, 0.1],
    "variances": [0.5, 0.25],
    "covariances": [-0.1],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": [1.0, 1.0]}, "logits must be increasing"),
        ({"shifts": [0.0]}, "as many shifts and variances"),
        ({"variances": [0.5, 0.0]}, "variances must be positive"),
        ({"covariances": [0.4]}, "covariances must belong to its variances"),
        ({"covariances": []}, "one covariance fewer"),
        ({"shifts": ["0", 1.0]}, "uncertainty.shifts must be a number"),
        ({"level": 0.9}, "uncertainty has the unknown key 'level'"),
    ],
)
def test_documents_with_an_unusable_uncertainty_are_refused(change, message):
    document = to_dict(IdentityCalibrator(2, uncertainty=Uncertainty.from_parameters(GOOD)))
    assert from_dict(document).uncertainty.parameters() == GOOD
    with pytest.raises(InvalidDocument, match=message):
        from_dict({**document, "uncertainty": GOOD | change})
    with pytest.raises(InvalidDocument, match="uncertainty must be an object"):
        from_dict({**document, "uncertainty": [1.0]})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    n=st.integers(1, 40),
    k=st.integers(2, 4),
    scale=st.sampled_from([0.0, 1e-30, 1.0, 50.0, 1e30]),
    one_class=st.booleans(),
)
def test_any_rows_give_numbers(seed, n, k, scale, one_class):
    generator = np.random.default_rng(seed)
    logits = (generator.integers(-3, 4, size=(n, k)) * scale).astype(np.float32)
    labels = np.zeros(n, np.int64) if one_class else generator.integers(0, k, n)
    data = CalibrationSet.from_arrays({"logits": logits, "labels": labels}, n_classes=k)
    calibrator = from_dict(to_dict(IdentityCalibrator(k).with_uncertainty(data)))
    interval = calibrator.predict_interval(generator.normal(size=(5, k)) * 10.0)
    assert (interval.low >= 0.0).all()
    assert (interval.low <= interval.confidence).all()
    assert (interval.confidence <= interval.high).all()
    assert (interval.high <= 1.0).all()
