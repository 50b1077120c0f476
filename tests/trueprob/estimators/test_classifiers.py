"""Every classifier of scikit-learn, XGBoost and LightGBM, calibrated on held-out rows."""

import inspect

import lightgbm
import numpy as np
import pandas as pd
import pytest
import torch
import xgboost
from sklearn.base import BaseEstimator
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, NuSVC
from sklearn.utils import all_estimators

from trueprob import InvalidInput, SuspiciousSet
from trueprob.estimators import CalibratedModel
from trueprob.estimators.calibrated_model import RESPONSES, scores_of_pairs
from trueprob.scores.score import negative_log_likelihood

NAMES = np.array(["yak", "ant", "cow", "dog"])  # in no order of texts
ROWS = 300

EXCLUDED = {
    "ClassifierChain": "several outputs",
    "MultiOutputClassifier": "several outputs",
    "OutputCodeClassifier": "it predicts classes only, without scores",
}
BASE = LogisticRegression(max_iter=500)
NAMED = [("a", BASE), ("b", GaussianNB())]
# Parameters that make a classifier fit the rows below; those of meta-estimators are their bases.
PARAMETERS = {
    "AdaBoostClassifier": {"n_estimators": 20},
    "BaggingClassifier": {"estimator": BASE},
    "CategoricalNB": {"min_categories": 40},
    "FixedThresholdClassifier": {"estimator": BASE},
    "GaussianProcessClassifier": {"max_iter_predict": 20},
    "GradientBoostingClassifier": {"n_estimators": 20},
    "HistGradientBoostingClassifier": {"max_iter": 20},
    "LogisticRegressionCV": {"Cs": 3, "l1_ratios": (0.0,), "use_legacy_attributes": False},
    "MLPClassifier": {"solver": "lbfgs", "hidden_layer_sizes": (5,)},
    "NuSVC": {"nu": 0.2},
    "OneVsOneClassifier": {"estimator": BASE},
    "OneVsRestClassifier": {"estimator": BASE},
    "RadiusNeighborsClassifier": {"radius": 8.0, "outlier_label": "most_frequent"},
    "RandomForestClassifier": {"n_estimators": 30},
    "SelfTrainingClassifier": {"estimator": BASE},
    "StackingClassifier": {"estimators": NAMED, "cv": 3},
    "TunedThresholdClassifierCV": {"estimator": BASE, "cv": 3},
    "VotingClassifier": {"estimators": NAMED, "voting": "soft"},
}
BY_DISTANCE = ("GaussianProcessClassifier", "LabelPropagation", "LabelSpreading")
BINARY_ONLY = ("FixedThresholdClassifier", "TunedThresholdClassifierCV")
CLASSIFIERS = dict(all_estimators(type_filter="classifier"))
CASES = [
    pytest.param(name, k, id=f"{name}-{k}")
    for name in CLASSIFIERS
    for k in ((2,) if name in BINARY_ONLY else (2, 3))
    if name not in EXCLUDED
]


def rows(k):
    """Positive whole numbers, since some naive Bayes take no others; thirds for fits and test."""
    generator = np.random.default_rng(k)
    y = generator.integers(0, k, 3 * ROWS)
    centres = generator.integers(0, 9, size=(k, 6))
    X = np.clip((8 + centres[y] + 3 * generator.normal(size=(len(y), 6))).round(), 0, 30)
    parts = [slice(i, i + ROWS) for i in range(0, len(y), ROWS)]
    return [(X[part], NAMES[:k][y[part]]) for part in parts]


def made(name):
    cls = CLASSIFIERS[name]
    parameters = dict(PARAMETERS.get(name, {}))
    accepted = inspect.signature(cls).parameters
    if "random_state" in accepted:
        parameters["random_state"] = 0
    return cls(**{key: value for key, value in parameters.items() if key in accepted})


def check_calibrated(fitted, k, held_out, test, classes=None, *, pairs=False):
    """Outcomes on unseen rows: right order, as accurate, and no worse NLL, for each response."""
    X, y = test
    classes = fitted.classes_ if classes is None else classes
    labels = np.array([list(classes).index(name) for name in y])
    shares = np.log(np.bincount(labels, minlength=k) / len(labels))[labels]
    responses = [name for name in RESPONSES if hasattr(fitted, name)]
    assert responses
    for response in responses:
        model = CalibratedModel(fitted, response=response, keep_prediction=True).fit(*held_out)
        p = model.predict_proba(X)
        assert (p.shape, model.classes_.tolist()) == ((len(X), k), list(classes))
        assert p.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
        right = model.predict(X) == y
        assert np.array_equal(p.argmax(axis=1) == labels, right)  # columns are those of the classes
        raw = np.asarray(getattr(fitted, response)(X))
        given = raw > 0 if raw.ndim == 1 else raw.argmax(axis=1)
        if not pairs:
            assert (p.argmax(axis=1) == given).mean() > 0.99  # ties aside
        assert right.mean() > 1.3 / k
        nll = negative_log_likelihood(p, labels)
        assert nll < -shares.mean()
        if hasattr(fitted, "predict_proba"):
            before = negative_log_likelihood(fitted.predict_proba(X).astype(np.float64), labels)
            assert nll < before + 0.03  # of 300 rows
    return responses


