"""`baseline.npz`: statistics of a calibrator on its calibration split.

Live traffic is compared with it: labels with the binned calibration statistics, traffic without
labels with the percentiles of logit gap and confidence.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.files import read_arrays
from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, logit_gap
from trueprob.calibrators import Calibrator
from trueprob.errors import InvalidDocument, InvalidInput
from trueprob.scores.binned import N_BINS, BinnedCalibration

__all__ = ["Baseline"]

PERCENTILES: Final = np.arange(101) / 100  # fine enough to show how many values are tied
MAX_BYTES: Final = 1 << 20  # largest file that is read
SUMS: Final = ("count", "confidence", "correct", "variance")


@dataclass(frozen=True, eq=False)
class Baseline:
    """Statistics of the calibration split under one calibrator.

    Attributes
    ----------
    binned : BinnedCalibration
        Confidence and accuracy in bins of the confidence.
    gap_quantiles : ndarray of shape (101,), float64
        Percentiles 0, 1, …, 100 of the logit gap, in nats; each is one of the values.
    confidence_quantiles : ndarray of shape (101,), float64
        The same percentiles of the calibrated confidence.
    """

    binned: BinnedCalibration
    gap_quantiles: NDArray[np.float64]
    confidence_quantiles: NDArray[np.float64]

    @property
    def n(self) -> float:
        """Number of rows."""
        return self.binned.n

    @classmethod
    def of(cls, calibrator: Calibrator, logits: Logits, labels: Labels) -> Baseline:
        """Compute the statistics of labelled rows.

        Parameters
        ----------
        calibrator : Calibrator
        logits : ndarray of shape (n, k), float32
        labels : ndarray of shape (n,), int64
            Class indices.

        Returns
        -------
        Baseline
        """
        probabilities, masks = calibrator.predict_proba(logits), calibrator.masks
        predicted = calibrator.prediction(logits)
        confidence = probabilities[np.arange(labels.shape[0]), predicted].astype(np.float64)
        return cls(
            BinnedCalibration.of(confidence, predicted == labels),
            _quantiles(logit_gap(logits if masks is None else masks.masked(logits))),
            _quantiles(confidence),
        )

    def to_bytes(self) -> bytes:
        """The content of `baseline.npz`."""
        buffer = io.BytesIO()
        sums = {name: getattr(self.binned, name) for name in SUMS}
        np.savez(
            buffer,
            allow_pickle=False,
            gap_quantiles=self.gap_quantiles,
            confidence_quantiles=self.confidence_quantiles,
            **sums,
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Baseline:
        """Read what `to_bytes` wrote.

        Raises
        ------
        InvalidDocument
            The data are not a baseline.
        """
        try:
            arrays = read_arrays(data, max_bytes=MAX_BYTES, name="baseline")
        except InvalidInput as error:
            raise InvalidDocument(error.message) from None
        read = {}
        for key in (*SUMS, "gap_quantiles", "confidence_quantiles"):
            length = N_BINS if key in SUMS else PERCENTILES.shape[0]
            array = arrays.get(key)
            if array is None or array.shape != (length,) or array.dtype.kind not in "iuf":
                raise InvalidDocument(f"baseline must hold {key} as {length} numbers")
            read[key] = array.astype(np.float64)
            if not np.isfinite(read[key]).all():
                raise InvalidDocument(f"baseline {key} must be finite")
        binned = BinnedCalibration(*(read[key] for key in SUMS))
        return cls(binned, read["gap_quantiles"], read["confidence_quantiles"])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Baseline:
        """Read a `baseline.npz`; InvalidDocument if it is not one."""
        return cls.from_bytes(Path(path).read_bytes())


def _quantiles(values: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.quantile(values.astype(np.float64), PERCENTILES, method="inverted_cdf")
