"""Classifiers that the benchmark trains: scikit-learn's on data that packages ship, and networks.

Data: digits and breast cancer (scikit-learn), bananas, phishing, segments and shuttle (river),
made sets with 1 % positives, wrong labels, a long tail and 100 classes, and the CIFAR-10 pictures
of the data folder as 8 × 8 pixels. Networks: the two in models/, also on corrupted pictures, as
animals against machines, and rounded to two decimals. What is trained is kept in the cache, by a
digest of this file and the versions of the packages.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.sets import ROOT
from benchmarks.calibration.sizes.pools import Pool, tested

SEED = 20_261_201  # of every split, made set and classifier here
MAX_POOL_ROWS = 6_000
ANIMALS = (2, 3, 4, 5, 6, 7)  # of the classes of CIFAR-10
CORRUPTION, SEVERITY = "gaussian-noise", 2

Rows = tuple[NDArray[Any], NDArray[np.int64]]


@dataclass(frozen=True)
class Recipe:
    """A classifier on data; the name of the pool is that of the data and what follows."""

    data: str
    model: str
    n_train: int
    decimals: int | None = None

    @property
    def name(self) -> str:
        return f"{self.data}_{self.model}{'' if self.decimals is None else '_rounded'}"


RECIPES = (
    Recipe("digits", "logistic", 400),
    Recipe("digits", "naivebayes", 400),
    Recipe("digits", "forest", 400),
    Recipe("digits", "knn", 400),
    Recipe("digits", "svc", 400),
    Recipe("digits", "mlp", 400),
    Recipe("eights", "boosting", 300),
    Recipe("eights", "naivebayes", 300),
    Recipe("cancer", "naivebayes", 150),
    Recipe("cancer", "forest", 150),
    Recipe("bananas", "knn", 500),
    Recipe("bananas", "svc", 500),
    Recipe("bananas", "forest", 500),
    Recipe("phishing", "forest", 300),
    Recipe("phishing", "mlp", 300),
    Recipe("segments", "boosting", 500),
    Recipe("segments", "naivebayes", 500),
    Recipe("segments", "knn", 500),
    Recipe("shuttle", "naivebayes", 2_000),
    Recipe("shuttle", "logistic", 2_000),
    Recipe("rare", "logistic", 4_000),
    Recipe("rare", "boosting", 4_000),
    Recipe("wronglabels", "mlp", 2_000),
    Recipe("wronglabels", "forest", 2_000),
    Recipe("longtail", "logistic", 4_000),
    Recipe("longtail", "mlp", 4_000),
    Recipe("hundred", "mlp", 8_000),
    Recipe("hundred", "mlp", 8_000, decimals=2),
    Recipe("pixels", "mlp", 8_000),
    Recipe("animals", "boosting", 4_000),
)

# ----- Data -----


def scikit_data(loader: str) -> Rows:
    from sklearn import datasets

    X, y = getattr(datasets, loader)(return_X_y=True)
    return X, y.astype(np.int64)


def eights() -> Rows:
    X, y = scikit_data("load_digits")
    return X, (y == 8).astype(np.int64)


def river_data(name: str) -> Rows | None:
    """One of river's data sets whose file is in the package; None without the package."""
    if importlib.util.find_spec("river") is None:
        return None
    from river import datasets

    rows = list(getattr(datasets, name)())
    X = np.array([[float(value) for value in x.values()] for x, _ in rows])
    return X, np.unique([str(y) for _, y in rows], return_inverse=True)[1].astype(np.int64)


def shuttle() -> Rows | None:
    """One row in 14 is an anomaly; river ships the file, and reads it through pandas only."""
    if importlib.util.find_spec("river") is None:
        return None
    from river import datasets

    path = Path(datasets.__file__).parent / "shuttle.csv.gz"
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1)
    return table[:, :-1], table[:, -1].astype(np.int64)


def made(n: int, k: int, **options: Any) -> Rows:
    from sklearn.datasets import make_classification

    X, y = make_classification(n, n_classes=k, random_state=SEED, **options)
    return X, y.astype(np.int64)


def long_tail() -> Rows:
    share = 100.0 ** (-np.arange(20) / 19.0)
    weights = list(share / share.sum())
    return made(
        30_000, 20, weights=weights, n_features=20, n_informative=12, n_clusters_per_class=1
    )


