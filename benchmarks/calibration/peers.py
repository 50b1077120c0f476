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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.smart_mlp_authors import fit_smart_mlp_authors
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, log_softmax
from trueprob.fitting.methods import FITTERS, METHODS

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

    @property
    def installed(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


class Ours:
    """A registered method of trueprob, fitted without the report's cross-validation."""

    def __init__(self, method: str, **options: Any) -> None:
        self.method = method
        self.options = options

    def __call__(self, logits: Logits, labels: Labels) -> Predict:
        return FITTERS[self.method](
            logits, labels, None, seed=0, **self.options
        ).calibrator.predict_proba


def our_methods() -> list[Method]:
    """Every name in `trueprob.METHODS`; a tiny fit shows whether it keeps predictions."""
    methods = []
    for name in METHODS:
        keeps = FITTERS[name](*TINY, None, seed=0).calibrator.preserves_prediction
        methods.append(Method(name, Ours(name), ours=True, keeps_prediction=keeps))
        if "allow_prediction_change" in inspect.signature(FITTERS[name]).parameters:
            free = Ours(name, allow_prediction_change=True)
            methods.append(Method(f"{name} (free)", free, ours=True, keeps_prediction=False))
    return methods


def _tiny() -> tuple[Logits, Labels]:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(120, 3)).astype(np.float32)
    return logits, (logits + generator.gumbel(size=(120, 3))).argmax(axis=1).astype(np.int64)


TINY = _tiny()


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
    calibrated = CalibratedClassifierCV(FrozenEstimator(network), method="temperature")
    calibrated.fit(logits.astype(np.float64), labels)
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

        model = get_calibrator(name)
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
    Method("probmetrics ts-mix", probmetrics_method("ts-mix"), needs="probmetrics"),
    Method(
        "probmetrics svs", probmetrics_method("svs"), needs="probmetrics", keeps_prediction=False
    ),
    Method(
        "probmetrics sms", probmetrics_method("sms"), needs="probmetrics", keeps_prediction=False
    ),
]


def all_methods() -> list[Method]:
    """Ours, the comparison method that the library does not offer, then the peers."""
    authors = Method("smart-mlp-authors", fit_smart_mlp_authors, ours=True)
    return [*our_methods(), authors, *PEERS]