def test_the_exclusions_are_classifiers():
    assert set(CLASSIFIERS) >= {*EXCLUDED, *PARAMETERS, *BINARY_ONLY}


@pytest.mark.filterwarnings("ignore::FutureWarning:sklearn")  # of what scikit-learn will remove
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("name", "k"), CASES)
def test_every_classifier_of_scikit_learn_is_calibrated(name, k):
    train, held_out, test = rows(k)
    if name == "BernoulliNB":  # which would learn nothing from numbers that are all positive
        train, held_out, test = [(X > 12, y) for X, y in (train, held_out, test)]
    if name in BY_DISTANCE:
        train, held_out, test = [(X / 6, y) for X, y in (train, held_out, test)]
    if name == "SelfTrainingClassifier":
        train = (train[0], np.where(np.arange(ROWS) % 10 == 0, -1, train[1].astype(object)))
    fitted = made(name).fit(*train)
    if name == "DummyClassifier":
        with pytest.warns(SuspiciousSet, match="labels look unrelated to the scores"):
            p = CalibratedModel(fitted).fit(*held_out).predict_proba(test[0])
        assert p == pytest.approx(np.full((ROWS, k), 1 / k), abs=0.1)
    else:
        check_calibrated(fitted, k, held_out, test)


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("boosting", ["xgboost", "lightgbm"])
@pytest.mark.parametrize("as_frame", [False, True])
def test_boosting_libraries_are_calibrated(boosting, k, as_frame):
    parts = rows(k)
    if as_frame:
        columns = [f"feature_{i}" for i in range(6)]
        parts = [(pd.DataFrame(X, columns=columns), y) for X, y in parts]
    classes = sorted(NAMES[:k])
    if boosting == "xgboost":  # it takes class indices only
        parts = [(X, np.searchsorted(classes, y)) for X, y in parts]
        model = xgboost.XGBClassifier(n_estimators=20, n_jobs=1, random_state=0)
        classes = list(range(k))
    else:
        model = lightgbm.LGBMClassifier(n_estimators=20, n_jobs=1, random_state=0, verbose=-1)
    train, held_out, test = parts
    assert "predict_proba" in check_calibrated(model.fit(*train), k, held_out, test, classes)


def test_boosters_without_classes_are_refused_with_the_remedy():
    train, held_out, _ = rows(2)
    label = (train[1] == "yak").astype(int)
    options = {"objective": "binary", "verbose": -1, "num_threads": 1}
    for booster in (
        lightgbm.train(options, lightgbm.Dataset(train[0], label=label), num_boost_round=2),
        xgboost.train({"nthread": 1}, xgboost.DMatrix(train[0], label=label), num_boost_round=2),
    ):
        message = "a fitted classifier with classes_, got Booster: .* to LogitCalibrator"
        with pytest.raises(InvalidInput, match=message):
            CalibratedModel(booster).fit(*held_out)


# ----- One-vs-one -----


def pairwise(cls=SVC, **options):
    return cls(decision_function_shape="ovo", **options)


@pytest.mark.parametrize("k", [3, 4])
@pytest.mark.parametrize("cls", [SVC, NuSVC])
def test_values_of_pairs_become_values_of_classes(cls, k):
    train, held_out, test = rows(k)
    options = {"nu": 0.2} if cls is NuSVC else {}
    by_pair, by_class = pairwise(cls, **options).fit(*train), cls(**options).fit(*train)
    values = by_pair.decision_function(test[0])
    assert values.shape == (ROWS, k * (k - 1) // 2)
    assert scores_of_pairs(values, k) == pytest.approx(by_class.decision_function(test[0]))
    model = CalibratedModel(by_pair).fit(*held_out)
    assert model.calibrator_ == CalibratedModel(by_class).fit(*held_out).calibrator_
    check_calibrated(by_pair, k, held_out, test, pairs=True)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda: make_pipeline(StandardScaler(), pairwise()),
        lambda: GridSearchCV(pairwise(), {"C": [1.0, 2.0]}, cv=3),
        lambda: GridSearchCV(make_pipeline(StandardScaler(), pairwise()), {"svc__C": [1.0]}, cv=3),
        lambda: BaggingClassifier(pairwise(), 3, random_state=0),
    ],
)
def test_pairs_are_seen_inside_of_other_estimators(wrap):
    train, held_out, test = rows(3)
    fitted = wrap().fit(*train)
    check_calibrated(fitted, 3, held_out, test, pairs=True)
    check_calibrated(FrozenEstimator(fitted), 3, held_out, test, pairs=True)
    pairs = fitted.decision_function(test[0])
    calibrated = CalibratedModel(fitted, keep_prediction=True).fit(*held_out)
    by_class = scores_of_pairs(pairs, 3).argmax(axis=1)
    assert np.array_equal(calibrated.predict(test[0]), fitted.classes_[by_class])


