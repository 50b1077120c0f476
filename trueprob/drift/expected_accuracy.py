"""Expected accuracy and entropy of traffic without labels.

The mean confidence is the expected accuracy *if the model is calibrated*. The number of correct
predictions is then a sum of independent Bernoulli(p_i), with mean Σp and variance Σp(1 − p), and
nearly normal if that variance is above about 5. The interval contains the accuracy with
probability `level`:

    (Σp ± (z·sqrt(Σp(1 − p)) + ½)) / n,   widened by the tolerance where one is given.

An observed accuracy outside the interval speaks against calibration; this is not a sequential
test, so use `Evidence` to look often. An expected accuracy that falls before labels arrive means
that the model finds its traffic harder. It cannot show that the model is miscalibrated: far from
its training data a network is often confident and wrong, and only labels show it. Rows are assumed
to be independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from trueprob.errors import InvalidInput
from trueprob.scores.interval import Interval

__all__ = ["UnlabelledTraffic"]


@dataclass(frozen=True)
class UnlabelledTraffic:
    """Sums over predictions without labels; two of them are combined with ``+``.

    Attributes
    ----------
    n : int
        Number of rows.
    confidence : float
        Sum of the confidences p.
    variance : float
        Sum of p(1 − p).
    entropy : float
        Sum of the entropies of `n_entropy` rows, in nats.
    n_entropy : int
        Number of rows whose entropy was computed; with many classes it is slow to compute.
    """

    n: int = 0
    confidence: float = 0.0
    variance: float = 0.0
    entropy: float = 0.0
    n_entropy: int = 0

    @classmethod
    def of(cls, confidence: ArrayLike, entropy: ArrayLike | None = None) -> UnlabelledTraffic:
        """Compute the sums of a batch.

        Parameters
        ----------
        confidence : array_like of shape (n,)
            Calibrated probability of each prediction, in [0, 1].
        entropy : array_like of shape (m,), optional
            Entropy of these rows, or of some of them, in nats.

        Returns
        -------
        UnlabelledTraffic

        Raises
        ------
        InvalidInput
            A shape is wrong, or a number lies outside its range.
        """
        p = np.asarray(confidence, dtype=np.float64)
        h = np.asarray(() if entropy is None else entropy, dtype=np.float64)
        if p.ndim != 1 or not ((p >= 0.0) & (p <= 1.0)).all():
            raise InvalidInput(
                f"confidence must lie in [0, 1], of shape (n,), got shape {p.shape}",
                field="confidence",
            )
        if h.ndim != 1 or not ((h >= 0.0) & np.isfinite(h)).all():
            raise InvalidInput(
                f"entropy must be finite and at least 0, of shape (m,), got shape {h.shape}",
                field="entropy",
            )
        sums = (float(p.sum()), float((p * (1.0 - p)).sum()), float(h.sum()))
        return cls(p.shape[0], *sums, h.shape[0])

    def __add__(self, other: UnlabelledTraffic) -> UnlabelledTraffic:
        if not isinstance(other, UnlabelledTraffic):
            return NotImplemented
        return UnlabelledTraffic(
            self.n + other.n,
            self.confidence + other.confidence,
            self.variance + other.variance,
            self.entropy + other.entropy,
            self.n_entropy + other.n_entropy,
        )

    def mean_entropy(self) -> float:
        """Mean entropy in nats; NaN without rows."""
        return self.entropy / self.n_entropy if self.n_entropy else math.nan

    def expected_accuracy(self, *, level: float = 0.9, tolerance: float = 0.0) -> Interval:
        """Mean confidence, with the interval of the accuracy if the model is calibrated.

        Parameters
        ----------
        level : float
            In (0, 1): probability that the interval contains the accuracy.
        tolerance : float
            In [0, 1]: calibration error to allow for.

        Returns
        -------
        Interval
            NaN without rows.

        Raises
        ------
        InvalidInput
            `level` or `tolerance` lies outside its range.
        """
        if not 0.0 < level < 1.0:
            raise InvalidInput(f"level must lie between 0 and 1, got {level}", field="level")
        if not 0.0 <= tolerance <= 1.0:
            raise InvalidInput(f"tolerance must lie in [0, 1], got {tolerance}", field="tolerance")
        if self.n == 0:
            return Interval(math.nan, math.nan, math.nan, level, 0, 0)
        mean = self.confidence / self.n
        z = NormalDist().inv_cdf(0.5 + level / 2.0)
        spread = (z * math.sqrt(self.variance) + 0.5) / self.n + tolerance
        low, high = max(mean - spread, 0.0), min(mean + spread, 1.0)
        return Interval(mean, low, high, level, self.n, self.n)