@cache
def pictures(data: Path) -> Rows | None:
    """The CIFAR-10 pictures as 8 × 8 × 3 means, or None without the data."""
    from trueprob_trainer.data import load

    path = data / "images" / "cifar10_jpeg.npz"
    if not path.is_file():
        return None
    loaded = load(f"npz:{path}")
    small = loaded.images.reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4), dtype=np.float32)
    return small.reshape(small.shape[0], -1) / 255.0, loaded.labels.astype(np.int64)


def animals(data: Path) -> Rows | None:
    found = pictures(data)
    return None if found is None else (found[0], np.isin(found[1], ANIMALS).astype(np.int64))


DATA: dict[str, Callable[[Path], Rows | None]] = {
    "digits": lambda _: scikit_data("load_digits"),
    "eights": lambda _: eights(),
    "cancer": lambda _: scikit_data("load_breast_cancer"),
    "bananas": lambda _: river_data("Bananas"),
    "phishing": lambda _: river_data("Phishing"),
    "segments": lambda _: river_data("ImageSegments"),
    "shuttle": lambda _: shuttle(),
    "rare": lambda _: made(40_000, 2, weights=[0.99], n_informative=8, flip_y=0.004),
    "wronglabels": lambda _: made(20_000, 5, n_informative=10, flip_y=0.3),
    "longtail": lambda _: long_tail(),
    "hundred": lambda _: made(
        30_000, 100, n_features=30, n_informative=20, n_clusters_per_class=1, class_sep=1.5
    ),
    "pixels": pictures,
    "animals": animals,
}

# ----- Classifiers -----


def classifier(model: str) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    made_by: dict[str, Callable[[], Any]] = {
        "logistic": lambda: LogisticRegression(C=100.0, max_iter=300),
        "naivebayes": GaussianNB,
        "forest": lambda: RandomForestClassifier(60, random_state=SEED),
        "boosting": lambda: HistGradientBoostingClassifier(
            max_iter=60, early_stopping=False, random_state=SEED
        ),
        "svc": SVC,
        "knn": lambda: KNeighborsClassifier(10),
        "mlp": lambda: MLPClassifier((64,), alpha=0.0, max_iter=80, random_state=SEED),
    }
    return make_pipeline(StandardScaler(), made_by[model]())