def test_scores_of_classes_stay_what_they_are_where_pairs_are_inside():
    train, held_out, test = rows(3)
    stacking = StackingClassifier([("svc", pairwise())], LogisticRegression(), cv=3).fit(*train)
    check_calibrated(stacking, 3, held_out, test)
    check_calibrated(OneVsOneClassifier(LogisticRegression()).fit(*train), 3, held_out, test)


# ----- Forms of answers and classes -----


class Scored(BaseEstimator):
    """A fitted classifier that answers with what it was given."""

    def __init__(self, answer, classes):
        self.answer, self.classes_ = answer, classes

    def predict_proba(self, X):
        return self.answer(X)


def test_one_column_of_two_classes_is_that_of_the_second():
    train, held_out, test = rows(2)
    bayes = GaussianNB().fit(*train)
    expected = CalibratedModel(bayes).fit(*held_out).predict_proba(test[0])
    for answer in (
        lambda X: bayes.predict_proba(X)[:, 1],
        lambda X: bayes.predict_proba(X)[:, 1:],
        lambda X: pd.Series(bayes.predict_proba(X)[:, 1]),
        lambda X: torch.tensor(bayes.predict_proba(X)[:, 1:], requires_grad=True),
    ):
        model = CalibratedModel(Scored(answer, bayes.classes_)).fit(*held_out)
        assert model.predict_proba(test[0]) == pytest.approx(expected, abs=0.02)
    three = Scored(lambda X: np.full(len(X), 0.5), np.array(["a", "b", "c"]))
    with pytest.raises(InvalidInput, match=r"each of the 3 classes_ .* got one number per row"):
        CalibratedModel(three).fit(X=test[0], y=np.full(ROWS, "a"))


@pytest.mark.parametrize(
    ("classes", "as_labels"),
    [
        ([False, True], lambda y: y == "yak"),
        ([-1, 1], lambda y: np.where(y == "yak", 1, -1)),
        ([0, 1], lambda y: np.where(y == "yak", 1.0, 0.0)),
        (["ant", "yak"], lambda y: pd.Series(y).astype("category")),
        ([0, 1], lambda y: pd.Series(np.where(y == "yak", 1, 0), dtype="Int64")),
        ([0, 1], lambda y: torch.tensor(np.where(y == "yak", 1, 0))),
    ],
)
def test_classes_of_any_type_are_matched_by_value(classes, as_labels):
    train, held_out, test = rows(2)
    place = (train[1] == "yak").astype(int)
    fitted = GaussianNB().fit(train[0], np.array(classes)[place])
    model = CalibratedModel(fitted).fit(held_out[0], as_labels(held_out[1]))
    assert model.classes_.tolist() == classes
    assert (
        model.predict(test[0]) == np.array(classes)[(test[1] == "yak").astype(int)]
    ).mean() > 0.8


def test_labels_of_another_type_than_the_classes_are_refused():
    train, held_out, _ = rows(2)
    fitted = GaussianNB().fit(train[0], (train[1] == "yak").astype(int))
    for y in (held_out[1], (held_out[1] == "yak").astype(int).astype(str)):
        with pytest.raises(InvalidInput, match="y must be among the classes 0, 1, which are int64"):
            CalibratedModel(fitted).fit(held_out[0], y)


def test_several_outputs_are_refused():
    train, held_out, _ = rows(2)
    both = np.stack([train[1], train[1][::-1]], axis=1)
    for model in (RandomForestClassifier(5), MultiOutputClassifier(GaussianNB())):
        with pytest.raises(InvalidInput, match="estimator must have one output, got 2"):
            CalibratedModel(model.fit(train[0], both)).fit(*held_out)


def test_what_is_no_classifier_is_refused():
    _, held_out, _ = rows(2)
    scaler = StandardScaler().fit(held_out[0])
    with pytest.raises(InvalidInput, match="a fitted classifier with classes_, got StandardScaler"):
        CalibratedModel(scaler).fit(*held_out)


def test_tables_reach_the_classifier_as_they_are():
    train, held_out, test = rows(3)
    columns = list("abcdef")
    frames = [pd.DataFrame(X, columns=columns) for X, _ in (train, held_out, test)]
    fitted = make_pipeline(StandardScaler(), LogisticRegression())
    fitted.fit(frames[0], train[1])
    model = CalibratedModel(fitted).fit(frames[1], held_out[1])
    assert model.n_features_in_ == 6
    with pytest.raises(ValueError, match="feature names"):
        model.predict_proba(frames[2][columns[::-1]])
