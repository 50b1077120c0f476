"""The compared methods: ours, and those of other packages.

A peer whose package is not installed is listed as such. Peers are fitted with their defaults on
the rows that ours get; those that take probabilities get the float64 softmax of the logits.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import trueprob
from benchmarks.calibration.scoring import SMALLEST
from benchmarks.calibration.smart_mlp_authors import fit_smart_mlp_authors
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, log_softmax
from trueprob.calibrators import KINDS
from trueprob.fitting.methods import FITTERS, METHODS, fit_rows, method_for_set

Predict = Callable[[Logits], NDArray[Any]]
FitFunction = Callable[[Logits, Labels], Predict]


@dataclass(frozen=True)
class Method:
    """A name, how to fit it, what must be installed, and whether predictions stay."""

    name: str
    fit: FitFunction
    ours: bool = False
    needs: str | None = None
    keeps_prediction: bool = True
    most_classes: int | None = None  # beyond it has no answer, or takes minutes

    @property
    def installed(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None

    def takes(self, n_classes: int) -> bool:
        return self.most_classes is None or n_classes <= self.most_classes


class Ours:
    """The function that fits a method of trueprob, with options of its own."""

    def __init__(self, method: str, **options: Any) -> None:
        self.method = method
        self.options = options

    def __call__(self, logits: Logits, labels: Labels) -> Predict:
        return FITTERS[self.method](
            logits, labels, None, seed=0, **self.options
        ).calibrator.predict_proba


def fitted_as_users_do(
    method: str, arrays: Mapping[str, ArrayLike], **options: Any
) -> trueprob.Calibrator:
    """What `trueprob.fit` fits, without its report; arrays as in `CalibrationSet.from_arrays`."""
    data = CalibrationSet.from_arrays(arrays)
    heard = inspect.signature(method_for_set).parameters
    asked = {name: value for name, value in options.items() if name in heard}
    method, _ = method_for_set(method, data, **asked)
    return fit_rows(method, data, **options).calibrator


class AsUsersDo:
    """A method of trueprob as `trueprob.fit` fits it."""

    def __init__(self, method: str, **options: Any) -> None:
        self.method = method
        self.options = options

    def __call__(self, logits: Logits, labels: Labels) -> Predict:
        arrays = {"logits": logits, "labels": labels}
        return fitted_as_users_do(self.method, arrays, **self.options).predict_proba


def our_methods() -> list[Method]:
    """Every name in `trueprob.METHODS`, and with `(free)` what may change predictions."""
    methods = []
    for name in METHODS:
        most = 2 if name in FOR_TWO_CLASSES else None
        keeps = name not in KINDS or KINDS[name].preserves_prediction
        methods.append(
            Method(name, AsUsersDo(name), ours=True, keeps_prediction=keeps, most_classes=most)
        )
        if "allow_prediction_change" in inspect.signature(FITTERS[name]).parameters:
            free = AsUsersDo(name, allow_prediction_change=True)
            methods.append(Method(f"{name} (free)", free, ours=True, keeps_prediction=False))
    return methods


FOR_TWO_CLASSES = ("smart-binary",)


def probabilities_of(logits: Logits) -> NDArray[np.float64]:
    """Plain softmax in float64."""
    return np.exp(log_softmax(logits))


def sklearn_temperature(logits: Logits, labels: Labels) -> Predict:
    """`CalibratedClassifierCV(FrozenEstimator(network), method="temperature")`."""
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    class Network(ClassifierMixin, BaseEstimator):
        """Its input is its decision function."""

        def fit(self, X: NDArray[Any], y: NDArray[Any]) -> Network:  # noqa: ARG002
            self.classes_ = np.arange(logits.shape[1])
            return self

        def decision_function(self, X: NDArray[Any]) -> NDArray[Any]:
            # Two classes: scikit-learn turns x into the logits (−x, x).
            return 0.5 * (X[:, 1] - X[:, 0]) if X.shape[1] == 2 else X

        def predict(self, X: NDArray[Any]) -> NDArray[Any]:
            return X.argmax(axis=1)

    network = Network().fit(logits, labels)
    # A frozen network is not refitted; the default, stratified folds, refuses a class of four rows.
    halves = [(slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))]
    index = np.arange(labels.shape[0])
    calibrated = CalibratedClassifierCV(
        FrozenEstimator(network),
        method="temperature",
        cv=[(index[kept], index[held]) for kept, held in halves],
    )
    _quiet(calibrated.fit, logits.astype(np.float64), labels)  # it warns of absent classes
    return lambda z: calibrated.predict_proba(z.astype(np.float64))


def isotonic_top_label(logits: Logits, labels: Labels) -> Predict:
    """scikit-learn's isotonic regression of being right on the confidence.

    The other classes keep their ratios. Clipped to [1/2n, 1 − 1/2n]: unclipped, one surprise in
    the test half costs an infinite NLL.
    """
    from sklearn.isotonic import IsotonicRegression

    n = labels.shape[0]
    p = probabilities_of(logits)
    regression = IsotonicRegression(y_min=0.5 / n, y_max=1.0 - 0.5 / n, out_of_bounds="clip")
    regression.fit(p.max(axis=1), logits.argmax(axis=1) == labels)

    def predict(z: Logits) -> NDArray[np.float64]:
        q = probabilities_of(z)
        top, index = z.argmax(axis=1), np.arange(z.shape[0])
        confidence = regression.predict(q[index, top])
        q[index, top] = 0.0
        rest = q.sum(axis=1)
        q[rest == 0.0] = 1.0
        q[index, top] = 0.0
        q *= ((1.0 - confidence) / q.sum(axis=1))[:, None]
        q[index, top] = confidence
        return q

    return predict


def isotonic_each_class(logits: Logits, labels: Labels) -> Predict:
    """scikit-learn's isotonic regression of each class against the rest, then divided by the sum.

    What `CalibratedClassifierCV(method="isotonic")` does; that refuses sets in which a class has
    fewer than five rows. Clipped as in `isotonic_top_label`.
    """
    from sklearn.isotonic import IsotonicRegression

    n = labels.shape[0]
    p = probabilities_of(logits)
    regressions = []
    for c in range(p.shape[1]):
        regression = IsotonicRegression(y_min=0.5 / n, y_max=1.0 - 0.5 / n, out_of_bounds="clip")
        regressions.append(regression.fit(p[:, c], labels == c))

    def predict(z: Logits) -> NDArray[np.float64]:
        q = probabilities_of(z)
        q = np.stack([r.predict(q[:, c]) for c, r in enumerate(regressions)], axis=1)
        q /= q.sum(axis=1, keepdims=True)
        return q

    return predict


def venn_abers(logits: Logits, labels: Labels) -> Predict:
    """`venn_abers.VennAbers` (IVAP): of class 1; of more classes each against the rest."""
    from venn_abers import VennAbers

    p = probabilities_of(logits)
    classes = range(1, 2) if p.shape[1] == 2 else range(p.shape[1])

    def both(of_class: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([1.0 - of_class, of_class], axis=1)

    models = []
    for c in classes:
        model = VennAbers()
        _quiet(model.fit, both(p[:, c]), (labels == c).astype(np.int64))
        models.append(model)

    def predict(z: Logits) -> NDArray[np.float64]:
        q = probabilities_of(z)
        columns = [
            _quiet(model.predict_proba, both(q[:, c]))[0][:, 1]
            for c, model in zip(classes, models, strict=True)
        ]
        if len(columns) == 1:
            return both(columns[0])
        joined = np.maximum(np.stack(columns, axis=1), SMALLEST)
        joined /= joined.sum(axis=1, keepdims=True)
        return joined

    return predict


def of_class_one(fit: Callable[[NDArray[np.float64], Labels], Callable[..., Any]]) -> FitFunction:
    """A method for two classes that maps P(class 1), of shape (n,)."""

    def fit_both(logits: Logits, labels: Labels) -> Predict:
        transform = _quiet(fit, probabilities_of(logits)[:, 1], labels)

        def predict(z: Logits) -> NDArray[np.float64]:
            out = np.asarray(_quiet(transform, probabilities_of(z)[:, 1]), dtype=np.float64).ravel()
            return np.stack([1.0 - out, out], axis=1)

        return predict

    return fit_both


def beta(p: NDArray[np.float64], labels: Labels) -> Callable[..., Any]:
    """Beta calibration with three parameters (Kull et al. 2017), the authors' package."""
    from betacal import BetaCalibration

    model = BetaCalibration("abm").fit(p[:, None], labels)
    return lambda q: model.predict(q[:, None])