def outputs(trained: Any, model: str, X: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """What the numbers are, and the numbers."""
    if model in ("forest", "knn"):
        return "probabilities", trained.predict_proba(X)
    if model == "mlp":
        with np.errstate(divide="ignore"):
            return "log_probabilities", trained.predict_log_proba(X)
    if model == "naivebayes":
        scaled = trained[:-1].transform(X)
        return "logits", trained[-1].predict_joint_log_proba(scaled).astype(np.float32)
    decision = trained.decision_function(X)
    if decision.ndim == 1:
        decision = np.stack([np.zeros_like(decision), decision], axis=1)
    return "logits", decision.astype(np.float32)


def rounded(values: NDArray[Any], decimals: int) -> NDArray[Any]:
    """Probabilities as a file with so many decimals has them, each row divided by its sum."""
    p = np.round(values, decimals)
    p[np.arange(p.shape[0]), values.argmax(axis=1)] += 0.5 * 10.0**-decimals * (p.sum(axis=1) == 0)
    p /= p.sum(axis=1, keepdims=True)
    return p


def train(recipe: Recipe, data: Path) -> Pool | None:
    """Train on the first rows of a shuffle, and hold the rest out."""
    rows = DATA[recipe.data](data)
    if rows is None:
        return None
    X, y = rows
    order = np.random.default_rng(SEED).permutation(y.size)
    first, rest = order[: recipe.n_train], order[recipe.n_train :][: 2 * MAX_POOL_ROWS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the MLP is stopped before it converges
        trained = classifier(recipe.model).fit(X[first], y[first])
    inputs, values = outputs(trained, recipe.model, X[rest])
    if recipe.decimals is not None:
        p = np.exp(values) if inputs == "log_probabilities" else values
        inputs, values = "probabilities", rounded(p, recipe.decimals)
    return split(recipe.name, inputs, values, y[rest])


def split(name: str, inputs: str, values: NDArray[Any], labels: NDArray[np.int64]) -> Pool:
    """Half to draw from (at most 6 000 rows), the rest to test on."""
    half = min(labels.size // 2, MAX_POOL_ROWS)
    labels = labels.astype(np.int64)
    test = tested(values[half:], labels[half:])
    return Pool(name, "confirmation", inputs, values[:half], labels[:half], *test)


# ----- The networks in models/ -----


def network_logits(model: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    from benchmarks.drift.networks import logits_of, newest

    found = newest(ROOT / "models", model)
    assert found is not None, f"models/{model} belongs to the repository"
    return logits_of(found, images)


def digits_network(corrupted: bool) -> Pool:
    """On the rows that its training left out."""
    from trueprob_trainer.data import Split, load

    images, labels = [], []
    for part in (Split.CALIBRATION, Split.TEST, Split.EXAMPLES):
        some, their = load("noisy-digits").of(part)
        images.append(some)
        labels.append(their)
    pixels, y = np.concatenate(images), np.concatenate(labels).astype(np.int64)
    order = np.random.default_rng(SEED).permutation(y.size)
    pixels, y = pixels[order], y[order]
    if corrupted:
        noise = np.random.default_rng(SEED).normal(scale=40.0, size=pixels.shape)
        pixels = np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)
    name = "digits_network" + "_corrupted" * corrupted
    return split(name, "logits", network_logits("digits", pixels), y)


def cifar_network(data: Path) -> Iterator[Pool]:
    """On the given test pictures; nothing without the data."""
    from trueprob_trainer.data import Split, load
    from trueprob_trainer.evaluation.corruptions import corrupt

    path = data / "images" / "cifar10_jpeg.npz"
    if not path.is_file():
        return
    images, labels = load(f"npz:{path}").of(Split.TEST)
    order = np.random.default_rng(SEED).permutation(labels.shape[0])
    images, y = images[order], labels[order].astype(np.int64)
    z = network_logits("cifar10", images)
    yield split("cifar_network", "logits", z, y)
    p = np.exp(z - np.logaddexp.reduce(z, axis=1, keepdims=True)).astype(np.float64)
    yield split("cifar_network_rounded", "probabilities", rounded(p, 2), y)
    # Two classes: the logit of a group is the logarithm of its sum.
    machine = [c for c in range(10) if c not in ANIMALS]
    groups = [np.logaddexp.reduce(z[:, list(c)], axis=1) for c in (machine, ANIMALS)]
    yield split(
        "cifar_network_animals",
        "logits",
        np.stack(groups, axis=1),
        np.isin(y, ANIMALS).astype(np.int64),
    )
    noisy = corrupt(images, CORRUPTION, SEVERITY)
    yield split("cifar_network_corrupted", "logits", network_logits("cifar10", noisy), y)


# ----- All of them -----


def confirmation_pools(data: Path, folder: Path) -> Iterator[Pool]:
    """Every pool, from `folder` where it was trained before."""
    folder.mkdir(parents=True, exist_ok=True)
    for recipe in RECIPES:
        yield from kept(folder, recipe.name, lambda r=recipe: [train(r, data)])
    yield from kept(folder, "digits_network", lambda: [digits_network(False), digits_network(True)])
    yield from kept(folder, "cifar_network", lambda: list(cifar_network(data)))


def kept(folder: Path, name: str, make: Callable[[], list[Pool | None]]) -> Iterator[Pool]:
    """The pools of one file; it is made where it is not there."""
    path = folder / f"{name}-{recipe_digest()}.npz"
    if not path.is_file():
        pools = [pool for pool in make() if pool is not None]
        if not pools:
            print(f"{name} is left out: its data are not there", file=sys.stderr)
            return
        arrays = {
            f"{index}.{key}": np.asarray(getattr(pool, key))
            for index, pool in enumerate(pools)
            for key in KEYS
        }
        with path.with_suffix(".part").open("wb") as file:
            np.savez(file, **arrays)
        path.with_suffix(".part").rename(path)
    with np.load(path, allow_pickle=False) as stored:
        for index in range(len(stored.files) // len(KEYS)):
            found = {key: stored[f"{index}.{key}"] for key in KEYS}
            yield Pool(
                part="confirmation",
                name=str(found.pop("name")),
                inputs=str(found.pop("inputs")),
                **found,
            )


KEYS = ("name", "inputs", "values", "labels", "test_values", "test_labels")


@cache
def recipe_digest() -> str:
    """Of this file and of the packages that train."""
    versions = f"scikit-learn {version('scikit-learn')} numpy {version('numpy')}"
    return hashlib.sha256(Path(__file__).read_bytes() + versions.encode()).hexdigest()[:12]
