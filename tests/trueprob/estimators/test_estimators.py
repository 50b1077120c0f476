import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.ensemble import AdaBoostClassifier, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from tests.trueprob.every_kind import cases, width
from trueprob import METHODS, InvalidInput, fit, softmax
from trueprob.estimators import CalibratedModel, LogitCalibrator
from trueprob.scores.score import negative_log_likelihood


@pytest.fixture
def blobs():
    """Overlapping classes named by words, in halves for training, calibration and test."""

    def draw(k=3, n=900):
        generator = np.random.default_rng(0)
        y = generator.integers(0, k, n)
        centres = generator.normal(size=(k, 6))
        X = centres[y] + 1.5 * generator.normal(size=(n, 6))
        names = np.array(["yak", "ant", "cow", "dog"])[:k][y]
        third = n // 3
        return [(X[i : i + third], names[i : i + third]) for i in range(0, n, third)]

    return draw


def index(classes, y):
    return np.array([list(classes).index(name) for name in y])


@pytest.mark.parametrize("method", cases(METHODS))
def test_logits_give_what_the_library_gives(method, overconfident):
    k = width(method, 5)
    logits, labels = overconfident(80, k)
    estimator = LogitCalibrator(method).fit(logits, labels)
    expected = fit(logits, labels, method, class_names=list("01234")[:k]).calibrator
    assert estimator.calibrator_ == expected
    assert np.array_equal(estimator.predict_proba(logits), expected.predict_proba(logits))
    assert np.array_equal(estimator.predict(logits), expected.prediction(logits))
    assert estimator.n_features_in_ == k


def test_what_x_holds_is_said(overconfident):
    logits, labels = overconfident(80)
    by_logits = LogitCalibrator("temperature").fit(logits, labels).predict_proba(logits)
    p = softmax(logits).astype(np.float64)
    p /= p.sum(axis=1, keepdims=True)
    for name, values in (("probabilities", p), ("log_probabilities", np.log(p))):
        estimator = LogitCalibrator("temperature", input=name).fit(values, labels)
        assert estimator.predict_proba(values) == pytest.approx(by_logits, abs=1e-4)
    with pytest.raises(InvalidInput, match=r"X must lie in \[0, 1\]"):
        LogitCalibrator(input="probabilities").fit(logits, labels)
    with pytest.raises(InvalidInput, match="input must be one of"):
        LogitCalibrator(input="scores").fit(logits, labels)


def test_columns_are_named_by_the_sorted_labels_or_by_hand(overconfident):
    logits, labels = overconfident(80)
    names = np.array(["e", "d", "c", "b", "a"])
    estimator = LogitCalibrator("temperature", classes=names).fit(logits, names[labels])
    assert np.array_equal(estimator.predict(logits), names[logits.argmax(axis=1)])
    assert np.array_equal(estimator.classes_, names)
    plain = LogitCalibrator("temperature").fit(logits, labels)
    assert estimator.calibrator_.class_names == tuple("edcba")
    assert estimator.calibrator_.with_class_names(plain.calibrator_.class_names) == (
        plain.calibrator_
    )
    few = labels < 3
    with pytest.raises(InvalidInput, match="the 5 columns of X, got 3 classes in y"):
        LogitCalibrator().fit(logits[few], labels[few])
    absent = LogitCalibrator(classes=range(5)).fit(logits[few], labels[few])
    assert absent.predict_proba(logits).shape == (80, 5)
    with pytest.raises(InvalidInput, match="y must be among the 5 classes, row 0 is not"):
        LogitCalibrator(classes=names).fit(logits, np.full(80, "z"))


def test_weights_and_groups_count(overconfident):
    logits, labels = overconfident(80)
    weights, groups = np.arange(80.0), np.arange(80) // 8
    estimator = LogitCalibrator("temperature").fit(logits, labels, weights, groups)
    expected = fit(logits, labels, "temperature", weights=weights, groups=groups)
    assert estimator.calibrator_.parameters() == expected.calibrator.parameters()
    assert estimator.report_.after == expected.report.after


def test_it_is_the_last_step_of_a_pipeline(overconfident):
    logits, labels = overconfident(300)
    pipeline = make_pipeline(FunctionTransformer(np.negative), LogitCalibrator("temperature"))
    pipeline.fit(-logits, labels)
    expected = fit(logits, labels, "temperature").calibrator.predict_proba(logits)
    assert np.array_equal(pipeline.predict_proba(-logits), expected)
    assert pipeline.score(-logits, labels) == (logits.argmax(axis=1) == labels).mean()
    search = GridSearchCV(
        pipeline,
        {"logitcalibrator__method": ["identity", "temperature"]},
        scoring="neg_log_loss",
        cv=3,
    ).fit(-logits, labels)
    assert search.best_params_ == {"logitcalibrator__method": "temperature"}


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize(
    ("classifier", "response"),
    [
        (GaussianNB(), "predict_proba"),
        (RandomForestClassifier(20, random_state=0), "predict_proba"),
        (LogisticRegression(C=1e3), "decision_function"),
        (LinearSVC(random_state=0), "decision_function"),
        (AdaBoostClassifier(n_estimators=20, random_state=0), "predict_proba"),
        (make_pipeline(StandardScaler(), LogisticRegression()), "predict_proba"),
    ],
)
def test_any_classifier_is_calibrated(blobs, k, classifier, response):
    train, held_out, test = blobs(k)
    fitted = clone(classifier).fit(*train)
    calibrated = CalibratedModel(fitted, response=response, keep_prediction=True).fit(*held_out)
    free = CalibratedModel(fitted, response=response).fit(*held_out)
    assert free.calibrator_.kind == ("smart-binary" if k == 2 else "smart")
    p = calibrated.predict_proba(test[0])
    assert p.shape == (300, k)
    assert p.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert np.array_equal(calibrated.classes_, fitted.classes_)
    assert np.array_equal(calibrated.predict(test[0]), fitted.predict(test[0]))
    labels = index(calibrated.classes_, test[1])
    even = np.full((300, k), 1 / k)
    assert negative_log_likelihood(p, labels) < negative_log_likelihood(even, labels)
    if hasattr(fitted, "predict_proba"):
        before = negative_log_likelihood(fitted.predict_proba(test[0]), labels)
        assert negative_log_likelihood(p, labels) < before + 0.02


