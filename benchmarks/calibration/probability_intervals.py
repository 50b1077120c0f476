"""Coverage and width of intervals of the probability, where the truth is known.

Logits and labels are simulated: labels are drawn from a true map of the logits, so the share of
right predictions at each confidence is known. Every draw fits a calibrator on n rows and asks for
intervals at 5 000 new rows. The interval of `predict_interval` is compared with

- 30 refits on bootstrap samples of the rows, u ± z·(standard deviation of the refits' logits);
- for two classes, the pair of the inductive Venn–Abers predictor (Vovk and Petej 2014), which has
  no level and is no confidence interval.

On real networks the truth is counted: the share of right predictions in cells of the test half.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration.report import percent, table
from benchmarks.calibration.sets import LogitSet
from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.logit_functions import Logits, logit_gap, softmax
from trueprob.calibrators import Calibrator
from trueprob.fitting.methods import fit_rows

__all__ = ["TRUTHS", "drawn", "intervals_report", "share_right"]

Array = NDArray[np.float64]

LEVEL: Final = 0.9
Z: Final = NormalDist().inv_cdf(0.5 + LEVEL / 2.0)
SIZES: Final = (100, 300, 1_000)
CLASSES: Final = (2, 10)
NEW_ROWS: Final = 5_000
REFITS: Final = 30
NEIGHBOURS: Final = 100  # on either side, over which the truth is averaged
# Method → share of the draws. The first is the default, and the others take longer or matter less.
METHODS: Final = {"smart": 1.0, "temperature": 0.2, "isotonic": 0.2, "smart-matrix": 0.05}
DEFAULT: Final = "smart"
CELLS: Final = 10  # of a test half
MAX_TEST_ELEMENTS: Final = 1_000_000
REFITTED: Final = 20  # of the default, every 20th draw is also refitted, which takes 30 fits


def curved(logits: Logits) -> Array:
    """Temperature 2.9 up to a gap of 2.5 nats, and less overconfident beyond."""
    gap = logit_gap(logits).astype(np.float64)
    true_gap = 0.35 * gap + 0.55 * np.maximum(gap - 2.5, 0.0)
    return np.asarray(logits * (true_gap / np.maximum(gap, 1e-9))[:, None])


# The true logits; 1.8 is the temperature of a usual overconfident network.
TRUTHS: Final[dict[str, Callable[[Logits], Array]]] = {
    "temperature": lambda z: z / 1.8,
    "curved": curved,
    "offset": lambda z: z / 1.8 + np.linspace(1.0, -1.0, z.shape[1]),
}


def drawn(
    truth: str, k: int, n: int, generator: np.random.Generator
) -> tuple[Logits, NDArray[np.int64], Array]:
    """Logits of n rows, labels from the truth, and the true probabilities."""
    if k == 2:
        sign = np.where(generator.random(n) < 0.5, 1.0, -1.0)
        logits = np.stack([np.zeros(n), sign * generator.normal(3.0, 2.5, n)], axis=1)
    else:
        logits = 1.5 * generator.normal(size=(n, k))
        logits[np.arange(n), generator.integers(0, k, n)] += generator.gamma(3.0, 2.5, n)
    given = logits.astype(np.float32)
    true = softmax(TRUTHS[truth](given).astype(np.float32)).astype(np.float64)
    labels = (true.cumsum(axis=1) > generator.random(n)[:, None] * (1.0 - 1e-6)).argmax(axis=1)
    return given, labels, true


def share_right(confidence: Array, true: Array) -> Array:
    """The true probability averaged over rows of nearly the same confidence."""
    # Averaged as a difference from the confidence, which itself changes within a window.
    order = np.argsort(confidence, kind="stable")
    n = order.size
    total = np.concatenate([[0.0], np.cumsum((true - confidence)[order])])
    low = np.maximum(np.arange(n) - NEIGHBOURS, 0)
    high = np.minimum(np.arange(n) + NEIGHBOURS + 1, n)
    result = np.empty(n)
    result[order] = (total[high] - total[low]) / (high - low)
    return np.asarray(confidence + result)


@dataclass
class Measured:
    """Sums over the draws of one method, truth and size."""

    own: list[tuple[float, float, float]] = field(default_factory=list)
    refits: list[tuple[float, float]] = field(default_factory=list)
    pair: list[tuple[float, float]] = field(default_factory=list)
    seconds: list[tuple[float, float]] = field(default_factory=list)


def coverage(low: Array, high: Array, true: Array) -> tuple[float, float]:
    """Share of the true values inside, and mean width."""
    return float(((low <= true) & (true <= high)).mean()), float((high - low).mean())


def bounds(calibrator: Calibrator, logits: Logits) -> tuple[Array, Array, Array, NDArray[np.int64]]:
    """A probability of each row, its interval, and its class: of two classes always class 1."""
    answer = calibrator.predict_interval(logits, LEVEL)
    if logits.shape[1] > 2:
        return answer.confidence, answer.low, answer.high, answer.prediction
    # Cells of the confidence would mix rows of both ends of P(class 1).
    zero = answer.prediction == 0
    p = np.where(zero, 1.0 - answer.confidence, answer.confidence)
    low = np.where(zero, 1.0 - answer.high, answer.low)
    high = np.where(zero, 1.0 - answer.low, answer.high)
    return p, low, high, np.ones(p.size, dtype=np.int64)


def measured(method: str, truth: str, k: int, n: int, n_draws: int) -> Measured:
    found = Measured()
    for draw in range(n_draws):
        generator = np.random.default_rng([draw, n, k])
        logits, labels, _ = drawn(truth, k, n, generator)
        new, _, true = drawn(truth, k, NEW_ROWS, generator)
        rows = CalibrationSet.from_arrays({"logits": logits, "labels": labels}, n_classes=k)
        start = time.process_time()
        fitted = fit_rows(method, rows).calibrator
        middle = time.process_time()
        calibrator = fitted.with_uncertainty(rows)
        found.seconds.append((middle - start, time.process_time() - middle))
        p, low, high, column = bounds(calibrator, new)
        of_rows = true[np.arange(NEW_ROWS), column]
        target = share_right(p, of_rows)
        found.own.append((*coverage(low, high, target), coverage(low, high, of_rows)[0]))
        if method == DEFAULT and draw % REFITTED == 0:
            refits = [
                logit(refitted, new, column) for refitted in refitted_on_samples(method, rows, draw)
            ]
            half = Z * np.std(refits, axis=0, ddof=1)
            middle_logit = logit(fitted, new, column)
            ends = (probability(middle_logit + sign * half) for sign in (-1.0, 1.0))
            found.refits.append(coverage(*ends, target))
            if k == 2 and importlib.util.find_spec("venn_abers"):
                found.pair.append(coverage(*venn_abers_pair(rows, new), target))
    return found


def refitted_on_samples(method: str, rows: CalibrationSet, seed: int) -> Iterator[Calibrator]:
    """Calibrators fitted on bootstrap samples of the rows."""
    generator = np.random.default_rng([seed, REFITS])
    for _ in range(REFITS):
        index = generator.integers(0, rows.n, rows.n)
        sample = {"logits": rows.logits[index], "labels": rows.labels[index]}
        yield fit_rows(
            method, CalibrationSet.from_arrays(sample, n_classes=rows.n_classes)
        ).calibrator


def logit(calibrator: Calibrator, logits: Logits, column: NDArray[np.int64]) -> Array:
    p = calibrator.predict_proba(logits).astype(np.float64)
    chosen = p[np.arange(column.size), column]
    p[np.arange(column.size), column] = 0.0
    tiny = float(np.finfo(np.float32).tiny)
    return np.asarray(np.log(np.maximum(chosen, tiny)) - np.log(np.maximum(p.sum(axis=1), tiny)))


def probability(logits: Array) -> Array:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits))


def venn_abers_pair(rows: CalibrationSet, new: Logits) -> tuple[Array, Array]:
    """The pair (p0, p1) of the package venn-abers for class 1."""
    from venn_abers import VennAbers

    predictor = VennAbers()
    predictor.fit(softmax(rows.logits).astype(np.float64), rows.labels)
    _, pair = predictor.predict_proba(softmax(new).astype(np.float64))
    return pair[:, 0], pair[:, 1]


def on_real_networks(sets: Iterable[LogitSet], *, n_draws: int) -> str:
    """Coverage of the shares in cells of the test halves, by number of rows."""
    found: dict[int, list[tuple[float, float]]] = {size: [] for size in SIZES}
    for data in sets:
        kept = slice(0, max(1, MAX_TEST_ELEMENTS // data.n_classes))
        new, labels = data.test_logits[kept], data.test_labels[kept]
        for size in (size for size in SIZES if size < data.val_labels.size):
            of_set = []
            for draw in range(n_draws):
                generator = np.random.default_rng([size, draw])
                index = generator.choice(data.val_labels.size, size, replace=False)
                rows = CalibrationSet.from_arrays(
                    {"logits": data.val_logits[index], "labels": data.val_labels[index]}
                )
                calibrator = fit_rows(DEFAULT, rows).calibrator.with_uncertainty(rows)
                p, low, high, column = bounds(calibrator, new)
                cells = np.array_split(np.argsort(p, kind="stable"), CELLS)
                low, high, share = (
                    np.array([float(each[cell].mean()) for cell in cells])
                    for each in (low, high, labels == column)
                )
                middle, half = 0.5 * (low + high), 0.5 * (high - low)
                noise = Z**2 * middle * (1.0 - middle) / np.array([cell.size for cell in cells])
                total = np.sqrt(half**2 + noise)
                inside = coverage(middle - total, middle + total, share)[0]
                of_set.append((inside, float(2.0 * half.mean())))
            inside, width = np.mean(of_set, axis=0)
            found[size].append((float(inside), float(width)))
    lines = []
    for size, of in ((size, of) for size, of in found.items() if of):
        inside, width = np.mean(of, axis=0)
        worst = min(each for each, _ in of)
        cells = (percent(float(each), 1) for each in (inside, worst, width))
        lines.append([str(size), str(len(of)), *cells])
    return table(["rows", "sets", "covers %", "worst set %", "width %"], lines)


def intervals_report(sets: Iterable[LogitSet], *, n_draws: int) -> str:
    """Coverage and width by classes, truth, method and size, and on real networks; CPU time."""
    lines, costs = [], []
    for k, (method, share) in product(CLASSES, METHODS.items()):
        # With two classes a matrix is a shift and a scale.
        if k == 2 and method == "smart-matrix":
            continue
        for truth, n in product(TRUTHS, SIZES):
            found = measured(method, truth, k, n, max(5, round(share * n_draws)))
            inside, width, of_rows = np.mean(found.own, axis=0)
            cells = [percent(each, 1) for each in (inside, of_rows, width)]
            for others in (found.refits, found.pair):
                mean = np.mean(others, axis=0) if others else (np.nan, np.nan)
                cells += [percent(float(each), 1) for each in mean]
            lines.append([f"{k} classes, {truth}: {method}", str(n), *cells])
            if method == DEFAULT and truth == "temperature":
                fit, after = 1e3 * np.median(found.seconds, axis=0)
                costs.append([f"{k} classes", str(n), f"{fit:.1f}", f"{after:.1f}"])
    header = ["truth: method", "rows", "covers %", "covers row %", "width %"]
    header += ["refits: covers %", "width %", "pair: covers %", "width %"]
    draws = ", ".join(f"{max(5, round(s * n_draws))} of `{m}`" for m, s in METHODS.items())
    explained = (
        f"Draws of each line: {draws}; refits and pairs on every {REFITTED}th draw of "
        f"`{DEFAULT}`. Nominal level {percent(LEVEL, 0)} %. Covers: the share of right "
        "predictions (two classes: the frequency of class 1) among rows of this confidence lies "
        "in the interval. Covers row: the true probability of the very row does, which no "
        f"function of the confidence can give. CPU time of `{DEFAULT}`:"
    )
    cost = table(["classes", "rows", "fit, ms", "uncertainty, ms"], costs)
    real = on_real_networks(sets, n_draws=max(3, n_draws // 40))
    counted = (
        f"Real networks, `{DEFAULT}`, {max(3, n_draws // 40)} draws of rows of each validation "
        f"half. Of {CELLS} cells of the test half, by confidence, how many have their share of "
        "right predictions within the mean interval, widened by the share's own binomial noise "
        f"(the squares of both half-widths added). At most {MAX_TEST_ELEMENTS} test logits a set:"
    )
    return "\n\n".join([table(header, lines), explained, cost, counted, real])
