"""The input stage of a calibrator: zeros that the data gave, and scores on wild scales.

**Zero cells.** k-nearest neighbours, forests and rounding give probabilities of 0 that are no
proof: labels do fall there. With m the probability that the label is in a zero cell, the likelihood
of a row factorises into "in which kind of cell is the label" and "in which cell of that kind":

    p′_c = (1 − m)·q_c                 on the positive cells, q calibrated as if zeros were masked
    p′_c = m·π_c / Σ_{zero cells} π    on the zero cells, π the class frequencies

So the map of q is fitted on the rows whose label is in a positive cell, and m and π are counts. m
depends on how many positive cells a row has (neighbours that all agree are wrong less often):

    m_0 = (labels in zero cells + ½) / (rows with zero cells + 1)
    m_j = (labels in zero cells + 10·m_0) / (rows + 10)      of the rows with j positive cells

m never exceeds what leaves the prediction the largest probability. With two classes there is no
such stage: a zero is then the end of the line of logit differences, whose order must stay.

**Wild scales.** Joint log-likelihoods of naive Bayes reach −1e10, and one such cell outweighs all
others in a linear stage. With g the 99th percentile of the logit gaps, at most twice the 90th and
20 times the median, a set is wild if a distance from a row's top exceeds 30·g. Then all distances
are cut at 3·g, or at the half, quarter, … of it: the largest cut at which one temperature has a
likelihood within 0.001 nats of the best. Finite stand-ins for a mask, such as −1e9, leave the cut
far out; of naive Bayes much less is worth keeping. With two classes only methods with a linear
stage cut, for the same reason as above.

**Masks.** Minus infinity masks a class. Where a model writes another number for that, the caller
says so: logits at or below `mask_below` are masked, and so are zero cells with `zeros="mask"`.
This is never learnt from the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.calibration_set import CalibrationSet
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, fill_masks, wild_bound
from trueprob.arrays.logits import ZERO_CELL
from trueprob.calibrators.parameters import number, numbers, require_keys
from trueprob.errors import InvalidDocument, InvalidInput

__all__ = ["ZEROS", "InputStage", "ZeroCells", "fit_input_stage", "mask_stage"]

ZEROS: Final = ("learn", "mask")  # what a probability of 0 means: see above

COUNTS: Final = 5  # m is told apart for 1, 2, 3, 4 and more positive cells
PSEUDO_ROWS: Final = 10.0  # of the overall m in the m of one count
HALF: Final = 0.5  # pseudo-rows of each outcome, and of each class (Krichevsky–Trofimov)
LOG_PROBABILITIES: Final = 0.01  # largest error of Σ exp z in a row that came from probabilities
HALVINGS: Final = 9  # of the largest cut
CUT_TOLERANCE: Final = 1e-3  # nats of the mean NLL
ELEMENTS: Final = 40_000  # logits that the cut is chosen on
INVERSE_TEMPERATURES: Final = np.geomspace(1e-2, 1e2, 41)  # times one over the cut
BELOW_CAP: Final = 1.0 - 1e-6  # of the largest m that keeps the prediction

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ZeroCells:
    """The probability of labels in zero cells, and its division among them."""

    mass: tuple[float, ...]  # m of rows with 1, 2, … positive cells; the last also for more
    frequencies: tuple[float, ...]  # π of each class, positive

    @cached_property
    def _arrays(self) -> tuple[Array, Array]:
        return np.array(self.mass), np.array(self.frequencies)

    def spread(
        self,
        probabilities: Probabilities,  # (n, k) of the positive cells, 0 elsewhere; overwritten
        prediction: Labels,  # (n,)
        zero: NDArray[np.bool_],  # (n, k)
        positive: NDArray[np.bool_],  # (n, k): neither a zero cell nor masked
    ) -> None:
        """Move m of each row to its zero cells, in place; rows without any stay as they are."""
        mass, frequencies = self._arrays
        rows = np.flatnonzero(zero.any(axis=1))
        shares = zero[rows] * frequencies
        shares /= shares.sum(axis=1, keepdims=True)
        count = positive[rows].sum(axis=1)
        top = probabilities[rows, prediction[rows]].astype(np.float64)
        most = BELOW_CAP * top / (top + shares.max(axis=1))
        m = np.minimum(mass[np.minimum(count, mass.size) - 1], most)[:, None]
        probabilities[rows] = probabilities[rows] * (1.0 - m) + shares * m


@dataclass(frozen=True)
class InputStage:
    """What happens to rows before the calibrator proper, and to their zero cells after it."""

    zeros: ZeroCells | None = None
    clip: float | None = None  # nats below the top of a row; positive
    mask_below: float | None = None  # logits at or below it are masked
    zeros_are_masks: bool = False

    def parameters(self) -> dict[str, Any]:
        """Values as JSON values; those of masks only where they are set."""
        zeros = self.zeros
        masks = {"mask_below": self.mask_below, "zeros_are_masks": self.zeros_are_masks or None}
        return {
            "zeros": None
            if zeros is None
            else {"mass": list(zeros.mass), "class_frequencies": list(zeros.frequencies)},
            "clip": self.clip,
            **{name: value for name, value in masks.items() if value is not None},
        }

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: object) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        where = "calibrator input_stage"
        if not isinstance(parameters, Mapping):
            raise InvalidDocument(f"{where} must be an object")
        optional = {"mask_below", "zeros_are_masks"} & set(parameters)
        require_keys(parameters, {"zeros", "clip", *optional}, where=where)
        clip = mask_below = None
        if parameters["clip"] is not None:
            clip = number(parameters, "clip", where=where, above=0.0)
        if "mask_below" in optional:
            mask_below = number(parameters, "mask_below", where=where)
        zeros_are_masks = "zeros_are_masks" in optional
        if zeros_are_masks and parameters["zeros_are_masks"] is not True:
            raise InvalidDocument(f"{where}.zeros_are_masks must be true or left out")
        zeros = parameters["zeros"]
        cells = None if zeros is None else _zero_cells(n_classes, zeros, f"{where}.zeros")
        return cls(cells, clip, mask_below, zeros_are_masks)

    def sentences(self) -> list[str]:
        """What the stage does, for people."""
        found = []
        if self.zeros is not None:
            mass = ", ".join(f"{100 * m:.2g} %" for m in self.zeros.mass)
            counts = ", ".join(map(str, range(1, len(self.zeros.mass) + 1)))
            found.append(
                f"classes with a probability of 0 share {mass} of a row with {counts} or more "
                "other classes"
            )
        if self.clip is not None:
            found.append(f"scores more than {self.clip:.4g} nats below the top of a row are cut")
        if self.mask_below is not None:
            found.append(f"classes with a logit at or below {self.mask_below:g} are masked")
        if self.zeros_are_masks:
            found.append("classes with a probability of 0 are masked")
        return found

    @property
    def masks(self) -> InputStage | None:
        """The part that says what else than minus infinity is a mask; None if nothing is."""
        part = InputStage(mask_below=self.mask_below, zeros_are_masks=self.zeros_are_masks)
        return None if part == InputStage() else part

    def masked(self, logits: Logits) -> Logits:
        """Logits with minus infinity in all masked classes; InvalidInput if a row has no other."""
        if self.mask_below is None and not self.zeros_are_masks:
            return logits
        masked = np.isneginf(logits)
        if self.mask_below is not None:
            masked |= logits <= np.float32(self.mask_below)
        if self.zeros_are_masks:
            masked |= logits == ZERO_CELL
        if (none_left := masked.all(axis=1)).any():
            row = int(np.argmax(none_left))
            how = "" if self.mask_below is None else f" at or below mask_below, {self.mask_below:g}"
            raise InvalidInput(
                f"logits must leave a class in each row, in row {row} all are masked{how}",
                field="logits",
            )
        return np.where(masked, np.float32(-np.inf), logits)

    def masked_set(self, data: CalibrationSet) -> CalibrationSet:
        """The set with minus infinity in all masked classes; InvalidInput if a label is masked."""
        logits = self.masked(data.logits)
        if logits is data.logits:
            return data
        lost = np.isneginf(logits) & np.isfinite(data.logits)
        lost_labels = np.flatnonzero(lost[np.arange(data.n), data.labels])
        if lost_labels.size:
            row = int(lost_labels[0])
            raise InvalidInput(
                f"labels must be classes that are not masked: those of {lost_labels.size} of "
                f"{data.n} rows are, such as row {row} with the label {data.labels[row]} and the "
                f"logit {data.logits[row, data.labels[row]]:g}; is "
                + ("mask_below too high?" if self.mask_below is not None else "0 no mask here?"),
                field="labels",
            )
        return replace(data, logits=logits)

    def split(self, logits: Logits) -> tuple[Logits, NDArray[np.bool_] | None]:
        """Logits with −inf in masked and in zero cells, and where the zero cells are, if any."""
        zero = None
        if self.zeros is not None:
            zero = logits == ZERO_CELL
            zero &= ~(zero | np.isneginf(logits)).all(axis=1, keepdims=True)
            if zero.any():
                logits = np.where(zero, np.float32(-np.inf), logits)
            else:
                zero = None
        if self.clip is not None:
            logits = self.clipped(logits)
        return logits, zero

    def clipped(self, logits: Logits) -> Logits:
        """Logits minus the largest of their row, at least ``-clip``; masked classes stay masked."""
        if self.clip is None:
            return logits
        # Subtracted first: at −1e12 a float32 minus `clip` would be the same number.
        with np.errstate(over="ignore"):
            below = logits - logits.max(axis=1, keepdims=True)
        clipped: Logits = np.where(
            np.isneginf(logits), logits, np.maximum(below, np.float32(-self.clip))
        )
        return clipped


def mask_stage(
    mask_below: float | None = None,
    zeros: str = "learn",  # one of `ZEROS`
) -> InputStage | None:
    """The stage that only masks, as a caller asks for it; None if that is nothing.

    Raises InvalidInput for a threshold that is no finite float32, and for another text.
    """
    if zeros not in ZEROS:
        raise InvalidInput(
            f"zeros must be one of {', '.join(ZEROS)}, got {str(zeros)[:40]!r}", field="zeros"
        )
    if mask_below is not None:
        number_given = isinstance(mask_below, int | float | np.number)
        if isinstance(mask_below, bool) or not number_given:
            raise InvalidInput(
                f"mask_below must be a number, got {type(mask_below).__name__}", field="mask_below"
            )
        if not abs(mask_below) <= float(np.finfo(np.float32).max):
            raise InvalidInput(
                f"mask_below must be finite as float32, got {mask_below}: minus infinity masks "
                "without it",
                field="mask_below",
            )
        mask_below = float(mask_below)
    return InputStage(mask_below=mask_below, zeros_are_masks=zeros == "mask").masks


def fit_input_stage(
    data: CalibrationSet,
    *,
    cut: bool,  # whether a wild scale is to be cut
) -> tuple[InputStage | None, CalibrationSet]:
    """Learn the stage, and the rows to fit the calibrator proper on, as it will see them.

    Left out are rows whose label is in a zero cell and rows with one class that is neither masked
    nor zero: the calibrator proper has nothing to say about them.
    """
    zero = _zeros_of(data.logits)
    zeros = _count(zero, data) if zero.any() else None
    inner = np.where(zero, np.float32(-np.inf), data.logits)
    allowed = np.isfinite(inner)
    used = allowed[np.arange(data.n), data.labels] & (allowed.sum(axis=1) > 1)
    if data.weights is not None:
        used &= data.weights > 0.0
    largest = wild_bound(inner[used]) if cut and used.any() else None
    clip = None if largest is None else _cut(inner[used], data.subset(used), largest)
    stage = InputStage(zeros, clip)
    inner = stage.clipped(inner)
    found = stage if stage != InputStage() else None
    if not used.any():
        # Every row is certain: there is nothing to fit, but a calibrator must come out.
        return found, replace(data, logits=fill_masks(inner, ~allowed, -float(ZERO_CELL)))
    return found, replace(data.subset(used), logits=inner[used])


def _cut(logits: Logits, data: CalibrationSet, largest: float) -> float:
    """The largest of some cuts at which one temperature fits nearly as well as at any of them."""
    step = -(-logits.size // ELEMENTS)
    logits, labels = logits[::step], data.labels[::step]
    weights = None if data.weights is None else data.weights[::step]
    cuts = largest * 0.5 ** np.arange(HALVINGS)
    best = np.array([_least_nll(logits, labels, weights, cut) for cut in cuts])
    return float(cuts[np.argmax(best <= best.min() + CUT_TOLERANCE)])


def _least_nll(logits: Logits, labels: Labels, weights: Array | None, cut: float) -> float:
    below = logits.astype(np.float64)
    below -= below.max(axis=1, keepdims=True)
    masked = np.isneginf(below)
    np.maximum(below, -cut, out=below)
    below[masked] = -np.inf
    chosen = below[np.arange(labels.size), labels]
    losses = []
    with np.errstate(under="ignore"):
        for scale in INVERSE_TEMPERATURES:
            beta = scale / cut
            loss = np.log(np.exp(beta * below).sum(axis=1)) - beta * chosen
            losses.append(np.average(loss, weights=weights))
    return float(min(losses))


def _zeros_of(logits: Logits) -> NDArray[np.bool_]:
    """The zero cells of rows that sum to one; in others a logit may equal log 1e-12 by chance."""
    zero: NDArray[np.bool_] = logits == ZERO_CELL
    if logits.shape[1] == 2:
        return np.zeros_like(zero)
    rows = np.flatnonzero(zero.any(axis=1))
    with np.errstate(over="ignore", under="ignore"):
        total = np.exp(logits[rows].astype(np.float64)).sum(axis=1)
    zero[rows[np.abs(total - 1.0) > LOG_PROBABILITIES]] = False
    return zero


def _count(zero: NDArray[np.bool_], data: CalibrationSet) -> ZeroCells:
    n, k = zero.shape
    weights = np.ones(n) if data.weights is None else data.weights * (n / data.weights.sum())
    missed = weights * zero[np.arange(n), data.labels]
    with_zeros = weights * zero.any(axis=1)
    overall = (missed.sum() + HALF) / (with_zeros.sum() + 2.0 * HALF)
    count = np.minimum((~zero & np.isfinite(data.logits)).sum(axis=1), COUNTS) - 1
    rows, labels = (np.bincount(count, values, COUNTS) for values in (with_zeros, missed))
    mass = (labels + PSEUDO_ROWS * overall) / (rows + PSEUDO_ROWS)
    frequencies = np.bincount(data.labels, weights, k) + HALF
    return ZeroCells(
        tuple(map(float, mass)), tuple(map(float, frequencies / math.fsum(frequencies)))
    )


def _zero_cells(n_classes: int, parameters: object, where: str) -> ZeroCells:
    if not isinstance(parameters, Mapping):
        raise InvalidDocument(f"{where} must be null or an object")
    require_keys(parameters, ("mass", "class_frequencies"), where=where)
    mass = numbers(parameters, "mass", where=where)
    frequencies = numbers(parameters, "class_frequencies", where=where)
    if not mass or any(not 0.0 < m < 1.0 for m in mass):
        raise InvalidDocument(f"{where}.mass must be numbers between 0 and 1, both excluded")
    if len(frequencies) != n_classes or any(share <= 0.0 for share in frequencies):
        raise InvalidDocument(f"{where}.class_frequencies must be {n_classes} positive numbers")
    return ZeroCells(mass, frequencies)
