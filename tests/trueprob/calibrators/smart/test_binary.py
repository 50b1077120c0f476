"""`smart-binary`: the order of rows, the fit, and what an offset is good for."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from trueprob import InvalidDocument, InvalidInput, fit, from_dict, to_dict
from trueprob.calibrators import (
    SmartBinaryCalibrator,
    fit_identity,
    fit_smart_binary,
)
from trueprob.calibrators.smart.binary import ABOVE_HALF, BELOW_HALF, PiecewiseMap
from trueprob.calibrators.smart.binary_fit import BinaryObjective, interval_edges
from trueprob.scores.classes import binary_score

BENT = SmartBinaryCalibrator(2, (-2.0, -0.5, 0.25, 3.0), (-3.0, 1.2, 0.0, -2.5, 0.7), 0.8)


def rows_of(s):
    """Logits whose difference is s."""
    s = np.asarray(s, dtype=np.float32)
    return np.stack([np.zeros_like(s), s], axis=1)


def judge(n, seed=0):
    """Yes and no of a judge that says yes too often and too surely."""
    generator = np.random.default_rng(seed)
    x = generator.normal(0.0, 1.5, n)
    labels = (generator.random(n) < 1.0 / (1.0 + np.exp(0.4 - 1.2 * x))).astype(np.int64)
    return rows_of(2.5 * x + 2.2), labels


def honest(n, seed=0, mean=0.0):
    """Two classes whose softmax is the truth."""
    generator = np.random.default_rng(seed)
    s = generator.normal(mean, 2.0, n).astype(np.float32)
    labels = (generator.random(n) < 1.0 / (1.0 + np.exp(-s.astype(np.float64)))).astype(np.int64)
    return rows_of(s), labels


def nll(probabilities, labels):
    p = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(p, 1e-30)).mean())


def auroc(values, labels):
    """Share of pairs in the right order, ties half; with exact integers."""
    _, rank = np.unique(values, return_inverse=True)
    ones, zeros = rank[labels == 1][:, None], rank[labels == 0][None, :]
    return int(2 * (ones > zeros).sum() + (ones == zeros).sum())


KINDS_OF_ROWS = {
    "normal": lambda g: g.normal(0.0, 3.0, (400, 2)),
    "heavy tails": lambda g: g.standard_cauchy((400, 2)) * 30.0,
    "ties": lambda g: np.round(g.normal(0.0, 2.0, (400, 2)), 1),
    "near ties": lambda g: 5.0 + g.integers(0, 40, (400, 2)) * 4.8e-7,
    "far": lambda g: g.normal(0.0, 1e3, (400, 2)),
    "far and near": lambda g: 1e3 * g.choice([-1.0, 1.0], (400, 1)) + g.normal(0, 1e-3, (400, 2)),
    "log-probabilities": lambda g: np.log(
        np.stack([(p := g.beta(0.2, 0.2, 400)), 1 - p], 1) + 1e-12
    ),
    "rare": lambda g: g.normal([3.0, -3.0], 1.0, (400, 2)),
}


@pytest.mark.parametrize("kind", sorted(KINDS_OF_ROWS))
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_log_odds_have_exactly_the_auroc_of_the_logit_difference(kind, scale):
    generator = np.random.default_rng(1)
    logits = (KINDS_OF_ROWS[kind](generator) * scale).astype(np.float32)
    s = np.subtract(logits[:, 1], logits[:, 0], dtype=np.float64)
    labels = (generator.random(400) < 1.0 / (1.0 + np.exp(-0.7 * s / max(s.std(), 1e-9)))) * 1
    for calibrator in (BENT, fit_smart_binary(logits, labels).calibrator):
        v = calibrator.log_odds(logits)
        assert auroc(v, labels) == auroc(s, labels)
        assert np.array_equal(
            np.unique(s, return_inverse=True)[1], np.unique(v, return_inverse=True)[1]
        )


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-40, 40), min_size=0, max_size=6, unique=True),
    st.integers(0, 2**32 - 1),
)
def test_nothing_ever_falls(edges, seed):
    generator = np.random.default_rng(seed)
    edges = tuple(sorted(edges))
    slopes = generator.uniform(-7.0, 3.0, len(edges) + 1)
    calibrator = SmartBinaryCalibrator(2, edges, tuple(slopes.tolist()), generator.normal() * 3.0)
    near = np.array([*edges, 0.0], np.float32)[:, None] + np.arange(-3, 4) * np.float32(1e-6)
    s = np.concatenate([near.ravel(), generator.normal(0.0, 30.0, 300)])
    s = np.sort(np.round(s * 2**20) / 2**20).astype(np.float32)  # 0 and 1e-30 would be one float64
    found = calibrator.calibrated(rows_of(s))
    assert (np.diff(found.log_odds)[np.diff(s) > 0] > 0).all()
    assert (np.diff(found.log_odds)[np.diff(s) == 0] == 0).all()
    assert (np.diff(found.probabilities[:, 1]) >= 0).all()
    assert (np.diff(found.probabilities[:, 0]) <= 0).all()
    assert np.array_equal(found.prediction, found.log_odds > 0)
    assert np.array_equal(found.probabilities.argmax(axis=1), found.prediction)
    exact = 1.0 / (1.0 + np.exp(-np.abs(found.log_odds)))
    assert found.confidence == pytest.approx(exact, abs=1e-7)


def test_a_probability_of_one_half_is_one_unit_on_the_side_of_the_prediction():
    calibrator = SmartBinaryCalibrator(2, (), (0.0,), 0.0)
    logits = rows_of([-1e-9, 0.0, 1e-9, 0.5])
    found = calibrator.calibrated(logits)
    assert found.prediction.tolist() == [0, 0, 1, 1]
    assert found.confidence[:3].tolist() == [ABOVE_HALF] * 3
    assert found.probabilities[0].tolist() == [ABOVE_HALF, BELOW_HALF]
    assert found.probabilities[2].tolist() == [BELOW_HALF, ABOVE_HALF]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 30.0, 1e4, 1e37])
def test_a_single_row_has_the_bits_that_it_has_among_others(scale):
    logits = (np.random.default_rng(3).normal(size=(300, 2)) * scale).astype(np.float32)
    logits[3] = 0.0
    logits[4] = logits[4, 0]
    for calibrator in (BENT, SmartBinaryCalibrator(2, (), (0.5,), -1.0)):
        together = calibrator.calibrated(logits)
        for i, row in enumerate(logits):
            alone = calibrator.calibrated(row[None])
            for name in ("probabilities", "prediction", "confidence", "logit_gap", "log_odds"):
                one, among = getattr(alone, name), getattr(together, name)[i : i + 1]
                assert (one.dtype, one.shape) == (among.dtype, among.shape), name
                assert one.tobytes() == among.tobytes(), name


def test_many_rows_in_blocks_are_those_of_few():
    logits = np.random.default_rng(5).normal(size=(100_000, 2)).astype(np.float32)
    found = BENT.calibrated(logits)
    assert np.array_equal(found.probabilities[-50:], BENT.predict_proba(logits[-50:]))
    assert np.array_equal(found.log_odds[-50:], BENT.log_odds(logits[-50:]))


@pytest.mark.parametrize("outer_offset", [-2.0, 0.0, 1.3])
def test_maps_of_maps_are_maps(outer_offset):
    outer = PiecewiseMap((-1.0, 0.4, 2.0), (0.1, 2.0, 0.5, 0.02), outer_offset)
    x = np.linspace(-30.0, 30.0, 4_001)
    assert BENT.map.then(outer)(x) == pytest.approx(outer(BENT.map(x)), abs=1e-9)
    line = PiecewiseMap((), (2.0,), 0.3)
    assert line.then(outer)(x) == pytest.approx(outer(line(x)), abs=1e-9)
    assert outer.then(line)(x) == pytest.approx(line(outer(x)), abs=1e-9)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("mean", [0.0, -5.0])
def test_the_fit_is_the_minimum_of_the_written_objective(mean, weighted):
    logits, labels = honest(250, seed=2, mean=mean)
    logits *= np.float32(1.6)  # so that the rows can tell
    weights = np.random.default_rng(0).uniform(0.2, 2.0, 250) if weighted else None
    s = logits[:, 1].astype(np.float64)
    edges = np.quantile(s, np.arange(1, 8) / 8)
    share = np.full(250, 1 / 250) if weights is None else weights / weights.sum()
    holds_zero = int((edges < 0.0).sum())

    def log_odds(b, theta, x):
        total = b
        for j, low, high in zip(range(8), [-np.inf, *edges], [*edges, np.inf], strict=True):
            ends = np.minimum(np.maximum([x, 0.0 * x], low), high)
            total = total + np.exp(theta[j]) * (ends[0] - ends[1])
        return total

    def objective(point):
        b, theta = point[0], point[1:]
        v = log_odds(b, theta, s)
        losses = np.log1p(np.exp(-np.where(labels == 1, v, -v)))
        penalty = 5.0 * np.square(np.diff(theta)).sum()
        penalty += 2.0 * np.log(1.0 + theta[holds_zero] ** 2) + 2.0 * np.log(1.0 + b**2)
        return share @ losses + penalty / 250

    found = fit_smart_binary(logits, labels, weights, second_stage=False).calibrator
    best = minimize(objective, np.zeros(9), method="BFGS", options={"gtol": 1e-6})

    def nll(v):
        guarded = np.clip(v, -np.log(2 * 251), np.log(2 * 251))
        guarded += 0.02 * (v - guarded)
        return np.log1p(np.exp(-np.where(labels == 1, guarded, -guarded)))

    own = BinaryObjective(s, labels == 1, weights, interval_edges(s))
    # At least ¾ nat for each parameter, as far as the priors leave it free.
    rows = 250 if weights is None else weights.sum() ** 2 / np.square(weights).sum()
    plain = np.log1p(np.exp(-np.where(labels == 1, s, -s)))
    gain = rows * share @ (plain - nll(log_odds(best.x[0], best.x[1:], s)))
    curvature = own(best.x)[2]
    held = own.prior(best.x)[2] / 250
    parameters = np.trace(np.linalg.solve(curvature, curvature - held))
    applied = np.clip(gain / (0.75 * parameters) - 1.0, 0.0, 1.0)
    assert applied > 0.0
    # Up to log(2·251) nats the guard is the identity.
    few = s[np.abs(log_odds(applied * best.x[0], applied * best.x[1:], s)) < 5.0]
    expected = log_odds(applied * best.x[0], applied * best.x[1:], few)
    assert found.log_odds(rows_of(few)) == pytest.approx(expected, abs=2e-3)
    assert own(best.x)[0] == pytest.approx(best.fun, abs=1e-9)


def test_the_gradient_and_the_curvature_are_those_of_the_value():
    logits, labels = judge(120)
    s = logits[:, 1].astype(np.float64)
    objective = BinaryObjective(s, labels == 1, None, interval_edges(s))
    point = np.random.default_rng(1).normal(0.0, 0.5, 9)
    _, gradient, _ = objective(point)
    steps = 1e-6 * np.eye(9)
    slopes = [(objective(point + e)[0] - objective(point - e)[0]) / 2e-6 for e in steps]
    assert gradient == pytest.approx(slopes, abs=1e-7)


def test_an_offset_is_found_and_probabilities_of_class_1_are_calibrated():
    logits, labels = judge(1_000)
    test, truth = judge(20_000, seed=1)
    found = fit(logits, labels)
    kept = fit(logits, labels, keep_prediction=True)
    assert (found.calibrator.kind, kept.calibrator.kind) == ("smart-binary", "smart")
    assert (found.report.method, kept.report.method) == ("smart-binary", "smart")
    scores = [binary_score(each.calibrator.predict_proba(test), truth) for each in (found, kept)]
    assert scores[0].ece < 0.03
    assert scores[1].ece > 0.1
    assert found.report.after.nll < kept.report.after.nll - 0.05
    assert found.report.after.accuracy > kept.report.after.accuracy + 0.02


@pytest.mark.parametrize("mean", [0.0, -4.0])
def test_where_nothing_is_wrong_it_costs_little(mean):
    test, truth = honest(20_000, seed=99, mean=mean)
    before = nll(fit_identity(test, truth).calibrator.predict_proba(test), truth)
    worse = []
    for seed in range(6):
        fitted = fit_smart_binary(*honest(500, seed=seed, mean=mean))
        worse.append(nll(fitted.calibrator.predict_proba(test), truth) - before)
    assert np.mean(worse) < 0.004


@pytest.mark.parametrize("rows", [judge, honest])
def test_twenty_rows_are_not_much_worse_than_none(rows):
    test, truth = rows(10_000, seed=99)
    before = nll(fit_identity(test, truth).calibrator.predict_proba(test), truth)
    after = [
        nll(fit_smart_binary(*rows(20, seed=seed)).calibrator.predict_proba(test), truth)
        for seed in range(20)
    ]
    assert np.mean(after) < before + 0.03
    assert np.max(after) < before + 0.15


@pytest.mark.parametrize("label", [0, 1])
def test_labels_of_one_class_teach_a_scale_only(label):
    logits, _ = honest(80)
    found = fit(logits, np.full(80, label))
    assert found.calibrator.offset == 0.0
    assert [each.code for each in found.report.findings if each.code == "scale_only"]
    assert np.array_equal(found.calibrator.prediction(logits), logits.argmax(axis=1))
    weights = np.where(np.arange(80) < 40, 1.0, 0.0)
    mixed = np.where(weights > 0, label, 1 - label)
    assert fit(logits, mixed, weights=weights).calibrator.offset == 0.0


def test_no_positive_label_at_one_percent_does_no_harm():
    root = Path(__file__).parents[4]
    folder = Path(os.environ.get("BENCH_DATA", root.parent / "shared" / "data")) / "faults"
    if not (folder / "sh_cal.npz").is_file():
        pytest.skip(f"{folder} is not here: set BENCH_DATA to the folder of the sets")
    with np.load(folder / "sh_cal.npz") as cal, np.load(folder / "sh_test.npz") as test:
        found = fit(cal["logits"], cal["labels"].astype(np.int64))
        logits, labels = test["logits"].astype(np.float32), test["labels"].astype(np.int64)
    after = nll(found.calibrator.predict_proba(logits), labels)
    assert found.calibrator.kind == "smart-binary"
    assert after < nll(fit_identity(logits, labels).calibrator.predict_proba(logits), labels)


def test_a_second_stage_is_taken_where_a_step_needs_one():
    generator = np.random.default_rng(4)
    s = generator.normal(0.0, 3.0, 6_000).astype(np.float32)
    p = np.where(s > 1.0, 0.9, np.where(s > -2.0, 0.45, 0.1))
    labels = (generator.random(6_000) < p).astype(np.int64)
    with_stage, without = (
        fit_smart_binary(rows_of(s), labels, second_stage=wanted).calibrator
        for wanted in (True, False)
    )
    assert len(with_stage.edges) > len(without.edges)
    assert nll(with_stage.predict_proba(rows_of(s)), labels) < nll(
        without.predict_proba(rows_of(s)), labels
    )
    sorted_s = np.unique(s)
    assert (np.diff(with_stage.log_odds(rows_of(sorted_s))) > 0).all()


def test_extreme_log_odds_are_held_back_and_stay_different():
    logits, labels = honest(50)
    calibrator = fit_smart_binary(logits * np.float32(100.0), labels).calibrator
    far = calibrator.log_odds(rows_of([1e5, 2e5, -1e6, 3e38]))
    assert 4.0 < far[0] < far[1] < 150.0
    assert np.isfinite(far).all()


def test_options_that_contradict_one_another_are_refused():
    logits, labels = honest(60)
    with pytest.raises(InvalidInput, match="contradict each other: leave one out"):
        fit(logits, labels, keep_prediction=True, allow_prediction_change=True)
    for method in ("smart-binary", "vector"):
        with pytest.raises(InvalidInput, match=f"{method} may change predictions: take another"):
            fit(logits, labels, method, keep_prediction=True)
    three = np.pad(logits, ((0, 0), (0, 1)))
    with pytest.raises(InvalidInput, match="smart-binary is for two classes, got 3: use smart"):
        fit(three, labels, "smart-binary")


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"edges": [1.0, 1.0]}, "increasing"),
        ({"edges": []}, "must have 1 numbers for 0 edges"),
        ({"log_slopes": [0.0, 61.0, 0.0]}, "within ±60"),
        ({"offset": "0"}, "offset must be a number"),
    ],
)
def test_documents_that_cannot_be_used_are_refused(changed, sentence):
    calibrator = SmartBinaryCalibrator(2, (0.0, 1.0), (0.0, 0.1, 0.2), 0.3)
    document = to_dict(calibrator)
    assert from_dict(document) == calibrator
    document["parameters"] |= changed
    with pytest.raises(InvalidDocument, match=sentence):
        from_dict(document)
    with pytest.raises(InvalidDocument, match="for two classes"):
        from_dict(to_dict(calibrator) | {"n_classes": 3})
