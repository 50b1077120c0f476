r"""Interval of the calibration error that holds at all times, however often it is read.

With p the confidence of a prediction, y = 1 if it was right (else 0) and q = P(right | past), the
error over n labels is

    error = Σ_b |Σ_{i ∈ b} (q_i − p_i)| / n,     b: five ranges of confidence,

the average gap of the live stream, which may drift. With S_b = Σ_{i ∈ b} (y − p),
V = Σ (y − p)², ψ(λ) = −log(1 − λ) − λ, and λ_j = 0.8·2^−j with weights w_j = 1/10 (j = 0 … 9):

    high = ( Σ_b |S_b| + rad ) / n,   rad = min_j [ log(2/(α w_j)) + 5·log 2 + ψ(λ_j) V ] / λ_j
    E(τ) = Σ_j w_j exp(−λ_j τ n − ψ(λ_j) V) Π_b cosh(λ_j S_b)
    low  = the largest τ with E(τ) ≥ 1/(sα), 0 if there is none.

**Guarantee.** P(the error is ever outside [low, high]) ≤ α/2 + sα ≤ α. For ξ ≥ −1,
exp(λξ − ψ(λ)ξ²) ≤ 1 + λξ, so for each pattern ε of signs exp(Σ_i λ(ξ_i − E ξ_i) − ψ(λ)ξ_i²) with
ξ = Σ_b ε_b (y − p) is a supermartingale. A union over the 2⁵ patterns gives `high`; their mean is
the product of cosh, which gives `low`. No other assumption is made; what breaks the guarantee of
`CalibrationBets` breaks this one.

**One story with the alarm.** `joined_log10` adds E(t), at the tolerance t, to the wealth W of
`Evidence` as (1 − s)·W + s·E(t). The sum is again a test of the same null hypothesis with the same
threshold 1/α, and low > t implies that it has reached the threshold.

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

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.drift.calibration_bets import N_RANGES, RANGE_CUTS
from trueprob.drift.counting_order import CountingOrder
from trueprob.errors import InvalidDocument, InvalidInput
from trueprob.scores.confidence import checked_rows

__all__ = ["ErrorInterval", "ErrorSums"]

Array = NDArray[np.float64]

LAMBDAS: Final = 0.8 * 2.0 ** -np.arange(10.0)
LOG_WEIGHT: Final = -math.log(LAMBDAS.size)
PSI: Final = -np.log1p(-LAMBDAS) - LAMBDAS
SHARE: Final = 0.2  # s: weight of the interval in the joined evidence, at most ½
STEPS: Final = 60  # of bisections
MOST_LABELS: Final = 10_000_000  # a forecast beyond says nothing
FORMAT: Final = 1


@dataclass(frozen=True)
class ErrorSums:
    """Sums over counted labels; two of them are combined with ``+``.

    Attributes
    ----------
    n : int
        Units: rows, or groups of rows.
    gaps : tuple of 5 float
        Σ (y − p) in each range of confidence.
    squares : float
        Σ (y − p)².
    """

    n: int = 0
    gaps: tuple[float, ...] = (0.0,) * N_RANGES
    squares: float = 0.0

    @classmethod
    def of(
        cls,
        confidence: ArrayLike,
        correct: ArrayLike,
        *,
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
        groups, repeated
            As in `CalibrationBets.factors`.

        Raises
        ------
        InvalidInput
            Shapes differ, there are no rows, or a number lies outside its range.
        """
        p, y, _ = checked_rows(confidence, correct, None)
        counted = CountingOrder.of(p.shape[0], groups=groups, repeated=repeated)
        p, gap = p[counted.rows], (y - p)[counted.rows]
        ranges = np.searchsorted(RANGE_CUTS, p, side="left")
        if counted.starts.shape[0] < counted.rows.shape[0]:  # a row of m counts 1/m
            sizes = np.diff(counted.starts, append=counted.rows.shape[0])
            share = np.repeat(1.0 / sizes, sizes)
        else:
            share = np.ones(gap.shape[0])
        sums = np.bincount(ranges, weights=share * gap, minlength=N_RANGES)
        return cls(int(counted.starts.shape[0]), tuple(sums.tolist()), float(share @ (gap * gap)))

    def __add__(self, other: ErrorSums) -> ErrorSums:
        if not isinstance(other, ErrorSums):
            return NotImplemented
        gaps = tuple(a + b for a, b in zip(self.gaps, other.gaps, strict=True))
        return ErrorSums(self.n + other.n, gaps, self.squares + other.squares)

    def to_dict(self) -> dict[str, Any]:
        """The sums as plain JSON, for `from_dict`; floats are kept bit for bit."""
        return {
            "format": FORMAT,
            "n": self.n,
            "gaps": list(self.gaps),
            "squares": self.squares,
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
            sums = cls(int(document["n"]), gaps, float(document["squares"]))
        except (KeyError, TypeError, ValueError):
            raise InvalidDocument("sums must hold n, gaps and squares") from None
        if len(gaps) != N_RANGES or sums.n < 0 or not math.isfinite(sums.squares + sum(gaps)):
            raise InvalidDocument(f"gaps must be {N_RANGES} finite numbers and n at least 0")
        return sums


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
        if sums.n == 0:
            return 0.0, 1.0
        observed = math.fsum(map(abs, sums.gaps))
        high = min((observed + self._radius(sums.squares)) / sums.n, 1.0)
        threshold = -math.log(SHARE * self.alpha)
        if self.log_evidence(sums, 0.0) < threshold:
            return 0.0, high
        low, above = 0.0, observed / sums.n  # E(τ) falls with τ; at the observed error it is < 1
        for _ in range(STEPS):
            middle = 0.5 * (low + above)
            if self.log_evidence(sums, middle) >= threshold:
                low = middle
            else:
                above = middle
        return low, high

    def log_evidence(self, sums: ErrorSums, tolerance: float) -> float:
        """Natural logarithm of E(τ): evidence that the error is above the tolerance τ."""
        size = np.abs(np.outer(LAMBDAS, sums.gaps))
        log_cosh = size + np.log1p(np.exp(-2.0 * size)) - math.log(2.0)
        logs = log_cosh.sum(axis=1) - LAMBDAS * tolerance * sums.n - PSI * sums.squares
        return float(np.logaddexp.reduce(logs)) + LOG_WEIGHT

    def joined_log10(self, wealth_log10: float, sums: ErrorSums, tolerance: float) -> float:
        """log10 of (1 − s)·W + s·E(t), for the wealth W of `Evidence` on the same labels."""
        wealth = wealth_log10 * math.log(10.0) + math.log1p(-SHARE)
        interval = self.log_evidence(sums, tolerance) + math.log(SHARE)
        return float(np.logaddexp(wealth, interval)) / math.log(10.0)

    def labels_needed(self, sums: ErrorSums, tolerance: float) -> int | None:
        """About how many more labels show whether the error is below the tolerance.

        From the spread and the error so far, on labels like these; None if that cannot be said.
        """
        if sums.n == 0:
            return None
        spread = sums.squares / sums.n
        noise = math.sqrt(2.0 / math.pi * N_RANGES * spread)  # of Σ|S_b|, a unit at n = 1
        observed = math.fsum(map(abs, sums.gaps)) / sums.n
        margin = abs(tolerance - max(observed - noise / math.sqrt(sums.n), 0.0))
        enough, too_few = MOST_LABELS, sums.n
        while enough - too_few > 1:
            n = (enough + too_few) // 2
            if self._radius(spread * n) / n + noise / math.sqrt(n) <= margin:
                enough = n
            else:
                too_few = n
        return None if enough == MOST_LABELS else enough - sums.n

    def _radius(self, squares: float) -> float:
        log_patterns = math.log(2.0 / self.alpha) - LOG_WEIGHT + N_RANGES * math.log(2.0)
        return float(((log_patterns + PSI * squares) / LAMBDAS).min())
