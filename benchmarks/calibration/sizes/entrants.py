"""The compared methods: ours by the library's own entrance, and the peers of `peers`."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trueprob
from benchmarks.calibration import peers
from benchmarks.calibration.sizes.pools import Pool
from trueprob.arrays.calibration_set import INPUTS
from trueprob.arrays.labels import Labels
from trueprob.fitting.methods import METHODS, fit_rows

Probabilities = NDArray[Any]
NONE, DEFAULT, DEFAULT_KEPT, AUTO, FREE = "none", "smart", "smart, kept", "auto", "auto, free"


@dataclass(frozen=True)
class Entrant:
    """A method that can be fitted on rows of a pool.

    Attributes
    ----------
    run : callable
        (pool, rows) → probabilities of the test half, fitted on those rows.
    version : str
        Results of equal versions on equal rows are equal.
    """

    name: str
    version: str
    run: Callable[[Pool, NDArray[np.int64]], Probabilities]
    ours: bool = False
    fewest_classes: int = 2
    most_classes: int | None = None

    def takes(self, pool: Pool) -> bool:
        most = pool.n_classes if self.most_classes is None else self.most_classes
        return self.fewest_classes <= pool.n_classes <= most


@dataclass(frozen=True)
class Own:
    """A method of ours with its options."""

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    fewest_classes: int = 2
    most_classes: int | None = None
    keeps: bool = True

    @property
    def exists(self) -> bool:
        return self.method in METHODS and self.options.keys() <= OPTIONS

    def __call__(self, pool: Pool, rows: NDArray[np.int64]) -> Probabilities:
        arrays = {pool.inputs: pool.values[rows], "labels": pool.labels[rows]}
        calibrator = peers.fitted_as_users_do(self.method, arrays, **self.options)
        return calibrator.predict_proba(INPUTS[pool.inputs](pool.test_values))


OPTIONS = frozenset(inspect.signature(fit_rows).parameters)
CHANGE = {"allow_prediction_change": True}
OWN = (
    Own(NONE, "identity"),
    Own("temperature", "temperature"),
    Own("isotonic", "isotonic"),
    Own(DEFAULT, "smart"),
    Own(DEFAULT_KEPT, "smart", {"keep_prediction": True}, most_classes=2),
    Own("vector", "vector", keeps=False),
    Own("smart-vector", "smart-vector", keeps=False),
    Own("smart-matrix", "smart-matrix", keeps=False),
    Own(AUTO, "auto"),
    Own(FREE, "auto", CHANGE, keeps=False),
)
# What `auto` chooses from, for its regret: those that keep the prediction, and all.
CANDIDATES = {
    AUTO: ("none", "temperature", "isotonic", "smart"),
    FREE: (
        *("none", "temperature", "isotonic", "smart", DEFAULT_KEPT),
        *("vector", "smart-vector", "smart-matrix"),
    ),
}
PEERS = (
    "sklearn temperature",
    "sklearn isotonic (each class)",
    "netcal BBQ",
    "venn-abers",
    "betacal",
    "splinecalib",
    "probmetrics quadratic",
    "probmetrics ts-mix",
    "probmetrics svs",
    "probmetrics sms",
    "probmetrics logistic-mix",
)


def own_entrants() -> list[Entrant]:
    """Ours, as far as this version of the library has them."""
    return [
        Entrant(
            own.name,
            f"{own.method} {own.options} {library_digest()}",
            own,
            ours=True,
            fewest_classes=own.fewest_classes,
            most_classes=own.most_classes,
        )
        for own in OWN
        if own.exists
    ]


def peer_entrants() -> list[Entrant]:
    """The installed peers."""
    methods = {method.name: method for method in peers.PEERS}
    return [
        Entrant(
            name,
            f"{name} {release(method)}",
            of_peer(method.fit),
            False,
            2,
            method.most_classes,
        )
        for name in PEERS
        if (method := methods[name]).installed
    ]


def missing_peers() -> list[str]:
    return [method.name for method in peers.PEERS if method.name in PEERS and not method.installed]


def of_peer(
    fit: Callable[[Any, Labels], Callable[[Any], Probabilities]],
) -> Callable[[Pool, NDArray[np.int64]], Probabilities]:
    def run(pool: Pool, rows: NDArray[np.int64]) -> Probabilities:
        predict = fit(pool.finite_logits(pool.values[rows]), pool.labels[rows])
        return np.asarray(predict(pool.finite_logits(pool.test_values)))

    return run


@cache
def library_digest() -> str:
    """Of all source of the library that takes part in a fit."""
    root = Path(trueprob.__file__).parent
    found = hashlib.sha256()
    for folder in ("arrays", "calibrators", "fitting", "scores", "findings"):
        for path in sorted((root / folder).rglob("*.py")):
            found.update(str(path.relative_to(root)).encode() + path.read_bytes())
    for path in sorted(root.glob("*.py")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def release(method: peers.Method) -> str:
    """Name and version of the peer's distributions, and a digest of our call of it."""
    names = distributions().get(method.needs or "", [])
    versions = ", ".join(f"{name} {version(name)}" for name in sorted(set(names)))
    cells = inspect.getclosurevars(method.fit).nonlocals.values()
    called = [method.fit, *(value for value in cells if inspect.isfunction(value))]
    source = "".join(inspect.getsource(function) for function in called)
    return f"{versions} {hashlib.sha256(source.encode()).hexdigest()[:8]}"


@cache
def distributions() -> dict[str, list[str]]:
    return {key: list(value) for key, value in packages_distributions().items()}
