"""Zeros that the data gave, and scores on a wild scale, are learnt before any method."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

from tests.trueprob.every_kind import BINARY, cases, fit_kind
from trueprob import CalibrationSet, fit, from_dict, logits_from_probabilities, to_dict
from trueprob.arrays.logits import ZERO_CELL
from trueprob.calibrators import KINDS, IdentityCalibrator
from trueprob.calibrators.input_stage import InputStage, ZeroCells
from trueprob.errors import InvalidDocument
from trueprob.fitting.methods import FITTERS, METHODS, fit_rows

every_kind = pytest.mark.parametrize("kind", cases(k for k in sorted(KINDS) if k != BINARY))
every_method = pytest.mark.parametrize("method", cases(m for m in METHODS if m != BINARY))

STAGE = InputStage(ZeroCells((0.05, 0.1, 0.2), (0.5, 0.25, 0.15, 0.1)), None)


def nll(probabilities, labels):
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(chosen, 1e-12)).mean())


def halves(classifier, *, noise=8.0, decimals=None, scores="predict_proba", seed=0):
    """Scores of a classifier on two sets of noisy digits: for the fit, and for the test."""
    x, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(seed)
    x = x + noise * generator.normal(size=x.shape)
    train, calibration, test = np.split(generator.permutation(len(y)), [450, 1_100])
    classifier.fit(x[train], y[train])
    rows = []
    for part in (calibration, test):
        given_ = getattr(classifier, scores)(x[part])
        if decimals is not None:
            given_ = np.round(given_, decimals)
            given_ /= given_.sum(axis=1, keepdims=True)
        rows.append((given_, y[part]))
    return rows


def with_zeros(n=400, k=4, *, seed=0, missing=0.1):
    """Probabilities with zeros, and labels that fall there with a known probability."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(n, k)) * 2
    zero = generator.random((n, k)) < 0.4
    zero[np.arange(n), scores.argmax(axis=1)] = False
    p = np.where(zero, 0.0, np.exp(scores))
    p /= p.sum(axis=1, keepdims=True)
    truth = np.where(zero, 0.0, np.sqrt(p))
    truth *= (1 - missing) / truth.sum(axis=1, keepdims=True)
    some = zero.any(axis=1)
    truth[some] += missing * zero[some] / zero[some].sum(axis=1, keepdims=True)
    truth /= truth.sum(axis=1, keepdims=True)
    labels = np.array([generator.choice(k, p=row) for row in truth])
    return p, labels


def test_the_stage_is_counted_and_the_map_is_fitted_on_positive_labels():
    p, labels = with_zeros()
    k = p.shape[1]
    fitted = fit_rows("temperature", CalibrationSet(logits_from_probabilities(p), labels))
    zeros = fitted.calibrator.input_stage.zeros
    # Counted anew, one row at a time.
    rows = [
        (row, int(label), sum(value > 0 for value in row))
        for row, label in zip(p, labels, strict=True)
    ]
    some = [(row[label] == 0, count) for row, label, count in rows if count < k]
    overall = (sum(missed for missed, _ in some) + 0.5) / (len(some) + 1)
    for j in range(1, 4):
        missed = [m for m, count in some if count == j]
        expected = (sum(missed) + 10 * overall) / (len(missed) + 10)
        assert zeros.mass[j - 1] == pytest.approx(expected, rel=1e-12)
    counts = np.bincount(labels, minlength=k) + 0.5
    assert zeros.frequencies == pytest.approx(counts / counts.sum(), rel=1e-12)

    def likelihood(beta):
        total = 4.0 * math.log1p(math.log(beta) ** 2)  # the prior of the scale
        for row, label, count in rows:
            if row[label] > 0 and count > 1:
                total -= math.log(row[label] ** beta / sum(v**beta for v in row if v > 0))
        return total

    best = minimize_scalar(likelihood, bounds=(0.05, 5.0), method="bounded").x
    assert 1.0 / fitted.calibrator.parameters()["temperature"] == pytest.approx(best, rel=1e-3)


