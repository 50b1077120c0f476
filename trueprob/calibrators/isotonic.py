"""The calibrator `isotonic`: isotonic regression of "is the top label right" on the confidence.

    u = logit of the softmax's confidence,   c′ = increasing step fit of correctness on u

Pool adjacent violators gives the increasing sequence of least squares (Zadrozny and Elkan 2002,
KDD, for calibration). Between rows the map is linear in u, outside it is constant. A block with
only right or only wrong rows would give certainty, so c′ stays half a row away from 0 and 1:
½/(n + 1). The other classes are rescaled and the prediction stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from trueprob.arrays.labels import Labels
from trueprob.arrays.logit_functions import Logits, Probabilities, prediction, softmax
from trueprob.calibrators.base import Calibrator, FitOutcome, FittedCalibrator
from trueprob.calibrators.confidence import put_confidence
from trueprob.calibrators.parameters import numbers, require_keys
from trueprob.errors import InvalidDocument

__all__ = ["IsotonicCalibrator", "fit_isotonic"]

END_ROWS: Final = 0.5  # distance of c′ from 0 and 1, in rows (Krichevsky–Trofimov)
DIGITS: Final = 9  # of u, in nats: rows that differ only by rounding count as equal
FARTHEST: Final = 200.0  # bound of |u|; float32 probabilities are 0 and 1 long before
SMALLEST: Final = float(np.finfo(np.float32).tiny)  # below, float32 has fewer digits

Array = NDArray[np.float64]


@dataclass(frozen=True)
class IsotonicCalibrator(Calibrator):
    """Softmax whose confidence is mapped by an increasing function.

    Attributes
    ----------
    knots : tuple of m floats
        Increasing logits of confidence, m >= 1; nats.
    confidences : tuple of m floats
        c′ at the knots, in (0, 1), not decreasing.

    References
    ----------
    Zadrozny and Elkan 2002, Transforming classifier scores into accurate multiclass probability
    estimates, KDD.
    """

    knots: tuple[float, ...]
    confidences: tuple[float, ...]

    kind: ClassVar[str] = "isotonic"

    def parameters(self) -> dict[str, Any]:
        """Fitted values as JSON values."""
        return {"knots": list(self.knots), "confidences": list(self.confidences)}

    @classmethod
    def from_parameters(cls, n_classes: int, parameters: Mapping[str, Any]) -> Self:
        """Inverse of `parameters`; InvalidDocument when they cannot be used."""
        require_keys(parameters, ("knots", "confidences"), where="parameters")
        knots = numbers(parameters, "knots", where="parameters")
        confidences = numbers(parameters, "confidences", where="parameters")
        if len(knots) != len(confidences) or not knots:
            raise InvalidDocument(
                "parameters must have as many confidences as knots, at least 1, "
                f"got {len(confidences)} and {len(knots)}"
            )
        if any(b <= a for a, b in pairwise(knots)):
            raise InvalidDocument("parameters.knots must be increasing")
        if any(b < a for a, b in pairwise(confidences)):
            raise InvalidDocument("parameters.confidences must not decrease")
        if confidences[0] <= 0.0 or confidences[-1] >= 1.0:
            raise InvalidDocument("parameters.confidences must lie between 0 and 1, both excluded")
        return cls(n_classes, knots, confidences)

    @cached_property
    def _arrays(self) -> tuple[Array, Array]:
        return np.array(self.knots), np.array(self.confidences)

    def _probabilities(self, logits: Logits) -> Probabilities:
        top = prediction(logits)
        probabilities = softmax(logits)
        rows = np.arange(top.shape[0])
        probabilities[rows, top] = 0.0
        # Summed without the top class: added to it, terms below 1e-16 would be lost.
        rest = probabilities.sum(axis=1, dtype=np.float64)
        # Where float32 leaves nothing for the other classes, they share the rest evenly.
        sure = rest < SMALLEST * logits.shape[1]
        probabilities[sure] = 1.0
        rest[sure] = logits.shape[1] - 1.0
        others = 1.0 - np.interp(_confidence_logit(logits, top), *self._arrays)
        return put_confidence(probabilities, top, rest, others)

    def _temperature(self, logits: Logits) -> None:
        del logits
        return


def fit_isotonic(
    logits: Logits, labels: Labels, weights: NDArray[np.float64] | None = None, *, seed: int = 0
) -> FittedCalibrator:
    """Fit the isotonic regression; deterministic, so `seed` is unused."""
    from scipy.optimize import isotonic_regression

    del seed
    n, k = logits.shape
    top = prediction(logits)
    knots, inverse = np.unique(_confidence_logit(logits, top), return_inverse=True)
    share = np.ones(n) if weights is None else weights * (n / weights.sum())
    mass = np.bincount(inverse, weights=share).astype(np.float64)
    hits = np.bincount(inverse, weights=share * (top == labels)).astype(np.float64)
    knots, mass, hits = knots[mass > 0.0], mass[mass > 0.0], hits[mass > 0.0]
    pooled = isotonic_regression(hits / mass, weights=mass)
    # The first and last row of each block define the map; between blocks it is a line.
    kept = np.unique(np.concatenate([pooled.blocks[:-1], pooled.blocks[1:] - 1]))
    margin = END_ROWS / (n + 1)
    confidences = np.clip(pooled.x[kept], margin, 1.0 - margin)
    calibrator = IsotonicCalibrator(
        k, tuple(map(float, knots[kept])), tuple(map(float, confidences))
    )
    return FittedCalibrator(calibrator, FitOutcome.CONVERGED)


def _confidence_logit(logits: Logits, top: NDArray[np.int64]) -> Array:
    """Log c − log(1 − c) = −log Σ_{j≠top} exp(z_j − z_top), in float64."""
    rows = np.arange(top.shape[0])
    differences = logits.astype(np.float64)
    differences -= differences[rows, top][:, None]
    differences[rows, top] = -np.inf
    second = differences.max(axis=1)
    with np.errstate(under="ignore"):
        total = np.exp(differences - second[:, None]).sum(axis=1)
    u: Array = np.round(np.clip(-(second + np.log(total)), -FARTHEST, FARTHEST), DIGITS)
    return u