def spline(p: NDArray[np.float64], labels: Labels) -> Callable[..., Any]:
    """Spline calibration (Lucena 2018, arXiv:1809.07751), the author's package."""
    from splinecalib import SplineCalib

    model = SplineCalib()
    model.fit(p, labels)
    transform: Callable[..., Any] = model.calibrate
    return transform


def netcal_method(module: str, name: str, **options: Any) -> FitFunction:
    """A class of netcal; it takes probabilities, and of two classes only the second's."""

    def fit(logits: Logits, labels: Labels) -> Predict:
        model = getattr(importlib.import_module(f"netcal.{module}"), name)(**options)
        binary = logits.shape[1] == 2
        _quiet(model.fit, _netcal_input(logits), labels)

        def predict(z: Logits) -> NDArray[np.float64]:
            out = np.asarray(_quiet(model.transform, _netcal_input(z)), dtype=np.float64)
            return np.stack([1.0 - out.ravel(), out.ravel()], axis=1) if binary else out

        return predict

    return fit


def _netcal_input(logits: Logits) -> NDArray[np.float64]:
    p = probabilities_of(logits)
    return p[:, 1] if p.shape[1] == 2 else p


def probmetrics_method(name: str) -> FitFunction:
    """`probmetrics.calibrators.get_calibrator(name)`; it takes logits as a torch distribution."""

    def fit(logits: Logits, labels: Labels) -> Predict:
        import torch
        from probmetrics.calibrators import get_calibrator
        from probmetrics.distributions import CategoricalLogits

        model = _quiet(get_calibrator, name)
        _quiet(model.fit_torch, CategoricalLogits(torch.tensor(logits)), torch.tensor(labels))

        def predict(z: Logits) -> NDArray[Any]:
            out = _quiet(model.predict_proba_torch, CategoricalLogits(torch.tensor(z)))
            return out.get_probs().detach().numpy()

        return predict

    return fit