def test_an_answer_is_the_product_of_its_factors():
    p = np.array([[0.6, 0.3, 0.1, 0.0], [0.7, 0.3, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.25] * 4])
    calibrator = replace(IdentityCalibrator(4), input_stage=STAGE)
    got = calibrator.predict_proba(logits_from_probabilities(p))
    expected = [
        [0.6 * 0.8, 0.3 * 0.8, 0.1 * 0.8, 0.2],
        [0.7 * 0.9, 0.3 * 0.9, 0.1 * 0.15 / 0.25, 0.1 * 0.1 / 0.25],
        [0.95, 0.05 * 0.25 / 0.5, 0.05 * 0.15 / 0.5, 0.05 * 0.1 / 0.5],
        [0.25] * 4,
    ]
    assert got == pytest.approx(np.array(expected), abs=1e-6)


def test_zero_cells_never_take_the_prediction():
    stage = InputStage(ZeroCells((0.9,), (0.01, 0.97, 0.01, 0.01)))
    p = np.array([[1.0, 0.0, 0.0, 0.0], [0.5, 0.0, 0.5, 0.0]])
    logits = logits_from_probabilities(p)
    for kind in (IdentityCalibrator(4), FITTERS["smart"](*_overconfident()).calibrator):
        got = replace(kind, input_stage=stage).calibrated(logits)
        assert got.prediction.tolist() == [0, 0]
        assert np.array_equal(got.probabilities.argmax(axis=1), [0, 0])
        assert got.probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-6)


def _overconfident(n=80, k=4):
    generator = np.random.default_rng(3)
    logits = generator.normal(size=(n, k)) * 2
    return (2 * logits).astype(np.float32), (logits + generator.gumbel(size=(n, k))).argmax(axis=1)


@pytest.mark.parametrize(
    ("classifier", "decimals", "gain"),
    [
        (KNeighborsClassifier(5), None, 0.04),
        (RandomForestClassifier(20, random_state=0), None, 0.05),
        (LogisticRegression(C=1e-2, max_iter=2_000), 2, -0.005),
    ],
    ids=["neighbours", "forest", "two decimals"],
)
def test_zeros_cost_less_than_with_a_floor(classifier, decimals, gain):
    (p, labels), (test, truth) = halves(classifier, decimals=decimals)
    assert (p == 0).any()
    logits, rows = logits_from_probabilities(p), logits_from_probabilities(test)
    uncalibrated = nll(IdentityCalibrator(10).predict_proba(rows), truth)
    for method in ("temperature", "smart", "isotonic", "vector", "smart-vector", "smart-matrix"):
        floor = FITTERS[method](logits, labels, None, seed=0).calibrator
        learnt = fit_rows(method, CalibrationSet(logits, labels)).calibrator
        found = nll(learnt.predict_proba(rows), truth)
        assert found < nll(floor.predict_proba(rows), truth) - gain, method
        assert found < uncalibrated - 0.1, method
        if learnt.preserves_prediction:
            assert np.array_equal(learnt.prediction(rows), rows.argmax(axis=1))
        else:
            assert (learnt.prediction(rows) == truth).mean() > (
                rows.argmax(1) == truth
            ).mean() - 0.02


@every_method
def test_a_wild_scale_costs_no_method_its_accuracy(method):
    (joint, labels), (test, truth) = halves(
        GaussianNB(var_smoothing=1e-12), noise=0.0, scores="predict_joint_log_proba"
    )
    data = CalibrationSet(joint, labels)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        fitted = fit_rows(method, data, allow_prediction_change=True)
    assert fitted.calibrator.input_stage.zeros is None
    assert 0 < fitted.calibrator.input_stage.clip < 1e5
    if method in KINDS and KINDS[method].preserves_prediction:
        top = test.astype(np.float32).argmax(axis=1)
        assert np.array_equal(fitted.calibrator.prediction(test), top)
    correct = (fitted.calibrator.prediction(test) == truth).mean()
    assert correct > (test.argmax(axis=1) == truth).mean() - 0.01
    if method != "identity":
        before = nll(IdentityCalibrator(10).predict_proba(test), truth)
        assert nll(fitted.calibrator.predict_proba(test), truth) < before


