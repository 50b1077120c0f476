"""How much of a fit is applied: nothing where the rows cannot tell that it helps.

A few rows move a fit whether or not the network needs it, and a small step in the wrong direction
is as certainly worse as a long one. So the NLL of the fit on its own rows is compared with that of
no calibration. With G the gain for each parameter, in nats of the summed log likelihood, parameters
are multiplied by

    s = 0 for G ≤ ¾,   (4G − 3)/3 between,   1 for G ≥ 1½

At s = 0 probabilities are those of the plain softmax. Where nothing is wrong, a parameter gains ½
nat by chance, and 1 nat is what Akaike's criterion charges for it (Akaike 1974, IEEE Trans. Autom.
Control 19:716–723). The ramp makes s continuous in the data. What limits the loss of a confident
mistake, the uniform mixture of `smart` and the guard of `smart-binary`, has the same share: on rows
of a sure network that is calibrated it costs little, but on every row. Parameters count as the
trace of H⁻¹·(H − P), at least 1, with H the Hessian of the objective and P that of the priors: what
the priors hold does not count. From some hundred rows on s is 1 unless the network is calibrated.

Rows of unequal weight count as Kish's effective number of rows. Constants: decision 95.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FitEvidence", "effective_parameters", "effective_rows", "sampled", "weigh"]

LEAST_GAIN: Final = 0.75  # nats for each parameter; up to here nothing is applied
FULL_GAIN: Final = 1.5  # nats; from here on the whole fit
SAMPLE_ROWS: Final = 500  # of many rows so many are judged first
CLEAR_GAIN: Final = 20.0  # nats for each parameter; a sample that gains so many will do

Array = NDArray[np.float64]
Judge = Callable[[slice, float], "FitEvidence"]  # (rows, effective rows in all) → their evidence


@dataclass(frozen=True)
class FitEvidence:
    """What the calibration rows say about a fit."""

    gain: float  # of the summed log likelihood, nats
    parameters: float = 1.0  # effective number of them

    @property
    def share(self) -> float:
        """The share s of the fit that is applied."""
        gain = self.gain / self.parameters
        return min(max((gain - LEAST_GAIN) / (FULL_GAIN - LEAST_GAIN), 0.0), 1.0)

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
    weights: Array | None,  # (n,), only their ratios matter
    rows: float,  # effective rows of the set that these are all or a sample of
    *,
    parameters: float = 1.0,
) -> FitEvidence:
    """The evidence of rows whose losses are known."""
    gain = np.average(plain - fitted, weights=weights)
    return FitEvidence(rows * float(gain), parameters)


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
