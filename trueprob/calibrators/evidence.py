"""How much of a fit is applied: nothing where the rows cannot tell that it helps.

A few rows move a fit whether or not the network needs it, and a small step in the wrong direction
is as certainly worse as a long one. So the NLL of the fit on its own rows is compared with that of
no calibration. With G the gain for each parameter, in nats of the summed log likelihood, parameters
are multiplied by

    s = 0 for G ≤ ½,   2G − 1 between,   1 for G ≥ 1

At s = 0 probabilities are those of the plain softmax. Where nothing is wrong, a parameter gains ½
nat by chance, and 1 nat is what Akaike's criterion charges for it (Akaike 1974, IEEE Trans. Autom.
Control 19:716–723). The ramp makes s continuous in the data. Parameters count as the trace of
H⁻¹·(H − P), at least 1, with H the Hessian of the objective and P that of the priors: what the
priors hold does not count. From some hundred rows on s is 1 unless the network is calibrated.

Rows by which a network of great confidence expects no error say nothing about that confidence, with
or without calibration. What limits the loss of a confident mistake (the uniform mixture of `smart`,
the guard of `smart-binary`) then stays. With E the number of errors that the network expects on the
rows, its share is the larger of s and

    c = 1 for E ≤ 0.2,   2 − 5E between,   0 for E ≥ 0.4

Rows of unequal weight count as Kish's effective number of rows. Constants: decision 77.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FitEvidence", "effective_parameters", "effective_rows", "sampled", "weigh"]

LEAST_GAIN: Final = 0.5  # nats for each parameter; up to here nothing is applied
FULL_GAIN: Final = 1.0  # nats; from here on the whole fit
FEW_ERRORS: Final = 0.2  # expected errors of all rows; up to here caution is whole
SOME_ERRORS: Final = 0.4  # from here on there is none beyond s
SAMPLE_ROWS: Final = 500  # of many rows so many are judged first
CLEAR_GAIN: Final = 20.0  # nats for each parameter; a sample that gains so many will do

Array = NDArray[np.float64]
Judge = Callable[[slice, float], "FitEvidence"]  # (rows, effective rows in all) → their evidence


@dataclass(frozen=True)
class FitEvidence:
    """What the calibration rows say about a fit."""

    gain: float  # of the summed log likelihood, nats
    expected_errors: float  # E, by the uncalibrated network
    parameters: float = 1.0  # effective number of them

    @property
    def share(self) -> float:
        """The share s of the fit that is applied."""
        gain = self.gain / self.parameters
        return min(max((gain - LEAST_GAIN) / (FULL_GAIN - LEAST_GAIN), 0.0), 1.0)

    @property
    def caution(self) -> float:
        """The larger of s and c, the share of what limits the loss of a confident mistake."""
        blind = (SOME_ERRORS - self.expected_errors) / (SOME_ERRORS - FEW_ERRORS)
        return max(self.share, min(max(blind, 0.0), 1.0))

    @property
    def warnings(self) -> tuple[str, ...]:
        """One text where nothing is applied."""
        if self.share > 0.0:
            return ()
        needed = LEAST_GAIN * self.parameters
        text = (
            f"the calibration rows cannot tell that calibration helps: the fit gains "
            f"{self.gain:.2f} nats of log likelihood over all rows, and more than {needed:.2g} are "
            "needed, so the scale of the scores is left as it is: give more labelled rows"
        )
        return (text,)


def weigh(
    plain: Array,  # (n,), NLL of each row without calibration, nats
    fitted: Array,  # (n,), NLL of each row by the fit
    expected_error: Array,  # (n,), 1 − confidence without calibration
    weights: Array | None,  # (n,), only their ratios matter
    rows: float,  # effective rows of the set that these are all or a sample of
    *,
    parameters: float = 1.0,
) -> FitEvidence:
    """The evidence of rows whose losses are known."""
    gain = np.average(plain - fitted, weights=weights)
    errors = np.average(expected_error, weights=weights)
    return FitEvidence(rows * float(gain), rows * float(errors), parameters)


def sampled(judge: Judge, n: int, weights: Array | None) -> FitEvidence:
    """The evidence of evenly spaced rows of many where it is clear, else of all rows."""
    rows = effective_rows(n, weights)
    if n >= 4 * SAMPLE_ROWS:
        few = slice(None, None, n // SAMPLE_ROWS)
        if weights is None or weights[few].any():
            found = judge(few, rows)
            if found.gain >= CLEAR_GAIN * found.parameters:
                return found
    return judge(slice(None), rows)


def effective_parameters(curvature: Array, prior: Array) -> float:
    """Trace of H⁻¹·(H − P), at least 1, for Hessians of the objective and of its priors."""
    share = np.linalg.lstsq(curvature, curvature - prior, rcond=None)[0]
    return max(float(np.trace(share)), 1.0)


def effective_rows(n: int, weights: Array | None) -> float:
    """Number of equally weighted rows with the same information (Kish 1965)."""
    return float(n) if weights is None else float(weights.sum() ** 2 / np.square(weights).sum())
