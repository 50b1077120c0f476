"""Verdict: the conditions of admission, tested on two sides of a comparison.

A paired bootstrap over rows, or groups where given, tests that

1. mean NLL improves: the one-sided 90 % upper bound of (candidate − incumbent) is below 0;
2. accuracy is kept: exactly for methods that keep the prediction, otherwise its difference is
   not below 0 at one-sided 95 %;
3. debiased ECE, ECE − noise floor, is not significantly worse: the one-sided 95 % lower bound of
   its difference is not above 0. Resampling adds noise that raises any ECE, so the bound is the
   observed difference minus (95 % quantile − mean) of the resampled one;
4. from 30 rows a class on, debiased class error, class error − noise floor, is not significantly
   worse, by the same bound. With the rows of each predicted class c summed up,

       class error = Σ_c |Σ (y − p)| / n,   floor = Σ_c sqrt(2/π · Σ p(1 − p)) / n.

   It sees errors of classes that cancel on average.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Probabilities
from trueprob.scores.binned import N_BINS, bin_index
from trueprob.scores.interval import MAX_UNITS, resampled_sums
from trueprob.scores.score import SMALLEST, Scores, score

__all__ = ["AdmissionScores", "Side", "Verdict", "judge", "side_of"]

Array = NDArray[np.float64]
Integers = NDArray[np.int64]

MIN_ROWS_OF_CLASS: Final = 30  # on average; with fewer, the class error is nearly all noise
CLASS_BLOCK: Final = 250  # classes resampled at a time: 16 MB of sums


@dataclass(frozen=True)
class AdmissionScores(Scores):
    """Scores of one side of the comparison, with its class error and the floor of that."""

    class_error: float
    class_error_floor: float


@dataclass(frozen=True)
class Verdict:
    """The result of `admit`.

    Attributes
    ----------
    admitted : bool
    reasons : tuple of str
        Sentences with the numbers; failed conditions come first.
    scores : dict
        ``incumbent`` and ``candidate``, on the compared rows; None when there are none.
    n_compared : int
        Rows that were new to the incumbent.
    """

    admitted: bool
    reasons: tuple[str, ...]
    scores: dict[str, AdmissionScores | None]
    n_compared: int

    def to_dict(self) -> dict[str, Any]:
        """The verdict as JSON values."""
        return {
            "admitted": self.admitted,
            "reasons": list(self.reasons),
            "scores": {
                name: None if scores is None else scores.to_dict()
                for name, scores in self.scores.items()
            },
            "n_compared": self.n_compared,
        }


@dataclass(frozen=True)
class Side:
    """Scores of a calibrator on the compared rows, and what is summed over rows; all (n,)."""

    scores: AdmissionScores
    nll: Array  # times the row's weight
    correct: Array  # times the row's weight
    gap: Array  # confidence − right, times the row's weight
    variance: Array  # of the gap
    bin: Integers  # of the confidence
    predicted: Labels


def side_of(probabilities: Probabilities, predicted: Labels, data: CalibrationSet) -> Side:
    """The side of a calibrator with these probabilities and predictions."""
    rows = np.arange(data.n)
    scores = score(probabilities, data.labels, prediction=predicted, weights=data.weights)
    weight = np.ones(data.n) if data.weights is None else data.weights
    chosen = probabilities[rows, data.labels].astype(np.float64)
    confidence = np.minimum(probabilities[rows, predicted].astype(np.float64), 1.0)
    correct = (predicted == data.labels).astype(np.float64)
    gap = weight * (confidence - correct)
    variance = np.square(weight) * confidence * (1.0 - confidence)
    error = np.abs(np.bincount(predicted, gap)).sum()
    floor = np.sqrt(2.0 / np.pi * np.bincount(predicted, variance)).sum()
    return Side(
        AdmissionScores(
            **vars(scores),
            class_error=float(error / weight.sum()),
            class_error_floor=float(floor / weight.sum()),
        ),
        -weight * np.log(np.maximum(chosen, SMALLEST)),
        weight * correct,
        gap,
        variance,
        bin_index(confidence),
        predicted,
    )


def judge(
    incumbent: Side,
    candidates: list[Side],
    data: CalibrationSet,
    unit: Integers,
    seed: int,
    *,
    exact: bool,  # whether the method keeps the prediction
) -> Verdict:
    """Test the conditions; several divisions into folds are averaged per row."""
    weight = np.ones(data.n) if data.weights is None else data.weights
    count, sides = len(candidates), [incumbent, *candidates]
    rows = np.arange(data.n)
    columns = np.column_stack(
        [
            weight,
            sum(side.nll for side in candidates) / count - incumbent.nll,
            sum(side.correct for side in candidates) / count - incumbent.correct,
            *(_cells(side, rows, side.bin, (data.n, N_BINS)) for side in sides),
        ]
    )
    drawn = resampled_sums(columns, unit, seed=seed)
    drawn = drawn[drawn[:, 0] > 0]  # weights of zero can make a resample empty
    observed = columns.sum(axis=0, keepdims=True)

    nll = drawn[:, 1] / drawn[:, 0]
    low, high = np.quantile(nll, [0.1, 0.9])
    accuracy = drawn[:, 2] / drawn[:, 0]
    accuracy_change = float(observed[0, 2] / observed[0, 0])

    before, after = incumbent.scores, _mean_scores([side.scores for side in candidates])
    improves = bool(high < 0.0)
    keeps_accuracy = accuracy_change >= 0.0 if exact else bool(np.quantile(accuracy, 0.95) >= 0.0)
    numbers = (
        f"NLL {before.nll:.3f} → {after.nll:.3f} nats, 80 % interval of the difference "
        f"{_signed(low)} to {_signed(high)}, on {data.n} rows"
    )
    accuracies = f"accuracy {before.accuracy:.3f} → {after.accuracy:.3f}"
    conditions = [
        (improves, numbers if improves else f"no evidence of improvement: {numbers}"),
        (keeps_accuracy, f"{accuracies}, {'kept' if keeps_accuracy else 'worse'}"),
        _not_worse(
            "debiased ECE",
            _excess(observed[:, 3:], N_BINS) / observed[:, :1],
            _excess(drawn[:, 3:], N_BINS) / drawn[:, :1],
        ),
    ]
    if data.n >= MIN_ROWS_OF_CLASS * data.n_classes:
        errors = _class_errors(sides, weight, unit, seed)
        conditions.append(_not_worse("debiased class error", *errors))
    conditions.sort(key=lambda condition: condition[0])  # failed ones come first
    return Verdict(
        admitted=all(passed for passed, _ in conditions),
        reasons=tuple(reason for _, reason in conditions),
        scores={"incumbent": before, "candidate": after},
        n_compared=data.n,
    )


def _cells(side: Side, row: Integers, cell: Integers, shape: tuple[int, int]) -> Array:
    """Sums of gaps and of variances in the cells of each row, (rows, 2 · cells)."""
    index, size = row * shape[1] + cell, shape[0] * shape[1]
    sums = [np.bincount(index, each, size).reshape(shape) for each in (side.gap, side.variance)]
    return np.concatenate(sums, axis=1)


def _class_errors(
    sides: list[Side], weight: Array, unit: Integers, seed: int
) -> tuple[Array, Array]:
    """Debiased class error of each side, observed (1, sides) and resampled (m, sides)."""
    n_units = int(unit.max()) + 1
    if n_units > MAX_UNITS:
        merged = np.random.default_rng(seed).permutation(n_units) % MAX_UNITS
        unit, n_units = merged[unit], MAX_UNITS
    total = np.bincount(unit, weight, n_units).astype(np.float64).reshape(-1, 1)
    classes, found = np.unique([side.predicted for side in sides], return_inverse=True)
    cells = found.reshape(len(sides), -1)
    observed, drawn = np.zeros((1, len(sides))), np.zeros((1, len(sides)))
    for start in range(0, classes.size, CLASS_BLOCK):
        size = min(CLASS_BLOCK, classes.size - start)
        parts = [total]
        for side, cell in zip(sides, cells, strict=True):
            inside = (cell >= start) & (cell < start + size)
            part = replace(side, gap=side.gap[inside], variance=side.variance[inside])
            parts.append(_cells(part, unit[inside], cell[inside] - start, (n_units, size)))
        columns = np.concatenate(parts, axis=1)
        # The same seed draws the same units for every block.
        sums = resampled_sums(columns, np.arange(n_units), seed=seed)
        sums = sums[sums[:, 0] > 0]
        drawn = drawn + _excess(sums[:, 1:], size) / sums[:, :1]
        observed += _excess(columns[:, 1:].sum(axis=0, keepdims=True), size) / total.sum()
    return observed, drawn


def _excess(sums: Array, n_cells: int) -> Array:
    """Σ |gap| − its noise floor over cells, of each side, shape (m, sides)."""
    gap, variance = sums.reshape(sums.shape[0], -1, 2, n_cells).transpose(2, 0, 1, 3)
    floor = np.sqrt(2.0 / np.pi * np.maximum(variance, 0.0))
    return np.asarray((np.abs(gap) - floor).sum(axis=2))


def _not_worse(name: str, observed: Array, drawn: Array) -> tuple[bool, str]:
    """Whether an error is not significantly worse, in a sentence; columns are the sides."""
    before, after = observed[0, 0], observed[0, 1:].mean()
    change_drawn = drawn[:, 1:].mean(axis=1) - drawn[:, 0]
    spread = float(np.quantile(change_drawn, 0.95) - change_drawn.mean())
    passed = bool(after - before - spread <= 0.0)
    return passed, (
        f"{name} {_signed(before)} → {_signed(after)}, "
        f"{'not significantly worse' if passed else 'significantly worse'}"
    )


def _mean_scores(scores: list[AdmissionScores]) -> AdmissionScores:
    names = [field.name for field in fields(AdmissionScores) if field.name != "n"]
    means = {name: float(np.mean([getattr(s, name) for s in scores])) for name in names}
    return AdmissionScores(n=scores[0].n, **means)


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
