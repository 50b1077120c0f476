"""Verdict: the three conditions of admission, tested on two sides of a comparison.

A paired bootstrap over rows, or groups where given, tests that

1. mean NLL improves: the one-sided 90 % upper bound of (candidate − incumbent) is below 0;
2. accuracy is kept: exactly for methods that keep the prediction, otherwise its difference is
   not below 0 at one-sided 95 %;
3. debiased ECE, ECE − noise floor, is not significantly worse: the one-sided 95 % lower bound of
   its difference is not above 0. Resampling adds noise that raises any ECE, so the bound is the
   observed difference minus (95 % quantile − mean) of the resampled one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Probabilities
from trueprob.scores.binned import N_BINS, bin_index
from trueprob.scores.interval import resampled_sums
from trueprob.scores.score import SMALLEST, Scores, score

__all__ = ["Side", "Verdict", "judge", "side_of"]

Array = NDArray[np.float64]


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
    scores: dict[str, Scores | None]
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
    """Scores of a calibrator on the compared rows, and columns to be summed over rows."""

    scores: Scores
    nll: Array  # (n,), times the row's weight
    correct: Array  # (n,), times the row's weight
    bins: Array  # (n, 30), signed error and variance, each in the column of the row's bin


def side_of(probabilities: Probabilities, predicted: Labels, data: CalibrationSet) -> Side:
    """The side of a calibrator with these probabilities and predictions."""
    rows = np.arange(data.n)
    scores = score(probabilities, data.labels, prediction=predicted, weights=data.weights)
    weight = np.ones(data.n) if data.weights is None else data.weights
    chosen = probabilities[rows, data.labels].astype(np.float64)
    confidence = np.minimum(probabilities[rows, predicted].astype(np.float64), 1.0)
    correct = (predicted == data.labels).astype(np.float64)
    index = bin_index(confidence)
    bins = np.zeros((data.n, 2 * N_BINS))
    bins[rows, index] = weight * (confidence - correct)
    bins[rows, N_BINS + index] = np.square(weight) * confidence * (1.0 - confidence)
    return Side(scores, -weight * np.log(np.maximum(chosen, SMALLEST)), weight * correct, bins)


def judge(
    incumbent: Side,
    candidates: list[Side],
    data: CalibrationSet,
    unit: NDArray[np.int64],
    seed: int,
    *,
    exact: bool,  # whether the method keeps the prediction
) -> Verdict:
    """Test the three conditions; several divisions into folds are averaged per row."""
    weight = np.ones(data.n) if data.weights is None else data.weights
    count = len(candidates)
    columns = np.column_stack(
        [
            weight,
            sum(side.nll for side in candidates) / count - incumbent.nll,
            sum(side.correct for side in candidates) / count - incumbent.correct,
            incumbent.bins,
            *(side.bins for side in candidates),
        ]
    )
    drawn = resampled_sums(columns, unit, seed=seed)
    drawn = drawn[drawn[:, 0] > 0]  # weights of zero can make a resample empty
    observed = columns.sum(axis=0, keepdims=True)

    nll = drawn[:, 1] / drawn[:, 0]
    low, high = np.quantile(nll, [0.1, 0.9])
    accuracy = drawn[:, 2] / drawn[:, 0]
    accuracy_change = float(observed[0, 2] / observed[0, 0])
    ece, ece_drawn = _debiased(observed), _debiased(drawn)
    change = ece[:, 1] - ece[:, 0]
    change_drawn = ece_drawn[:, 1] - ece_drawn[:, 0]
    spread = float(np.quantile(change_drawn, 0.95) - change_drawn.mean())

    scores = _mean_scores([side.scores for side in candidates])
    before, after = incumbent.scores, scores
    improves = bool(high < 0.0)
    keeps_accuracy = accuracy_change >= 0.0 if exact else bool(np.quantile(accuracy, 0.95) >= 0.0)
    keeps_ece = bool(change[0] - spread <= 0.0)
    numbers = (
        f"NLL {before.nll:.3f} → {after.nll:.3f} nats, 80 % interval of the difference "
        f"{_signed(low)} to {_signed(high)}, on {data.n} rows"
    )
    reasons = [numbers if improves else f"no evidence of improvement: {numbers}"]
    reasons.append(
        f"accuracy {before.accuracy:.3f} → {after.accuracy:.3f}, "
        f"{'kept' if keeps_accuracy else 'worse'}"
    )
    reasons.append(
        f"debiased ECE {_signed(ece[0, 0])} → {_signed(ece[0, 1])}, "
        f"{'not significantly worse' if keeps_ece else 'significantly worse'}"
    )
    passed = [improves, keeps_accuracy, keeps_ece]
    ordered = sorted(range(3), key=lambda i: (passed[i], i))  # failed conditions come first
    return Verdict(
        admitted=all(passed),
        reasons=tuple(reasons[i] for i in ordered),
        scores={"incumbent": before, "candidate": after},
        n_compared=data.n,
    )


def _debiased(sums: Array) -> Array:
    """ECE − floor of the incumbent and the candidate (mean over divisions), shape (m, 2)."""
    total = sums[:, 0]
    bins = sums[:, 3:].reshape(sums.shape[0], -1, 2, N_BINS)
    ece = np.abs(bins[:, :, 0]).sum(axis=2)
    floor = np.sqrt(2.0 / np.pi * np.maximum(bins[:, :, 1], 0.0)).sum(axis=2)
    value = (ece - floor) / total[:, None]
    return np.column_stack([value[:, 0], value[:, 1:].mean(axis=1)])


def _mean_scores(scores: list[Scores]) -> Scores:
    names = [field.name for field in fields(Scores) if field.name != "n"]
    means = {name: float(np.mean([getattr(s, name) for s in scores])) for name in names}
    return Scores(n=scores[0].n, **means)


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")
