"""The numbers of one reliability diagram: a point and a band for each bin, and the scores.

The band is the mean confidence of a bin ± 1.96·sqrt(Σp(1−p))/count. The accuracy of a calibrated
model lies in it with probability 95 % (normal approximation, rough in bins with few rows). In a bin
outside its band the model is over- or underconfident by more than chance explains.
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

__all__ = ["DiagramBin", "Panel", "printable", "shortened"]

NORMAL_95: Final = 1.96  # two-sided 95 % quantile of the normal distribution

# Characters that XML 1.0 does not allow: control characters and halves of surrogate pairs.
NOT_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class DiagramBin:
    """A bin of the confidence that has rows.

    Attributes
    ----------
    lower, upper : float
        Edges of the bin.
    share : float
        Share of all rows, by weight.
    confidence, accuracy : float
        Mean confidence, and share of correct predictions.
    band_low, band_high : float
        The 95 % band of a calibrated model's accuracy, clipped to [0, 1].
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
        """Whether the accuracy lies in the band of a calibrated model."""
        return self.band_low <= self.accuracy <= self.band_high


@dataclass(frozen=True)
class Panel:
    """The reliability diagram of one predictor on one set of rows.

    Attributes
    ----------
    title : str
    bins : tuple of DiagramBin
        The bins with rows, by ascending confidence.
    scores : Scores
    mean_confidence : float
    """

    title: str
    bins: tuple[DiagramBin, ...]
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
        """Compute the numbers of a diagram.

        Parameters
        ----------
        title : str
        probabilities : array_like of shape (n, k)
        labels : array_like of shape (n,)
            Class indices.
        prediction : array_like of shape (n,), optional
            Predicted class indices; default: the argmax of the probabilities.
        weights : array_like of shape (n,), optional
            Non-negative; default: all 1.

        Returns
        -------
        Panel

        Raises
        ------
        InvalidInput
            Shapes do not match, or a label is out of range.
        """
        p, y = checked_probabilities(probabilities, labels)
        n, k = p.shape
        top = (
            p.argmax(axis=1)
            if prediction is None
            else as_labels(prediction, n_classes=k, n_rows=n, name="prediction")
        )
        scores = score(p, y, prediction=top, weights=weights)
        confidence = np.minimum(p[np.arange(n), top].astype(np.float64), 1.0)
        binned = BinnedCalibration.of(confidence, top == y, weights)
        return cls(title, _bins(binned), scores, binned.mean_confidence())

    @property
    def n_outside(self) -> int:
        """Number of bins outside their band."""
        return sum(not b.inside for b in self.bins)

    def score_lines(self) -> list[tuple[str, str]]:
        """Names and values of the scores, as a diagram prints them."""
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


def _bins(binned: BinnedCalibration) -> tuple[DiagramBin, ...]:
    bins = []
    for b in range(N_BINS):
        count = float(binned.count[b])
        if count <= 0.0:
            continue
        confidence = float(binned.confidence[b]) / count
        reach = NORMAL_95 * math.sqrt(max(float(binned.variance[b]), 0.0)) / count
        bins.append(
            DiagramBin(
                lower=float(EDGES[b]),
                upper=float(EDGES[b + 1]),
                share=count / binned.n,
                confidence=confidence,
                accuracy=float(binned.correct[b]) / count,
                band_low=max(confidence - reach, 0.0),
                band_high=min(confidence + reach, 1.0),
            )
        )
    return tuple(bins)


def printable(text: str) -> str:
    """The text with characters that XML does not allow replaced."""
    return NOT_XML.sub("\ufffd", text)


def shortened(text: str, limit: int) -> str:
    """The printable text, cut to at most `limit` characters."""
    shown = printable(text)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
