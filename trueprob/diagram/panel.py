"""The numbers of one reliability diagram: a point and a band for each bin, and the scores.

A calibrated model's accuracy in a bin is within ±1.96·sqrt(Σp(1−p))/count of its mean confidence
nineteen times in twenty (the normal approximation, rough in bins of few rows): that is the band.
A bin outside it is where the model claims too much or too little, and not merely has few rows.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from trueprob.arrays.labels import as_labels
from trueprob.scores.binned import EDGES, N_BINS, BinnedCalibration
from trueprob.scores.score import Scores, checked_probabilities, score

__all__ = ["Bin", "Panel", "printable", "shortened"]

NORMAL_95: Final = 1.96  # two-sided 95 % quantile of the normal distribution

# What XML 1.0 cannot hold in any form: control characters and halves of surrogate pairs.
NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Bin:
    """A bin with rows.

    Attributes
    ----------
    lower, upper : float
        Edges.
    share : float
        Of all rows, by weight.
    confidence, accuracy : float
        Means.
    band_low, band_high : float
        Where the accuracy of a calibrated model would be, clipped to [0, 1].
    """

    lower: float
    upper: float
    share: float
    confidence: float
    accuracy: float
    band_low: float
    band_high: float

    @property
    def inside(self) -> bool:
        """Whether a calibrated model could show this accuracy."""
        return self.band_low <= self.accuracy <= self.band_high


@dataclass(frozen=True)
class Panel:
    """One predictor on one set.

    Attributes
    ----------
    title : str
    bins : tuple of Bin
        Those with rows, by rising confidence.
    scores : Scores
    mean_confidence : float
    """

    title: str
    bins: tuple[Bin, ...]
    scores: Scores
    mean_confidence: float

    @classmethod
    def of(
        cls,
        title: str,
        probabilities: ArrayLike,
        labels: ArrayLike,
        *,
        prediction: ArrayLike | None = None,
        weights: ArrayLike | None = None,
    ) -> Panel:
        """Read a panel's numbers.

        Parameters
        ----------
        title : str
        probabilities : array_like of shape (n, k)
        labels : array_like of shape (n,)
            Class indices.
        prediction : array_like of shape (n,), optional
            The predicted classes; default the argmax of the probabilities.
        weights : array_like of shape (n,), optional
            Non-negative.

        Returns
        -------
        Panel

        Raises
        ------
        InvalidInput
            Shapes do not belong together, or a label is out of range.
        """
        p, y = checked_probabilities(probabilities, labels)
        n, k = p.shape
        top = (
            p.argmax(axis=1)
            if prediction is None
            else as_labels(np.asarray(prediction), n_classes=k, n_rows=n, name="prediction")
        )
        scores = score(p, y, prediction=top, weights=weights)
        confidence = np.minimum(p[np.arange(n), top].astype(np.float64), 1.0)
        binned = BinnedCalibration.of(confidence, top == y, weights)
        return cls(title, _bins(binned), scores, binned.mean_confidence())

    @property
    def n_outside(self) -> int:
        """How many bins lie outside their band."""
        return sum(not b.inside for b in self.bins)

    def score_lines(self) -> list[tuple[str, str]]:
        """Names and values of the scores that a diagram prints."""
        s = self.scores
        return [
            ("rows", f"{s.n}"),
            ("accuracy", f"{100 * s.accuracy:.2f} %"),
            ("mean confidence", f"{100 * self.mean_confidence:.2f} %"),
            ("ECE (floor)", f"{100 * s.ece:.2f} % ({100 * s.ece_floor:.2f} %)"),
            ("NLL", f"{s.nll:.4f} nats"),
            ("Brier", f"{s.brier:.4f}"),
            ("AUROC", f"{s.auroc:.4f}" if math.isfinite(s.auroc) else "undefined"),
        ]


def _bins(binned: BinnedCalibration) -> tuple[Bin, ...]:
    found = []
    for b in range(N_BINS):
        count = float(binned.count[b])
        if count <= 0.0:
            continue
        confidence = float(binned.confidence[b]) / count
        reach = NORMAL_95 * math.sqrt(max(float(binned.variance[b]), 0.0)) / count
        found.append(
            Bin(
                lower=float(EDGES[b]),
                upper=float(EDGES[b + 1]),
                share=count / binned.n,
                confidence=confidence,
                accuracy=float(binned.correct[b]) / count,
                band_low=max(confidence - reach, 0.0),
                band_high=min(confidence + reach, 1.0),
            )
        )
    return tuple(found)


def printable(text: str) -> str:
    """The text with what no picture can show replaced."""
    return NOT_XML.sub("\ufffd", text)


def shortened(text: str, limit: int) -> str:
    """The printable text, cut so that it fits the room there is for a title."""
    shown = printable(text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
