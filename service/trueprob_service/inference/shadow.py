"""A candidate that answers beside the live calibrator, into the receipts and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trueprob.calibrators import Calibrator
from trueprob_service.receipts.receipt import digest64
from trueprob_service.shadow_rows import ShadowRows

__all__ = ["Shadow"]


@dataclass(frozen=True)
class Shadow:
    """A calibrator in the shadow of a live pair of the same version."""

    calibrator: Calibrator
    calibrator_id: str

    def answer(self, logits: NDArray[np.float32]) -> ShadowRows:
        """What it would have answered; run only where receipts are issued."""
        found = self.calibrator.calibrated(logits)
        confidence = found.probabilities[np.arange(len(logits)), found.prediction]
        return ShadowRows(
            digest64(self.calibrator_id), found.prediction, confidence.astype(np.float64)
        )
