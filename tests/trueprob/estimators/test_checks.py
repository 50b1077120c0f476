"""scikit-learn's checks of estimators, and X, y and weights in the forms that its users have."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_val_predict, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, column_or_1d

from trueprob import InvalidInput, fit, logits_from_probabilities
from trueprob.estimators import LogitCalibrator

# A column of X is a class. These checks fit on features: columns and classes differ in number.
NOT_LOGITS = "the check's X has not one column for each class, which is refused"
NOT_FOR_LOGITS = dict.fromkeys(
    [
        "check_classifiers_classes",
        "check_classifiers_train",
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_fit_returns_self",
        "check_estimators_nan_inf",
        "check_estimators_overwrite_params",
        "check_estimators_pickle",
        "check_n_features_in_after_fitting",
        "check_pipeline_consistency",
        "check_positive_only_tag_during_fit",
        "check_readonly_memmap_input",
        "check_sample_weight_equivalence_on_dense_data",
    ],
    NOT_LOGITS,
)


class ScoredFeatures(LogitCalibrator):
    """The same estimator on features: distances to the middle of each class are the logits.

    So the checks above, whose X is no set of logits, run as well.
    """

    def _values(self, X, *fit_labels):
        values = super()._values(X, *fit_labels)
        if fit_labels:
            y = column_or_1d(fit_labels[0])
            check_consistent_length(values, y)
            if y.dtype.kind == "f":
                assert_all_finite(y)
            check_classification_targets(y)
            self.centres_ = np.stack([values[y == name].mean(axis=0) for name in np.unique(y)])
        return -((values[:, None, :] - self.centres_) ** 2).sum(axis=2)


WEIGHTS = "only the ratios of weights matter: a row of weight 2 is one row, not two"
FAIL = {
    LogitCalibrator: NOT_FOR_LOGITS,
    ScoredFeatures: {"check_sample_weight_equivalence_on_dense_data": WEIGHTS},
}


# Random labels are suspicious, and some checks have them.
@pytest.mark.filterwarnings("ignore::trueprob.findings.finding.SuspiciousSet")
@parametrize_with_checks(
    [LogitCalibrator(), ScoredFeatures()],
    expected_failed_checks=lambda estimator: FAIL[type(estimator)],
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


# ----- X -----


@pytest.fixture
def binary(overconfident):
    logits, labels = overconfident(200, 2)
    return (logits[:, 1] - logits[:, 0]).astype(np.float64), np.array(["no", "yes"])[labels]


def test_one_score_is_that_of_the_second_class(binary):
    z, y = binary
    expected = fit(z, (y == "yes").astype(int), class_names=["no", "yes"]).calibrator
    for X in (z, z[:, None], z.tolist(), pd.Series(z), pl.Series(z), torch.tensor(z)[:, None]):
        model = LogitCalibrator().fit(X, y)
        assert model.calibrator_ == expected
        assert (model.n_features_in_, model.classes_.tolist()) == (1, ["no", "yes"])
        assert np.array_equal(model.predict_proba(X), expected.predict_proba(z))
        assert np.array_equal(model.predict_proba(z[:3]), model.predict_proba(z[:3, None]))
        assert set(model.predict(z)) == {"no", "yes"}
    p = 1 / (1 + np.exp(-z))
    by_p = LogitCalibrator(input="probabilities").fit(p, y)
    assert (
        by_p.calibrator_
        == fit(
            logits_from_probabilities(p), (y == "yes").astype(int), class_names=["no", "yes"]
        ).calibrator
    )
    turned = LogitCalibrator(classes=["yes", "no"]).fit(-z, y)
    assert turned.predict_proba(-z)[:, 0] == pytest.approx(
        expected.predict_proba(z)[:, 1], abs=0.02
    )


def test_one_score_is_for_two_classes(overconfident):
    logits, labels = overconfident(80, 3)
    for X in (logits[:, 0], logits[:, :1]):
        with pytest.raises(ValueError, match=r"Expected 2D array|classes must name the 2 columns"):
            LogitCalibrator().fit(X, labels)


def test_minus_infinity_in_logits_is_a_mask(overconfident):
    logits, labels = overconfident(200, 3)
    masked = logits.copy()
    masked[labels == 0, 2] = -np.inf
    model = LogitCalibrator("temperature").fit(masked, labels)
    p = model.predict_proba(masked)
    assert (p[labels == 0, 2] == 0).all()
    assert p.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    for wrong in (np.nan, np.inf):
        masked[0, 0] = wrong
        with pytest.raises(ValueError, match="Input X contains"):
            model.predict_proba(masked)


def test_columns_of_a_table_that_are_named_by_classes_are_matched_by_name(overconfident):
    logits, labels = overconfident(200, 3)
    names = np.array(["yak", "ant", "cow"])  # in no order of texts
    for table in (pd.DataFrame(logits, columns=names), pl.DataFrame(logits, schema=list(names))):
        model = LogitCalibrator("vector").fit(table, names[labels])
        assert model.classes_.tolist() == names.tolist()
        expected = fit(logits, labels, "vector", class_names=names.tolist()).calibrator
        assert model.calibrator_ == expected
        assert np.array_equal(model.predict_proba(table), expected.predict_proba(logits))
        with pytest.raises(InvalidInput, match="order of the columns of X, yak, ant, cow, got ant"):
            LogitCalibrator(classes=sorted(names)).fit(table, names[labels])
        with pytest.raises(ValueError, match="feature names"):
            model.predict_proba(table[["ant", "cow", "yak"]])
    numbered = pd.DataFrame(logits)[[2, 0, 1]]  # the columns' names are the classes
    numbered.columns = numbered.columns.astype(str)
    model = LogitCalibrator("vector").fit(numbered, labels)
    assert model.classes_.tolist() == [2, 0, 1]
    assert (model.predict(numbered) == labels).mean() > 0.4


# ----- y -----


@pytest.mark.parametrize(
    "as_y",
    [
        list, np.array, pd.Series, pl.Series,
        lambda y: pd.Series(y).astype("category"), lambda y: pd.Series(y).astype("string"),
        lambda y: np.array(y, dtype=object), lambda y: np.array(y, dtype=np.dtypes.StringDType()),
    ],
)  # fmt: skip
def test_classes_as_strings(as_y, overconfident):
    logits, labels = overconfident(80, 3)
    names = np.array(["ant", "cow", "yak"])
    model = LogitCalibrator("temperature").fit(logits, as_y(names[labels].tolist()))
    assert list(model.classes_) == names.tolist()
    assert list(model.predict(logits)) == names[logits.argmax(axis=1)].tolist()
    assert model.calibrator_.class_names == tuple(names)


@pytest.mark.parametrize(
    ("as_y", "classes"),
    [
        (lambda y: y == 1, [False, True]),
        (lambda y: pd.Series(y, dtype="Int64"), [0, 1]),
        (lambda y: pd.Series(y == 1, dtype="boolean"), [False, True]),
        (lambda y: y * 2.0 - 1.0, [-1, 1]),
        (lambda y: torch.tensor(y), [0, 1]),
        (lambda y: pl.Series(y), [0, 1]),
    ],
)
def test_classes_as_numbers_and_booleans(as_y, classes, binary):
    z, y = binary
    labels = (y == "yes").astype(np.int64)
    model = LogitCalibrator("temperature").fit(z, as_y(labels))
    assert model.classes_.tolist() == classes
    assert np.array_equal(model.predict(z) == model.classes_[1], z > 0)


def test_labels_that_are_no_classes_are_refused(binary):
    z, y = binary
    named = LogitCalibrator(classes=["no", "yes"])
    for labels, message in (
        (y == "yes", "which are <U3: got bool"),
        (np.where(y == "yes", 1, 0), "which are <U3: got int64"),
        (np.where(y == "yes", 0.5, 1.0), "continuous"),
        (np.where(np.arange(200) == 3, None, y), "row 3 is missing"),
        (pd.Series(y).where(np.arange(200) != 3), "row 3 is missing"),
        (np.where(y == "yes", 1.0, np.nan), "contains NaN"),
        (np.where(np.arange(200) == 3, "maybe", y), "row 3 is not"),
        (y[:-1], "inconsistent numbers of samples|must have shape"),
    ):
        with pytest.raises(ValueError, match=message):
            named.fit(z, labels)
    with pytest.raises(InvalidInput, match="y must be among the classes 0, 1, which are int64"):
        LogitCalibrator(classes=[0, 1]).fit(z, np.where(y == "yes", "1", "0"))


# ----- Pipelines, weights and routing -----


def test_weights_and_groups_are_routed(overconfident):
    logits, labels = overconfident(200, 3)
    weights, groups = np.linspace(0.1, 1.0, 200), np.arange(200) // 10
    with sklearn.config_context(enable_metadata_routing=True):
        model = LogitCalibrator("temperature").set_fit_request(sample_weight=True, groups=True)
        pipeline = make_pipeline(FunctionTransformer(np.negative), model)
        pipeline.fit(-logits, labels, sample_weight=weights, groups=groups)
        pipeline[-1].set_fit_request(sample_weight=False)
        options = {"params": {"groups": groups}, "scoring": "neg_log_loss"}
        found = cross_validate(pipeline, -logits, labels, cv=GroupKFold(4), **options)
    expected = fit(logits, labels, "temperature", weights=weights, groups=groups)
    assert pipeline[-1].calibrator_.parameters() == expected.calibrator.parameters()
    assert found["test_score"].shape == (4,)
    assert np.isfinite(found["test_score"]).all()


def test_weights_are_checked_by_their_name(overconfident):
    logits, labels = overconfident(80, 3)
    for weights, message in (
        (np.zeros(80), "sample_weight must not all be zero"),
        (np.full(80, -1.0), "sample_weight must be finite and not negative"),
        (np.ones(79), r"sample_weight must have shape \(80,\), got \(79,\)"),
    ):
        with pytest.raises(InvalidInput, match=message):
            LogitCalibrator().fit(logits, labels, weights)
    nullable = pd.Series(np.ones(80), dtype="Float64")
    model = LogitCalibrator("temperature").fit(logits, labels, nullable)
    assert model.calibrator_ == LogitCalibrator("temperature").fit(logits, labels).calibrator_


def test_out_of_fold_probabilities_and_clones(overconfident):
    logits, labels = overconfident(200, 3)
    model = LogitCalibrator("temperature", classes=[0, 1, 2], seed=3)
    p = cross_val_predict(model, logits, labels, cv=4, method="predict_proba")
    assert p.shape == (200, 3)
    assert p.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
    copy = clone(model.fit(logits, labels))
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "calibrator_")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert copy.fit(logits, labels).calibrator_ == model.calibrator_
