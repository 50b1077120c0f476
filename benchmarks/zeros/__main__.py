"""Prints the NLL with zeros learnt, floored and cut, and writes it to docs/benchmarks.md.

python -m benchmarks.zeros [--no-write]

The sets of `BENCH_DATA` are fitted on the validation half and scored on the test half; rounded
ones are given to two decimals. Classifiers of scikit-learn are trained here on its digits under
noise, fitted on the rows that they have not seen and scored on a third part.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from benchmarks.calibration.report import machine, nats, percent, table, write_section
from benchmarks.calibration.sets import ROOT, default_folder
from trueprob import CalibrationSet, logits_from_probabilities, softmax
from trueprob.arrays.logits import ZERO_CELL
from trueprob.calibrators import Calibrator
from trueprob.fitting.methods import FITTERS, fit_rows
from trueprob.scores.score import score

DOCUMENT = ROOT / "docs" / "benchmarks.md"
ROUNDED = ("cifar10_resnet20", "cifar100_resnet20", "cifar100_vgg19bn", "cifar100_wrn16-4")
FLOORED = ("20news_cleanlabcv", "mnist_mondrianforest", "pathmnist_resnet50")
FLOORS = (0.005, 1e-4, 1e-12)
METHOD = "smart"
LINEAR = ("smart", "vector", "smart-matrix")
CLASSIFIERS = {
    "5 neighbours": KNeighborsClassifier(5),
    "15 neighbours by distance": KNeighborsClassifier(15, weights="distance"),
    "forest of 20": RandomForestClassifier(20, random_state=0),
    "forest of 100": RandomForestClassifier(100, random_state=0),
    "tree": DecisionTreeClassifier(min_samples_leaf=5, random_state=0),
    "logistic, two decimals": LogisticRegression(C=0.01, max_iter=2_000),
}
Pair = tuple[CalibrationSet, CalibrationSet]


def digits(classifier: Any, scores: str, *, noise: float) -> list[tuple[Any, Any]]:
    """Scores and labels of the calibration part and of the test part."""
    x, y = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    x = x + noise * generator.normal(size=x.shape)
    train, calibration, test = np.split(generator.permutation(len(y)), [450, 1_100])
    classifier.fit(x[train], y[train])
    return [(getattr(classifier, scores)(x[part]), y[part]) for part in (calibration, test)]


def rounded(probabilities: Any) -> Any:
    p = np.round(np.asarray(probabilities, np.float64), 2)
    return p / p.sum(axis=1, keepdims=True)


def zero_sets(folder: Path) -> Iterator[tuple[str, Pair]]:
    """Sets with zeros, by name."""
    for name in (*ROUNDED, *FLOORED):
        path = folder / "logits" / f"{name}.npz"
        if not path.is_file():
            continue
        with np.load(path, allow_pickle=False) as arrays:
            parts = [
                CalibrationSet(arrays[f"{half}_logits"], arrays[f"{half}_labels"])
                for half in ("val", "test")
            ]
        if name in ROUNDED:
            name += ", two decimals"
            parts = [
                CalibrationSet(logits_from_probabilities(rounded(softmax(p.logits))), p.labels)
                for p in parts
            ]
        yield name, (parts[0], parts[1])
    for name, classifier in CLASSIFIERS.items():
        change = rounded if name.endswith("decimals") else np.asarray
        pair = [
            CalibrationSet(logits_from_probabilities(change(p)), labels)
            for p, labels in digits(classifier, "predict_proba", noise=8.0)
        ]
        yield f"digits, {name}", (pair[0], pair[1])


def nll(calibrator: Calibrator, test: CalibrationSet) -> float:
    return score(calibrator.predict_proba(test.logits), test.labels).nll


def with_floor(data: CalibrationSet, floor: float) -> CalibrationSet:
    """The set with a least probability in place of zeros."""
    floored = np.maximum(data.logits, np.float32(np.log(floor)))
    return CalibrationSet(floored, data.labels)


def zeros_row(name: str, data: CalibrationSet, test: CalibrationSet) -> list[str]:
    zero = data.logits == ZERO_CELL
    cells = [name, str(data.n_classes), percent(float(zero.mean()), 1)]
    cells.append(percent(float(zero[np.arange(data.n), data.labels].mean()), 1))
    for floor in FLOORS:
        rows, held = with_floor(data, floor), with_floor(test, floor)
        fitted = FITTERS[METHOD](rows.logits, rows.labels, None, seed=0).calibrator
        cells.append(nats(nll(fitted, held), 3))
    learnt = fit_rows(METHOD, data).calibrator
    found = score(learnt.predict_proba(test.logits), test.labels)
    return [*cells, nats(found.nll, 3), percent(found.ece), percent(found.ece_floor)]


def wild_sets(folder: Path) -> Iterator[tuple[str, Pair]]:
    """Joint log-likelihoods of naive Bayes, by name."""
    for smoothing in (1e-9, 1e-4):
        pair = [
            CalibrationSet(joint, labels)
            for joint, labels in digits(
                GaussianNB(var_smoothing=smoothing), "predict_joint_log_proba", noise=0.0
            )
        ]
        yield f"digits, smoothing {smoothing:g}", (pair[0], pair[1])
    paths = [folder / "faults" / f"{name}.npz" for name in ("gnb_cal", "gnb_test")]
    if all(path.is_file() for path in paths):
        halves = []
        for path in paths:
            with np.load(path, allow_pickle=False) as arrays:
                halves.append(CalibrationSet(arrays["logits"], arrays["labels"]))
        yield "gnb", (halves[0], halves[1])


def wild_row(name: str, data: CalibrationSet, test: CalibrationSet) -> list[str]:
    accuracy = float((test.logits.argmax(axis=1) == test.labels).mean())
    cells = [name, percent(accuracy, 1)]
    for method in LINEAR:
        fits = FITTERS[method](data.logits, data.labels, None, seed=0), fit_rows(method, data)
        for calibrator in (fitted.calibrator for fitted in fits):
            kept = float((calibrator.prediction(test.logits) == test.labels).mean())
            cells.append(f"{nats(nll(calibrator, test), 3)} ({percent(kept, 1)})")
    return cells


def tables(folder: Path) -> str:
    """Both tables."""
    floors = [f"NLL floor {floor:g}" for floor in FLOORS]
    zero_header = ["set", "k", "zeros %", "labels there %", *floors, "NLL learnt", "ECE %", "floor"]
    wild_header = ["naive Bayes", "accuracy %"]
    for method in LINEAR:
        wild_header += [f"`{method}`", "cut"]
    zeros = [zeros_row(name, *pair) for name, pair in zero_sets(folder)]
    wild = [wild_row(name, *pair) for name, pair in wild_sets(folder)]
    return (
        f"NLL of `{METHOD}` in nats, with zeros at a floor and learnt, and the ECE of the last:\n\n"
        f"{table(zero_header, zeros)}\n\n"
        "NLL and accuracy on a wild scale, without the input stage and with it:\n\n"
        f"{table(wild_header, wild)}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zeros", description=__doc__)
    parser.add_argument("--no-write", action="store_true", help="print only")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    with threadpool_limits(1):
        found = tables(default_folder())
    took = f"{time.perf_counter() - start:.0f} s"
    packages = machine(("numpy", "scipy", "scikit-learn"))
    text = f"`make bench-zeros`: {took} on {packages}\n\n{found}"
    print(text)
    if not options.no_write:
        write_section(DOCUMENT, "all", text, benchmark="zeros")
    return 0


if __name__ == "__main__":
    sys.exit(main())