def _quiet(function: Callable[..., Any], *arguments: Any) -> Any:
    """Silence the warnings and progress bars of the peer."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.redirect_stderr(io.StringIO()):
            return function(*arguments)


def authors_smart(logits: Logits, labels: Labels) -> Predict:
    """The authors' variant, see `smart_torch`."""
    from benchmarks.calibration.smart_torch import fit_authors_variant

    return fit_authors_variant(logits, labels)


PEERS = [
    Method("sklearn temperature", sklearn_temperature, needs="sklearn"),
    Method("sklearn isotonic (top label)", isotonic_top_label, needs="sklearn"),
    Method("SMART, authors' variant", authors_smart, needs="torch"),
    Method("netcal temperature", netcal_method("scaling", "TemperatureScaling"), needs="netcal"),
    Method(
        "netcal histogram",
        netcal_method("binning", "HistogramBinning", bins=15),
        needs="netcal",
        keeps_prediction=False,
    ),
    Method(
        "netcal BBQ",
        netcal_method("binning", "BBQ"),
        needs="netcal",
        keeps_prediction=False,
        most_classes=2,
    ),
    Method(
        "sklearn isotonic (each class)",
        isotonic_each_class,
        needs="sklearn",
        keeps_prediction=False,
    ),
    Method("venn-abers", venn_abers, needs="venn_abers", keeps_prediction=False, most_classes=20),
    Method("betacal", of_class_one(beta), needs="betacal", keeps_prediction=False, most_classes=2),
    Method(
        "splinecalib",
        of_class_one(spline),
        needs="splinecalib",
        keeps_prediction=False,
        most_classes=2,
    ),
    Method(
        "probmetrics quadratic",
        probmetrics_method("quadratic-scaling"),
        needs="probmetrics",
        keeps_prediction=False,
        most_classes=2,
    ),
    Method("probmetrics ts-mix", probmetrics_method("ts-mix"), needs="probmetrics"),
    Method(
        "probmetrics svs", probmetrics_method("svs"), needs="probmetrics", keeps_prediction=False
    ),
    Method(
        "probmetrics sms", probmetrics_method("sms"), needs="probmetrics", keeps_prediction=False
    ),
    Method(
        "probmetrics logistic-mix",
        probmetrics_method("logistic-mix"),
        needs="probmetrics",
        keeps_prediction=False,
    ),
]


def all_methods() -> list[Method]:
    """Ours, the comparison method that the library does not offer, then the peers."""
    authors = Method("smart-mlp-authors", fit_smart_mlp_authors, ours=True)
    return [*our_methods(), authors, *PEERS]