def test_the_default_response_is_the_decision_function_where_there_is_one(blobs):
    train, held_out, _ = blobs()
    linear = LogisticRegression().fit(*train)
    by_default = CalibratedModel(linear, "temperature").fit(*held_out)
    named = CalibratedModel(linear, "temperature", response="decision_function").fit(*held_out)
    assert by_default.calibrator_ == named.calibrator_
    bayes = GaussianNB().fit(*train)
    assert CalibratedModel(bayes).fit(*held_out).calibrator_.n_classes == 3
    with pytest.raises(InvalidInput, match="estimator must have decision_function or predict_pro"):
        CalibratedModel(bayes, response="decision_function").fit(*held_out)


class Relabelled(BaseEstimator):
    """A fitted classifier whose classes are said to be others than its columns."""

    def __init__(self, model, classes):
        self.model_, self.classes_ = model, np.array(classes)

    def fit(self, X, y):
        raise NotImplementedError

    def predict_proba(self, X):
        return self.model_.predict_proba(X)


def test_labels_are_matched_to_the_classes_of_the_estimator_by_value(blobs):
    train, held_out, test = blobs()
    bayes = GaussianNB().fit(*train)
    plain = CalibratedModel(bayes, "vector").fit(*held_out)
    assert plain.calibrator_.class_names == ("ant", "cow", "yak")
    number = {"ant": 30, "cow": 10, "yak": 2}  # columns in no order of numbers
    numbered = CalibratedModel(Relabelled(bayes, list(number.values())), "vector")
    numbered.fit(held_out[0], [number[name] for name in held_out[1]])
    assert numbered.calibrator_.class_names == ("30", "10", "2")
    assert np.array_equal(numbered.predict_proba(test[0]), plain.predict_proba(test[0]))
    assert numbered.predict(test[0]).tolist() == [number[name] for name in plain.predict(test[0])]


def test_classes_that_are_not_those_of_the_columns_are_refused(blobs):
    train, held_out, test = blobs()
    bayes = GaussianNB().fit(*train)
    few = Relabelled(bayes, ["ant", "yak"])
    with pytest.raises(InvalidInput, match=r"each of the 2 classes_ of the .* \(ant, yak\), got 3"):
        CalibratedModel(few).fit(test[0], np.where(test[1] == "cow", "ant", test[1]))
    changed = Relabelled(bayes, ["ant", "cow", "yak"])
    model = CalibratedModel(changed).fit(*held_out)
    changed.classes_ = np.array(["yak", "cow", "ant"])
    for answer in (model.predict, model.predict_proba):
        with pytest.raises(InvalidInput, match="of the fit, ant, cow, yak, got yak, cow, ant"):
            answer(test[0])
    with pytest.raises(InvalidInput, match="classes must differ"):
        LogitCalibrator(classes=["a", "b", "a"]).fit(np.zeros((4, 3)), list("abab"))


def test_the_classifier_stays_fitted_through_clones_and_cross_validation(blobs):
    train, held_out, _ = blobs()
    model = CalibratedModel(GaussianNB().fit(*train), "temperature")
    copy = clone(model)
    assert copy.estimator is model.estimator
    assert copy.get_params(deep=False) == model.get_params(deep=False)
    assert cross_val_score(model, *held_out, cv=3, scoring="neg_log_loss").shape == (3,)
    with pytest.raises(NotFittedError):
        CalibratedModel(GaussianNB()).fit(*held_out)
    with pytest.raises(NotFittedError):
        model.predict_proba(held_out[0])


def test_fitted_estimators_survive_pickle(blobs, overconfident):
    train, held_out, test = blobs()
    model = CalibratedModel(GaussianNB().fit(*train)).fit(*held_out)
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(test[0]), model.predict_proba(test[0]))
    logits, labels = overconfident(80)
    calibrator = LogitCalibrator().fit(logits, labels)
    again = pickle.loads(pickle.dumps(calibrator))
    assert np.array_equal(again.predict_proba(logits), calibrator.predict_proba(logits))


def test_importing_the_library_does_not_load_scikit_learn():
    program = "import sys, trueprob; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