def test_a_finite_stand_in_for_a_mask_leaves_the_other_classes_alone(overconfident):
    logits, labels = overconfident(400)
    generator = np.random.default_rng(1)
    hidden = generator.integers(0, 5, 400)
    hidden = np.where(hidden == labels, (hidden + 1) % 5, hidden)
    masked, stand_in = logits.copy(), logits.copy()
    masked[np.arange(400), hidden], stand_in[np.arange(400), hidden] = -np.inf, -1e9
    exact = fit_rows("smart", CalibrationSet(masked, labels)).calibrator
    found = fit_rows("smart", CalibrationSet(stand_in, labels)).calibrator
    assert exact.input_stage is None
    assert found.input_stage.clip > 20.0
    assert found.predict_proba(stand_in) == pytest.approx(exact.predict_proba(masked), abs=2e-3)


def test_the_given_set_on_a_wild_scale(real_fault):
    data, test = real_fault("gnb_cal"), real_fault("gnb_test")
    found = {
        method: fit_rows(method, data).calibrator
        for method in ("temperature", "smart", "vector", "smart-vector", "smart-matrix")
    }
    for method, calibrator in found.items():
        correct = (calibrator.prediction(test.logits) == test.labels).mean()
        assert correct > 0.78, method  # of the network: 0.781
        # Without a clip 1.938, 0.921, 1.934, 1.943 and 1.943.
        assert nll(calibrator.predict_proba(test.logits), test.labels) < 0.56, method


@pytest.fixture
def real_fault():
    import os
    from pathlib import Path

    root = Path(__file__).parents[3]
    folder = Path(os.environ.get("BENCH_DATA", root.parent / "shared" / "data")) / "faults"

    def load(name):
        path = folder / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"{path} is not here: set BENCH_DATA to its folder")
        with np.load(path) as arrays:
            return CalibrationSet(arrays["logits"], arrays["labels"])

    return load


@every_method
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_networks_have_no_input_stage(method, scale, overconfident):
    logits, labels = overconfident(60)
    logits = logits * np.float32(scale)
    if scale >= 1.0:
        logits[3, 2] = ZERO_CELL  # as any logit may be
    fitted = fit_rows(method, CalibrationSet(logits, labels))
    assert fitted.calibrator.input_stage is None
    if method != "auto":
        assert fitted == FITTERS[method](logits, labels, None, seed=0)
    assert "input_stage" not in to_dict(fitted.calibrator)


def test_two_classes_have_no_zero_cells_and_are_cut_for_a_linear_stage_only():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(200, 2)).astype(np.float32)
    labels = (scores + generator.gumbel(size=(200, 2))).argmax(axis=1)
    scores[:3, 0] = -1e9
    stages = {
        m: fit_rows(m, CalibrationSet(scores, labels)).calibrator.input_stage
        for m in ("temperature", "smart", "vector", "smart-matrix")
    }
    assert [name for name, stage in stages.items() if stage is not None] == [
        "vector", "smart-matrix",
    ]  # fmt: skip
    p = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4], [0.2, 0.8]] * 10)
    labels = np.array([0, 1, 1, 1] * 10)
    fitted = fit_rows("smart", CalibrationSet(logits_from_probabilities(p), labels))
    assert fitted.calibrator.input_stage is None


@every_kind
def test_rows_without_marks_are_answered_as_without_the_stage(kind, overconfident):
    logits, labels = overconfident(80, 4)
    plain = fit_kind(kind, logits, labels)
    staged = replace(plain, input_stage=STAGE)
    mixed = logits.copy()
    mixed[:5, 3] = ZERO_CELL
    assert np.array_equal(staged.predict_proba(mixed)[5:], plain.predict_proba(logits)[5:])
    assert np.array_equal(staged.predict_proba(logits), plain.predict_proba(logits))


