"""What a candidate would have answered, as receipts carry it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ShadowRow", "ShadowRows"]


class ShadowRow(NamedTuple):
    """Shadow block of one receipt: class index, confidence, digest of the candidate's id."""

    prediction: int
    confidence: float
    candidate: bytes


@dataclass(frozen=True, slots=True)
class ShadowRows:
    """A candidate's answers to the rows of one request."""

    candidate: bytes  # 8-byte digest of its id
    prediction: NDArray[np.int64]
    confidence: NDArray[np.float64]

    def blocks(self) -> list[ShadowRow]:
        """What goes into the receipts, one a row."""
        pairs = zip(self.prediction.tolist(), self.confidence.tolist(), strict=True)
        return [ShadowRow(*pair, self.candidate) for pair in pairs]
