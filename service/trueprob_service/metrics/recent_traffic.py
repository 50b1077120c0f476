"""Measures recent answers without labels: shift of the traffic, entropy, expected accuracy.

The last `ROWS` rows (approximately) of a deployment are summed in blocks: counts in the bins of the
version's baseline for the shift ratio, and `trueprob.drift.UnlabelledTraffic`. Each update of the
meters adds one block or enlarges it, so with thousands of rows per update the window is longer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trueprob.drift import ReferenceBins, UnlabelledTraffic
from trueprob.repository.baseline import Baseline

__all__ = ["RECENT", "ROWS", "RecentTraffic", "TrafficReference"]

ROWS: Final = (
    2000  # default of window_labels, so that expected and observed accuracy are comparable
)
_BLOCK_ROWS: Final = 200
_LEVEL: Final = 0.9  # level of the interval of the expected accuracy
# Names of the gauges in the catalogue.
RECENT: Final = (
    "mean_entropy_nats",
    "expected_accuracy_ratio",
    "expected_accuracy_low_ratio",
    "expected_accuracy_high_ratio",
    "gap_shift_ratio",
    "confidence_shift_ratio",
)


@dataclass(frozen=True)
class TrafficReference:
    """Distribution of logit gap and confidence on the calibration split."""

    gap: ReferenceBins  # the same for every calibrator
    confidence: ReferenceBins  # of the factory calibrator only
    calibrator: str  # id of the factory calibrator

    @classmethod
    def from_baseline(cls, baseline: Baseline, calibrator: str) -> TrafficReference:
        """Read it from ``baseline.npz``; `InvalidInput` if that is invalid."""
        return cls(
            ReferenceBins.of_percentiles(baseline.gap_quantiles, baseline.n),
            ReferenceBins.of_percentiles(baseline.confidence_quantiles, baseline.n),
            calibrator,
        )


@dataclass
class _Block:
    gap: NDArray[np.int64]
    confidence: NDArray[np.int64]
    traffic: UnlabelledTraffic


class RecentTraffic:
    """Sums over about the last `ROWS` rows of one (model, version, calibrator)."""

    def __init__(
        self, *, gap: ReferenceBins | None = None, confidence: ReferenceBins | None = None
    ) -> None:
        self._gap = gap
        self._confidence = confidence
        self._blocks: deque[_Block] = deque()
        self._rows = 0

    @classmethod
    def compared_with(cls, reference: TrafficReference | None, calibrator: str) -> RecentTraffic:
        """Create the sums for a calibrator of a version; `reference` is None without a baseline."""
        if reference is None:
            return cls()
        of_factory = reference.calibrator == calibrator
        return cls(gap=reference.gap, confidence=reference.confidence if of_factory else None)

    def add(
        self,
        gap: NDArray[np.floating[Any]],  # (n,)
        confidence: NDArray[np.float64],  # (n,)
        traffic: UnlabelledTraffic,  # sums over the same rows
    ) -> None:
        """Add n rows, and drop the oldest block when enough rows remain."""
        new = _Block(_counts(self._gap, gap), _counts(self._confidence, confidence), traffic)
        newest = self._blocks[-1] if self._blocks else None
        if newest is not None and newest.traffic.n < _BLOCK_ROWS:
            newest.gap = newest.gap + new.gap
            newest.confidence = newest.confidence + new.confidence
            newest.traffic = newest.traffic + new.traffic
        else:
            self._blocks.append(new)
        self._rows += traffic.n
        while self._rows - self._blocks[0].traffic.n >= ROWS:
            self._rows -= self._blocks.popleft().traffic.n

    def figures(self) -> dict[str, float | None]:
        """Values of the gauges `RECENT`; None or NaN for an unknown one."""
        blocks = list(self._blocks)
        traffic = sum((block.traffic for block in blocks), UnlabelledTraffic())
        expected = traffic.expected_accuracy(level=_LEVEL)
        values = (
            traffic.mean_entropy(),
            expected.value,
            expected.low,
            expected.high,
            _shift(self._gap, [block.gap for block in blocks]),
            _shift(self._confidence, [block.confidence for block in blocks]),
        )
        return dict(zip(RECENT, values, strict=True))


def _shift(bins: ReferenceBins | None, counts: list[NDArray[np.int64]]) -> float | None:
    if bins is None or not counts:
        return None
    return bins.psi_ratio(np.sum(counts, axis=0))


def _counts(bins: ReferenceBins | None, values: NDArray[Any]) -> NDArray[np.int64]:
    return np.zeros(0, np.int64) if bins is None else bins.counts(values)
