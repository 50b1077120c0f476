r"""Interval of the calibration error that holds at all times, however often it is read.

With p the confidence of a prediction, y = 1 if it was right (else 0) and q = P(right | past), the
error over n labels is

    error = Σ_b |Σ_{i ∈ b} (q_i − p_i)| / n,

the average gap of the live stream, which may drift. The cells b are five ranges of confidence; with
two classes, those of each prediction by itself, so that P(class 1) is judged. With
S_b = Σ_{i ∈ b} (y − p), V = Σ (y − p)², ψ(λ) = −log(1 − λ) − λ, and λ_j = 0.8·2^−j with weights
w_j = 1/10 (j = 0 … 9):

    high = ( Σ_b |S_b| + rad ) / n,   rad = min_j [ log(2/(α w_j)) + B·log 2 + ψ(λ_j) V ] / λ_j
    E(τ) = Σ_j w_j exp(−λ_j τ n − ψ(λ_j) V) Π_b cosh(λ_j S_b)
    low  = the largest τ with E(τ) ≥ 1/(sα), 0 if there is none.

**Guarantee.** P(the error is ever outside [low, high]) ≤ α/2 + sα ≤ α. For ξ ≥ −1,
exp(λξ − ψ(λ)ξ²) ≤ 1 + λξ, so for each pattern ε of signs exp(Σ_i λ(ξ_i − E ξ_i) − ψ(λ)ξ_i²) with
ξ = Σ_b ε_b (y − p) is a supermartingale. A union over the 2^B patterns of B cells gives `high`;
their mean is the product of cosh, which gives `low`. No other assumption is made; what breaks the
guarantee of `CalibrationBets` breaks this one.

**One story with the alarm.** `joined_log10` adds E(t), at the tolerance t, to the wealth W of
`Evidence` as (1 − s)·W + s·E(t). The sum is again a test of the same null hypothesis with the same
threshold 1/α, and low > t implies that it has reached the threshold.

**Classes.** The same holds with the predicted classes as cells: the class error Σ_c |Σ (q − p)| / n
sees what cancels between classes. And it holds for the rows of one class alone, with one cell, at
α / k for each of k classes.

Rows of one group make one unit: they add the mean of their y − p to S, the mean of their squares to
V, and 1 to n. Rows of a group that was counted before add nothing.

References
----------
Fan, Grama and Liu, "Exponential inequalities for martingales with applications", Electronic Journal
of Probability 20 (2015), arXiv:1311.6273, lemma 4.1; Howard, Ramdas, McAuliffe and Sekhon,
"Time-uniform, nonparametric, nonasymptotic confidence sequences", Annals of Statistics 49 (2021),
arXiv:1810.08240 (ψ_E and mixtures over λ).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.drift.calibration_bets import N_RANGES, RANGE_CUTS, checked_classes
from trueprob.drift.counting_order import CountingOrder
from trueprob.errors import InvalidDocument, InvalidInput
from trueprob.scores.confidence import checked_rows

__all__ = ["ClassError", "ErrorInterval", "ErrorSums", "SumsByClass"]

Array = NDArray[np.float64]

LAMBDAS: Final = 0.8 * 2.0 ** -np.arange(10.0)
LOG_WEIGHT: Final = -math.log(LAMBDAS.size)
PSI: Final = -np.log1p(-LAMBDAS) - LAMBDAS
SHARE: Final = 0.2  # s: weight of the interval in the joined evidence, at most ½
STEPS: Final = 60  # of bisections
MOST_LABELS: Final = 10_000_000  # a forecast beyond says nothing
FORECASTS: Final = 65  # numbers of labels that are tried at once
FORMAT: Final = 1


@dataclass(frozen=True)
class ErrorSums:
    """Sums over counted labels; two of them are combined with ``+``.

    Attributes
    ----------
    n : int
        Units: rows, or groups of rows.
    gaps : tuple of float
        Σ (y − p) in each cell; empty without labels.
    squares : float
        Σ (y − p)².
    classes : SumsByClass or None
        None without labels, or if predictions were not given.
    """

    n: int = 0
    gaps: tuple[float, ...] = ()
    squares: float = 0.0
    classes: SumsByClass | None = None

    @classmethod
    def of(
        cls,
        confidence: ArrayLike,
        correct: ArrayLike,
        *,
        prediction: ArrayLike | None = None,
        n_classes: int | None = None,
        groups: ArrayLike | None = None,
        repeated: ArrayLike | None = None,
    ) -> ErrorSums:
        """Sums of the labels of one request.

        Parameters
        ----------
        confidence : array_like of shape (n,)
            Calibrated probability of the prediction, as it was answered.
        correct : array_like of shape (n,)
            Whether the prediction was right (bool, or 0 and 1).
        prediction, n_classes
            As in `CalibrationBets.factors`; without them classes are not told apart.
        groups, repeated
            As in `CalibrationBets.factors`.

        Raises
        ------
        InvalidInput
            Shapes differ, there are no rows, or a number lies outside its range.
        """
        p, y, _ = checked_rows(confidence, correct, None)
        counted = CountingOrder.of(p.shape[0], groups=groups, repeated=repeated)
        p, y = p[counted.rows], y[counted.rows]
        gap = y - p
        cells, n_cells = np.searchsorted(RANGE_CUTS, p, side="left"), N_RANGES
        predicted = None
        if prediction is not None:
            predicted = checked_classes(prediction, n_classes, confidence)[counted.rows]
            if n_classes == 2:
                cells, n_cells = 2 * cells + predicted, 2 * N_RANGES
        if counted.starts.shape[0] < counted.rows.shape[0]:  # a row of m counts 1/m
            sizes = np.diff(counted.starts, append=counted.rows.shape[0])
            share = np.repeat(1.0 / sizes, sizes)
        else:
            share = np.ones(gap.shape[0])
        n = int(counted.starts.shape[0])
        if n == 0:
            return cls()
        sums = np.bincount(cells, weights=share * gap, minlength=n_cells)
        classes = None
        if predicted is not None:
            ids, position = np.unique(predicted, return_inverse=True)
            columns = [np.bincount(position, weights=share * x) for x in (1.0, p, y, gap * gap)]
            classes = SumsByClass.of_arrays(int(n_classes or 0), ids, np.stack(columns, axis=1))
        return cls(n, tuple(sums.tolist()), float(share @ (gap * gap)), classes)

    def __add__(self, other: ErrorSums) -> ErrorSums:
        if not isinstance(other, ErrorSums):
            return NotImplemented
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        if len(self.gaps) != len(other.gaps) or (self.classes is None) != (other.classes is None):
            raise InvalidInput(
                "sums with predictions and without cannot be added", field="prediction"
            )
        gaps = tuple(a + b for a, b in zip(self.gaps, other.gaps, strict=True))
        classes = None
        if self.classes is not None and other.classes is not None:
            classes = self.classes + other.classes
        return ErrorSums(self.n + other.n, gaps, self.squares + other.squares, classes)

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain JSON, for `from_dict`; floats are kept bit for bit."""
        return {
            "format": FORMAT,
            "n": self.n,
            "gaps": list(self.gaps),
            "squares": self.squares,
            **({} if self.classes is None else {"classes": self.classes.to_dict()}),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ErrorSums:
        """Read what `to_dict` wrote.

        Raises
        ------
        InvalidDocument
            The document does not hold such sums.
        """
        if document.get("format") != FORMAT:
            raise InvalidDocument(f"format must be {FORMAT}, got {document.get('format')!r}")
        try:
            gaps = tuple(float(gap) for gap in document["gaps"])
            classes = document.get("classes")
            of_classes = None if classes is None else SumsByClass.from_dict(classes)
            sums = cls(int(document["n"]), gaps, float(document["squares"]), of_classes)
        except (KeyError, TypeError, ValueError):
            raise InvalidDocument("sums must hold n, gaps and squares") from None
        n_cells = 0 if sums.n == 0 else N_RANGES * (len(gaps) // N_RANGES)
        if len(gaps) != n_cells or sums.n < 0 or not math.isfinite(sums.squares + sum(gaps)):
            raise InvalidDocument(f"gaps must be {N_RANGES} finite numbers, or twice as many")
        return sums


@dataclass(frozen=True)
class SumsByClass:
    """Sums over the labels of each predicted class; two of them are combined with ``+``.

    Attributes
    ----------
    n_classes : int
    ids : bytes
        The classes that were predicted, ascending, as little-endian int32.
    numbers : bytes
        For each of them n, Σp, Σy and Σ(y − p)², as little-endian float64.
    """

    n_classes: int
    ids: bytes
    numbers: bytes

    @classmethod
    def of_arrays(cls, n_classes: int, ids: NDArray[np.int64], numbers: Array) -> SumsByClass:
        """From classes of shape (m,) and their sums of shape (m, 4)."""
        return cls(n_classes, ids.astype("<i4").tobytes(), numbers.astype("<f8").tobytes())

    def arrays(self) -> tuple[NDArray[np.int64], Array]:
        """Classes of shape (m,), and their sums of shape (m, 4)."""
        ids = np.frombuffer(self.ids, "<i4").astype(np.int64)
        return ids, np.frombuffer(self.numbers, "<f8").reshape(len(ids), 4)

    def __add__(self, other: SumsByClass) -> SumsByClass:
        if not isinstance(other, SumsByClass):
            return NotImplemented
        if self.n_classes != other.n_classes:
            raise InvalidInput(
                f"n_classes must be {self.n_classes} as before, got {other.n_classes}",
                field="n_classes",
            )
        (mine, a), (theirs, b) = self.arrays(), other.arrays()
        ids = np.union1d(mine, theirs)
        numbers = np.zeros((len(ids), 4))
        numbers[np.searchsorted(ids, mine)] += a
        numbers[np.searchsorted(ids, theirs)] += b
        return SumsByClass.of_arrays(self.n_classes, ids, numbers)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON, for `from_dict`."""
        return {
            "n_classes": self.n_classes,
            "ids": base64.b64encode(self.ids).decode(),
            "numbers": base64.b64encode(self.numbers).decode(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> SumsByClass:
        """Read what `to_dict` wrote; `InvalidDocument` if it is something else."""
        try:
            ids, numbers = (
                base64.b64decode(document[name], validate=True) for name in ("ids", "numbers")
            )
            sums = cls(int(document["n_classes"]), ids, numbers)
        except (KeyError, TypeError, ValueError):
            raise InvalidDocument("classes must hold n_classes, ids and numbers") from None
        if len(ids) % 4 or len(numbers) != 8 * len(ids):
            raise InvalidDocument("classes must hold four numbers for each class")
        return sums


class ClassError(NamedTuple):
    """The predictions of one class, and how far they are off."""

    class_index: int
    n: float  # units
    confidence: float  # mean
    frequency: float  # share of right ones
    low: float  # interval of |frequency − confidence| that holds for all classes at all times
    high: float


@dataclass(frozen=True)
class ErrorInterval:
    """Interval of the calibration error, from `ErrorSums`.

    Attributes
    ----------
    alpha : float
        In (0, 1): upper bound of the probability that the interval ever misses the error.
    """

    alpha: float = 0.01

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise InvalidInput(f"alpha must lie between 0 and 1, got {self.alpha}", field="alpha")

    def bounds(self, sums: ErrorSums) -> tuple[float, float]:
        """Lower and upper bound of the error, as fractions; (0, 1) without labels."""
        return self.bounds_of_each([sums])[0]

    def bounds_of_each(self, streams: Sequence[ErrorSums]) -> list[tuple[float, float]]:
        """`bounds` of each of many streams, in much less time than one after another."""
        return self._bounds([(s, np.array(s.gaps), len(s.gaps)) for s in streams])

    def class_bounds(self, sums: ErrorSums) -> tuple[float, float]:
        """As `bounds`, for the class error; (0, 1) without classes."""
        return self.class_bounds_of_each([sums])[0]

    def class_bounds_of_each(self, streams: Sequence[ErrorSums]) -> list[tuple[float, float]]:
        """`class_bounds` of each of many streams."""
        cells: list[tuple[ErrorSums, Array, int]] = []
        for sums in streams:
            if sums.classes is None:
                cells.append((ErrorSums(), np.zeros(0), 0))
            else:
                numbers = sums.classes.arrays()[1]
                cells.append((sums, numbers[:, 2] - numbers[:, 1], sums.classes.n_classes))
        return self._bounds(cells)

    def _bounds(self, cells: list[tuple[ErrorSums, Array, int]]) -> list[tuple[float, float]]:
        """Bounds from each stream's sums, gaps in its cells with labels, and number of cells."""
        known = [(sums, gaps, n_cells) for sums, gaps, n_cells in cells if sums.n]
        if not known:
            return [(0.0, 1.0)] * len(cells)
        gaps = np.concatenate([each for _, each, _ in known])
        starts = np.cumsum([0, *(len(each) for _, each, _ in known[:-1])])
        n = np.array([float(sums.n) for sums, _, _ in known])
        squares = np.array([sums.squares for sums, _, _ in known])
        n_cells = np.array([float(each) for _, _, each in known])
        observed = np.add.reduceat(np.abs(gaps), starts)
        radii = _radii(squares, n_cells=n_cells, alpha=self.alpha)
        high = np.minimum((observed + radii) / n, 1.0)
        cosh = np.add.reduceat(_log_cosh(gaps), starts, axis=1)
        low = _largest_proven(cosh, squares, n, observed / n, -math.log(SHARE * self.alpha))
        found = iter(zip(low.tolist(), high.tolist(), strict=True))
        return [next(found) if sums.n else (0.0, 1.0) for sums, _, _ in cells]

    def of_classes(self, sums: ErrorSums) -> list[ClassError]:
        """The predicted classes, the worst first."""
        if sums.classes is None:
            return []
        alpha = self.alpha / sums.classes.n_classes
        ids, numbers = sums.classes.arrays()
        n, confidence, right, squares = numbers.T
        gaps = right - confidence
        threshold = -math.log(SHARE * alpha)
        high = np.minimum((np.abs(gaps) + _radii(squares, n_cells=1, alpha=alpha)) / n, 1.0)
        low = _largest_proven(_log_cosh(gaps), squares, n, np.abs(gaps) / n, threshold)
        columns = (ids, n, confidence / n, right / n, low, high)
        found = [ClassError(*row) for row in zip(*(x.tolist() for x in columns), strict=True)]
        return sorted(found, key=_severity, reverse=True)

    def classes_off(self, sums: ErrorSums, tolerance: float) -> int:
        """How many predicted classes are proven to be off by more than the tolerance."""
        return self.classes_off_of_each([sums], tolerance)[0]

    def classes_off_of_each(self, streams: Sequence[ErrorSums], tolerance: float) -> list[int]:
        """`classes_off` of each of many streams."""
        off = [0] * len(streams)
        known = [(i, s.classes) for i, s in enumerate(streams) if s.classes is not None]
        if not known:
            return off
        rows = [classes.arrays()[1] for _, classes in known]
        n, confidence, right, squares = np.concatenate(rows).T
        cosh = _log_cosh(right - confidence)
        evidence = _evidence(cosh, squares, n, tolerance)
        sizes = [len(each) for each in rows]
        thresholds = [-math.log(SHARE * self.alpha / classes.n_classes) for _, classes in known]
        proven = evidence > np.repeat(thresholds, sizes)
        counts = np.add.reduceat(proven.astype(np.int64), np.cumsum([0, *sizes[:-1]]))
        for (index, _), count in zip(known, counts.tolist(), strict=True):
            off[index] = count
        return off

    def log_evidence(self, sums: ErrorSums, tolerance: float) -> float:
        """Natural logarithm of E(τ): evidence that the error is above the tolerance τ."""
        return _log_evidence(np.array(sums.gaps), sums.squares, sums.n, tolerance)

    def joined_log10(self, wealth_log10: float, sums: ErrorSums, tolerance: float) -> float:
        """log10 of (1 − s)·W + s·E(t), for the wealth W of `Evidence` on the same labels."""
        wealth = wealth_log10 * math.log(10.0) + math.log1p(-SHARE)
        interval = self.log_evidence(sums, tolerance) + math.log(SHARE)
        return float(np.logaddexp(wealth, interval)) / math.log(10.0)

    def labels_needed(self, sums: ErrorSums, tolerance: float) -> int | None:
        """About how many more labels show whether the error is below the tolerance.

        From the spread and the error so far, on labels like these; None if that cannot be said.
        """
        return self.labels_needed_of_each([sums], tolerance)[0]

    def labels_needed_of_each(
        self, streams: Sequence[ErrorSums], tolerance: float
    ) -> list[int | None]:
        """`labels_needed` of each of many streams."""
        known = [sums for sums in streams if sums.n]
        if not known:
            return [None] * len(streams)
        counted, squares, observed, n_cells = np.array(
            [(s.n, s.squares, math.fsum(map(abs, s.gaps)), len(s.gaps)) for s in known]
        ).reshape(-1, 4).T  # fmt: skip
        spread = squares / counted
        noise = np.sqrt(2.0 / math.pi * n_cells * spread)  # of Σ|S_b|, a unit at n = 1
        excess = np.maximum(observed / counted - noise / np.sqrt(counted), 0.0)
        margin = np.abs(tolerance - excess)
        too_few, enough = counted, np.maximum(MOST_LABELS, counted + 1.0)
        decides, column = np.ones((1, len(known)), np.bool_), np.arange(len(known))
        for spaced in (np.geomspace, np.linspace):  # the second between two points of the first
            n = spaced(too_few, enough, FORECASTS)
            radius = _radii(spread * n, n_cells=n_cells, alpha=self.alpha)
            decides = decides[-1] & (radius / n + noise / np.sqrt(n) <= margin)
            first = decides.argmax(axis=0)
            too_few, enough = n[np.maximum(first - 1, 0), column], n[first, column]
        more = np.maximum(np.ceil(enough) - counted, 1.0)
        found = iter(zip(decides[-1].tolist(), more.tolist(), strict=True))
        needed: list[int | None] = []
        for sums in streams:
            decided, labels = next(found) if sums.n else (False, 0.0)
            needed.append(int(labels) if decided else None)
        return needed


def _largest_proven(
    cosh: Array, squares: Array, n: Array, observed: Array, threshold: float
) -> Array:
    """For each stream the largest τ with log E(τ) at the threshold, 0 if there is none."""
    low = np.zeros(len(n))
    proven = np.flatnonzero(_evidence(cosh, squares, n, 0.0) >= threshold)
    if not proven.size:
        return low
    cosh, squares, n = cosh[:, proven], squares[proven], n[proven]
    # E(τ) falls with τ; at the observed error it is below 1.
    below, above = np.zeros(len(n)), observed[proven]
    for _ in range(STEPS):
        middle = 0.5 * (below + above)
        reached = _evidence(cosh, squares, n, middle) >= threshold
        below, above = np.where(reached, middle, below), np.where(reached, above, middle)
    low[proven] = below
    return low


def _radii(squares: Array, *, n_cells: Array | int, alpha: float) -> Array:
    """The radius for each of several sums of squares."""
    log_patterns = math.log(2.0 / alpha) - LOG_WEIGHT + n_cells * math.log(2.0)
    radii = np.full(squares.shape, math.inf)
    for psi, size in zip(PSI.tolist(), LAMBDAS.tolist(), strict=True):
        np.minimum(radii, (log_patterns + psi * squares) / size, out=radii)
    return radii


def _log_evidence(gaps: Array, squares: float, n: float, tolerance: float) -> float:
    logs = _log_cosh(gaps).sum(axis=1) - LAMBDAS * tolerance * n - PSI * squares
    return float(np.logaddexp.reduce(logs)) + LOG_WEIGHT


def _evidence(cosh: Array, squares: Array, n: Array, tolerance: Array | float) -> Array:
    """`_log_evidence` of m streams, from Σ log cosh(λS) of shape (n_lambdas, m)."""
    column = LAMBDAS[:, np.newaxis]
    logs = cosh - column * tolerance * n - np.outer(PSI, squares)
    evidence: Array = np.logaddexp.reduce(logs) + LOG_WEIGHT
    return evidence


def _log_cosh(gaps: Array) -> Array:
    """The logarithm of cosh(λS), without overflow: (m,) → (n_lambdas, m)."""
    size = np.abs(np.outer(LAMBDAS, gaps))
    logs: Array = size + np.log1p(np.exp(-2.0 * size)) - math.log(2.0)
    return logs


def _severity(error: ClassError) -> tuple[float, float]:
    """What is proven first; of what is not, the gap in standard errors."""
    spread = math.sqrt(max(error.frequency * (1.0 - error.frequency), 1.0 / error.n) / error.n)
    return error.low, abs(error.frequency - error.confidence) / spread