@every_kind
def test_the_stage_is_part_of_the_document_and_of_the_id(kind, overconfident):
    plain = fit_kind(kind, *overconfident(80, 4))
    staged = replace(plain, input_stage=replace(STAGE, clip=12.5))
    assert staged.id != plain.id
    again = from_dict(to_dict(staged))
    assert again == staged
    rows = logits_from_probabilities(with_zeros()[0])
    assert np.array_equal(again.predict_proba(rows), staged.predict_proba(rows))
    altered = to_dict(staged) | {"input_stage": replace(STAGE, clip=12.6).parameters()}
    with pytest.raises(InvalidDocument, match="the document was altered"):
        from_dict(altered)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (None, "input_stage must be an object"),
        ({"zeros": None}, "input_stage must have the key 'clip'"),
        ({"zeros": None, "clip": 0.0}, "input_stage.clip must lie between 0 and inf"),
        ({"zeros": [], "clip": None}, "input_stage.zeros must be null or an object"),
        (
            {"zeros": {"mass": [1.0], "class_frequencies": [0.5, 0.5, 1, 1]}, "clip": None},
            "mass must be numbers between 0 and 1, both excluded",
        ),
        (
            {"zeros": {"mass": [0.1], "class_frequencies": [0.5, 0.5]}, "clip": None},
            "class_frequencies must be 4 positive numbers",
        ),
    ],
)
def test_a_stage_that_cannot_be_used_is_refused(stage, message):
    document = to_dict(replace(IdentityCalibrator(4), input_stage=STAGE))
    with pytest.raises(InvalidDocument, match=message):
        from_dict(document | {"input_stage": stage})


@settings(max_examples=60, deadline=None)
@given(data=st.data(), k=st.integers(3, 6))
def test_laws_of_answers_to_rows_with_zeros(data, k):
    cells = st.lists(st.integers(0, 5), min_size=k, max_size=k).filter(any)
    counts = np.array(data.draw(st.lists(cells, min_size=1, max_size=4)), dtype=np.float64)
    p = counts / counts.sum(axis=1, keepdims=True)
    mass = data.draw(st.lists(st.floats(1e-6, 0.999), min_size=1, max_size=5))
    shares = data.draw(st.lists(st.floats(1e-6, 1.0), min_size=k, max_size=k))
    stage = InputStage(ZeroCells(tuple(mass), tuple(shares)))
    logits = logits_from_probabilities(p)
    for kind in ("identity", "smart", "isotonic", "vector", "smart-matrix"):
        generator = np.random.default_rng(k)
        scores = generator.normal(size=(60, k)).astype(np.float32) * 2
        plain = FITTERS[kind](scores, scores.argmax(axis=1), None, seed=0).calibrator
        found = replace(plain, input_stage=stage).calibrated(logits)
        assert found.probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
        assert (found.probabilities[p == 0] > 0).all()
        assert np.array_equal(
            found.probabilities.argmax(axis=1)[(p == 0).any(axis=1)],
            found.prediction[(p == 0).any(axis=1)],
        )
        assert (p[np.arange(len(p)), found.prediction] > 0).all()


def test_a_set_of_certain_rows_is_fitted():
    p = np.eye(4)[np.arange(40) % 4]
    labels = (np.arange(40) % 4 + (np.arange(40) % 5 == 0)) % 4
    for method in ("smart", "vector", "smart-matrix"):
        fitted = fit(logits_from_probabilities(p), labels, method)
        got = fitted.calibrator.predict_proba(logits_from_probabilities(p))
        assert got[np.arange(40), np.arange(40) % 4] == pytest.approx(0.8, abs=0.02)


def test_weights_count_in_the_stage():
    p, labels = with_zeros()
    logits = logits_from_probabilities(p)
    twice = fit_rows("smart", CalibrationSet(logits, labels, np.full(400, 2.0)))
    assert twice == fit_rows("smart", CalibrationSet(logits, labels, np.ones(400)))
    positive = (p[np.arange(400), labels] > 0).astype(np.float64)
    alone = fit_rows("smart", CalibrationSet(logits, labels, positive))
    assert max(alone.calibrator.input_stage.zeros.mass) < 0.01
