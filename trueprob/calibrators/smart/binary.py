"""The calibrator `smart-binary`: for two classes, an increasing map of the logit difference.

With s = z₁ − z₀, in float64, the log-odds log P(1) − log P(0) are

    v(s) = b + Σ_j exp(θ_j)·|[0, s] ∩ I_j|,   lengths with the sign of s

continuous, strictly increasing and piecewise linear with slopes exp(θ_j) in the intervals I_j; the
first and the last slope continue outside. The prediction is 1 where v > 0, so the threshold on s
may move, and the order of the rows cannot.

Everything that the fit finds, a second stage and a guard against extreme log-odds included, is one
such map: piecewise linear maps of one another are piecewise linear (`PiecewiseMap.then`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, logit_gap
from trueprob.calibrators.base import Calibrated, Calibrator
from trueprob.calibrators.parameters import number, numbers, require_keys
from trueprob.errors import InvalidDocument

__all__ = ["PiecewiseMap", "SmartBinaryCalibrator", "logit_difference"]

MAX_LOG_SLOPE: Final = 60.0
# The slopes differ by at most exp(10). A flatter one could give two differences one float64.
SLOPE_RANGE: Final = 10.0
# 1 / (1 + exp(v)) is computed at multiples of 2⁻⁴⁰, which are far enough apart that an error in the
# last place of exp reverses no order. Adding and subtracting this number rounds to them.
TO_GRID: Final = 1.5 * 2.0**12
FARTHEST_LOG_ODDS: Final = 110.0  # nats; the float32 probability of the other class is 0 before
ABOVE_HALF: Final = np.nextafter(np.float32(0.5), np.float32(1.0))
BELOW_HALF: Final = np.nextafter(np.float32(0.5), np.float32(0.0))
BLOCK: Final = 1 << 15  # rows whose intermediate results stay in the cache

Array = NDArray[np.float64]


def logit_difference(logits: Logits) -> Array:
    """S = z₁ − z₀ of logits of shape (n, 2), in float64, nats."""
    difference: Array = np.subtract(logits[:, 1], logits[:, 0], dtype=np.float64)
    return difference


@dataclass(frozen=True)
class PiecewiseMap:
    """A continuous, strictly increasing, piecewise linear function of one number."""

    edges: tuple[float, ...]  # inner edges of the m intervals, increasing
    slopes: tuple[float, ...]  # m of them, positive
    at_zero: float  # its value at 0

    @cached_property
    def lines(self) -> tuple[Array, Array, Array]:
        """Of each interval an anchor, the value there, and the slope.

        Intervals above 0 are anchored at their lower end and those below at their upper end. The
        value at an anchor is what the neighbour nearer to 0 gives there, bit for bit, so rounding
        cannot make the function fall from one interval to the next.
        """
        edges, slopes = self.edges, self.slopes
        middle = bisect_left(edges, 0.0)
        anchors, values = [0.0] * len(slopes), [self.at_zero] * len(slopes)
        for j in range(middle + 1, len(slopes)):
            anchors[j] = edges[j - 1]
            values[j] = values[j - 1] + slopes[j - 1] * (anchors[j] - anchors[j - 1])
        for j in range(middle - 1, -1, -1):
            anchors[j] = edges[j]
            values[j] = values[j + 1] + slopes[j + 1] * (anchors[j] - anchors[j + 1])
        return np.array(anchors), np.array(values), np.array(slopes)

    @cached_property
    def line_lists(self) -> tuple[list[float], list[float], list[float]]:
        """`lines` as lists."""
        anchors, values, slopes = self.lines
        return anchors.tolist(), values.tolist(), slopes.tolist()

    def __call__(self, x: Array) -> Array:
        """The function of x, shape (n,)."""
        anchors, values, slopes = self.lines
        if len(slopes) == 1:
            return values + slopes * x
        interval = np.searchsorted(np.array(self.edges), x)
        result: Array = x - anchors.take(interval)
        result *= slopes.take(interval)
        result += values.take(interval)
        return result

    def of_number(self, x: float) -> float:
        """The same for one number."""
        anchors, values, slopes = self.line_lists
        j = bisect_left(self.edges, x)
        return values[j] + slopes[j] * (x - anchors[j])

    def then(self, outer: PiecewiseMap) -> PiecewiseMap:
        """X ↦ outer(self(x))."""
        anchors, values, slopes = self.line_lists
        at_edges = [self.of_number(edge) for edge in self.edges]
        edges = set(self.edges)
        for height in outer.edges:
            j = bisect_left(at_edges, height)
            edges.add(anchors[j] + (height - values[j]) / slopes[j])
        merged = sorted(edges)
        # A point inside each interval tells which slopes meet there.
        ends = [merged[0] - 1.0, *merged, merged[-1] + 1.0] if merged else [-1.0, 1.0]
        steps = []
        for low, high in pairwise(ends):
            inside = 0.5 * (low + high)
            outside = bisect_left(outer.edges, self.of_number(inside))
            steps.append(slopes[bisect_left(self.edges, inside)] * outer.slopes[outside])
        return PiecewiseMap(tuple(merged), tuple(steps), outer.of_number(self.at_zero))


@dataclass(frozen=True)
class SmartBinaryCalibrator(Calibrator):
    """Log-odds that strictly increase with the difference of the two logits.

    The float64 log-odds keep the order of the rows by s = z₁ − z₀, so their AUROC is that of s.
    They are equal only where s is equal, or closer than float64 resolves after the map. The float32
    probabilities are never in the opposite order, and they may be equal. A probability that float32
    would round to ½ is one unit in the last place on the side of the prediction.

    Attributes
    ----------
    edges : tuple of m − 1 floats
        Inner edges of the m intervals of s, increasing, in nats.
    log_slopes : tuple of m floats
        θ_j, the logarithm of the slope of the log-odds in each interval.
    offset : float
        b, the log-odds at s = 0, in nats.

    References
    ----------
    SMART, arXiv:2506.23492, for a temperature that depends on the gap; with two classes s and its
    sign are all that logits say.
    """

    edges: tuple[float, ...]
    log_slopes: tuple[float, ...]
    offset: float

    kind: ClassVar[str] = "smart-binary"
    preserves_prediction: ClassVar[bool] = False
    preserves_ranking: ClassVar[bool] = True

    @classmethod
    def of_map(cls, found: PiecewiseMap) -> Self:
        """The calibrator with this map; slopes that are too flat are raised."""
        slopes = np.log(found.slopes)
        slopes = np.clip(slopes, slopes.max() - SLOPE_RANGE, None)
        kept = np.clip(slopes, -MAX_LOG_SLOPE, MAX_LOG_SLOPE)
        return cls(2, found.edges, tuple(kept.tolist()), found.at_zero)

    def parameters(self) -> dict[str, Any]:
        """Fitted values as JSON values."""
        return {
            "edges": list(self.edges),
            "log_slopes": list(self.log_slopes),
            "offset": self.offset,
        }

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        where = "parameters"
        if n_classes != 2:
            raise InvalidDocument(f"{cls.kind} is for two classes, n_classes is {n_classes}")
        require_keys(parameters, ("edges", "log_slopes", "offset"), where=where)
        edges = numbers(parameters, "edges", where=where)
        log_slopes = numbers(parameters, "log_slopes", where=where)
        if len(log_slopes) != len(edges) + 1:
            raise InvalidDocument(
                f"parameters.log_slopes must have {len(edges) + 1} numbers for {len(edges)} "
                f"edges, got {len(log_slopes)}"
            )
        if any(b <= a for a, b in pairwise(edges)):
            raise InvalidDocument("parameters.edges must be increasing")
        if any(abs(theta) > MAX_LOG_SLOPE for theta in log_slopes):
            raise InvalidDocument(
                f"parameters.log_slopes must lie within ±{MAX_LOG_SLOPE:g}, one does not"
            )
        return cls(n_classes, edges, log_slopes, number(parameters, "offset", where=where))

    @cached_property
    def map(self) -> PiecewiseMap:
        """V as a function of s."""
        slopes = np.exp(np.array(self.log_slopes, dtype=np.float64))
        return PiecewiseMap(self.edges, tuple(slopes.tolist()), self.offset)

    def _calibrated(self, logits: Logits) -> Calibrated:
        n = len(logits)
        if n == 1:
            return self._single_row(logits)
        p, top = np.empty((n, 2), np.float32), np.empty(n, np.int64)
        confidence, log_odds = np.empty(n, np.float32), np.empty(n)
        for start in range(0, n, BLOCK):
            rows = slice(start, start + BLOCK)
            log_odds[rows] = v = self._log_odds(logits[rows])
            up: NDArray[np.bool_] = v > 0.0
            top[rows] = up
            high, low = _pair(v)
            confidence[rows] = high
            p[rows, 0] = np.where(up, low, high)
            p[rows, 1] = np.where(up, high, low)
        return Calibrated(p, top, confidence, None, logit_gap(logits), log_odds)

    def _single_row(self, logits: Logits) -> Calibrated:
        """One row in Python's floats; a NumPy call costs half a microsecond."""
        zero, one = logits[0].tolist()
        v = self.map.of_number(one - zero)
        up = v > 0.0
        away = (min(abs(v), FARTHEST_LOG_ODDS) + TO_GRID) - TO_GRID
        x = float(np.exp(-away))
        high = max(np.float32(1.0 / (1.0 + x)), ABOVE_HALF)
        low = min(np.float32(x / (1.0 + x)), BELOW_HALF)
        return Calibrated(
            np.array([[low, high] if up else [high, low]]),
            np.array([int(up)]),
            np.array([high]),
            None,
            logit_gap(logits),
            np.array([v]),
        )

    def _log_odds(self, logits: Logits) -> Array:
        return self.map(logit_difference(logits))

    def _prediction(self, logits: Logits) -> Labels:
        return (self._log_odds(logits) > 0.0).astype(np.int64)

    def _probabilities(self, logits: Logits) -> Probabilities:
        return self._calibrated(logits).probabilities

    def _temperature(self, logits: Logits) -> None:
        del logits


def _pair(log_odds: Array) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Probability of the prediction and of the other class, each monotone in |v|, shape (n,)."""
    x = np.abs(log_odds)
    np.minimum(x, FARTHEST_LOG_ODDS, out=x)
    x += TO_GRID
    x -= TO_GRID
    np.negative(x, out=x)
    np.exp(x, out=x)
    total = 1.0 + x
    high = np.reciprocal(total).astype(np.float32)
    x /= total
    low = x.astype(np.float32)
    return np.maximum(high, ABOVE_HALF, out=high), np.minimum(low, BELOW_HALF, out=low)
