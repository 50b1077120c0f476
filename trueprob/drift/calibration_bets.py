r"""Betting test of calibration: bets that the confidence p is not the probability of being right.

**Null hypothesis**, with tolerance t: for every counted label, |q − p| ≤ t, where p is the
confidence of the prediction and q the probability that it is right, given p and all labels counted
before it. Each bet has an alternative, a probability a(p) that it considers more likely than p, and
multiplies its wealth by

    e = 1 + λ·(y − r),    r = a clipped to [p − t, p + t],    λ = (a − r) / (r (1 − r))

for y = 1 where the prediction was right, else 0. That is the likelihood ratio a^y (1−a)^(1−y) /
r^y (1−r)^(1−y) against the closest member of the null. λ is then clipped so that e lies in
[0.2, 21]: a bet that is wrong never loses everything, and one label never proves anything by
itself. Where a lies within the tolerance λ is 0 and e is 1: no bet.

**Guarantee.** E[e | past] = 1 + λ (q − r) ≤ 1 for every q within the tolerance: λ > 0 only where
r = p + t ≥ q, and λ < 0 only where r = p − t ≤ q. Nothing else is assumed: confidences may have
any distribution, and it may change. `Evidence` and `ChangeDetector` state what follows from this.

**What breaks the guarantee**
- Whether or when a label arrives depends on its outcome: only complaints are labelled, or errors
  are corrected the same day and right predictions are confirmed in bulk a week later.
- Outcomes are copies of one another and have no common group.
- Outcomes share a cause that was unknown when all of them were predicted, and have no common group.
  A storm hits every forecast of that day: each may be calibrated by itself, but not given the
  labels counted before it.
- Rows are counted in an order that depends on the outcome (see `counting_order`).
- The labels are wrong.

**The alternatives**, with their share of the initial wealth:
- two fifths: another temperature, a(p) = sigmoid(logit(p)·s) for six slopes s: overconfident
  networks at s < 1, underconfident ones at s > 1;
- one fifth: every confidence wrong by more than the tolerance, the odds of p ± t divided or
  multiplied by e^0.1, e^0.3 or e^0.9;
- two fifths: the same with e^0.9 in one range of confidence only, cut at 0.5, 0.7, 0.85, 0.95.

**Classes.** With a `class_tolerance` t_c ≥ t the null hypothesis adds that |q − p| ≤ t_c also given
the predicted class, which is known before the outcome. Each class then has four bets of its own,
the odds of p ± t_c times e^±0.3 and e^±0.9, on the rows where it is predicted;
`trueprob.drift.alarm_statistics` combines them.

References
----------
Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86
(2024), arXiv:2010.09686: the capital process Π(1 + λ_t (x_t − m)). Grünwald, de Heide and Koolen,
"Safe testing", JRSS B 86 (2024), arXiv:1906.07801: the ratio to the closest member of the null
(reverse information projection) grows fastest. Shafer, "Testing by betting", JRSS A 184 (2021).
Henzi and Ziegel, Biometrika 109 (2022), with its correction for outcomes that arrive after later
forecasts were made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.drift.counting_order import ClassRows, CountingOrder, Factors, OrderKeys
from trueprob.errors import InvalidInput
from trueprob.scores.confidence import checked_rows

__all__ = [
    "CLASS_ODDS",
    "N_RANGES",
    "RANGE_CUTS",
    "CalibrationBets",
    "checked_classes",
    "learned_factors",
]

Array = NDArray[np.float64]

SLOPES: Final = (0.45, 0.65, 0.8, 0.92, 1.1, 1.4)  # of logit(p); 1 / temperature error
ODDS: Final = (0.1, 0.3, 0.9)  # logarithms of the factor on the odds
RANGE_CUTS: Final = (0.5, 0.7, 0.85, 0.95)  # right-closed ranges of confidence
N_RANGES: Final = len(RANGE_CUTS) + 1
MAX_LOSS: Final = 0.8  # a bet always keeps at least a fifth of its wealth
MAX_STAKE: Final = 20.0  # e ≤ 1 + 20: matters only for confidences near 1
SMALLEST: Final = 1e-12  # confidences are clipped to at least this far from 0 and 1
CLASS_ODDS: Final = (0.3, 0.9)
# A new grid needs a new name: stored states depend on it.
MIXTURE: Final = "calibration-1"
CLASS_MIXTURE: Final = "calibration-2"


@dataclass(frozen=True)
class CalibrationBets:
    """Bets against calibration, for `Evidence` and `ChangeDetector`.

    Attributes
    ----------
    tolerance : float
        In [0, 0.5): calibration errors up to this do not count, at any confidence. Real
        calibrators are never exact: with 0, a million labels would raise the alarm.
    class_tolerance : float or None
        At least `tolerance`, below 0.5: the same for the predictions of one class. None: classes
        are not told apart.
    """

    tolerance: float = 0.02
    class_tolerance: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.tolerance < 0.5:
            raise InvalidInput(
                f"tolerance must be at least 0 and below 0.5, got {self.tolerance}",
                field="tolerance",
            )
        limit = self.class_tolerance
        if limit is not None and not self.tolerance <= limit < 0.5:
            raise InvalidInput(
                f"class_tolerance must be at least tolerance ({self.tolerance}) and below 0.5, "
                f"got {limit}",
                field="class_tolerance",
            )

    @property
    def mixture(self) -> str:
        """Name of the mixture; a state belongs to one mixture."""
        return MIXTURE if self.class_tolerance is None else CLASS_MIXTURE

    @property
    def on_classes(self) -> bool:
        """Whether there are also bets on single classes."""
        return self.class_tolerance is not None

    @property
    def weights(self) -> Array:
        """Share of the initial wealth of each bet; they sum to 1."""
        shares = ((0.4, len(SLOPES)), (0.2, 2 * len(ODDS)), (0.4, 2 * N_RANGES))
        return np.concatenate([np.full(n, share / n) for share, n in shares])

    def factors(
        self,
        confidence: ArrayLike,
        correct: ArrayLike,
        *,
        prediction: ArrayLike | None = None,
        n_classes: int | None = None,
        order: OrderKeys | None = None,
        groups: ArrayLike | None = None,
        repeated: ArrayLike | None = None,
    ) -> Factors:
        """Factors by which the labels of one request multiply the wealth of each bet.

        Parameters
        ----------
        confidence : array_like of shape (n,)
            Calibrated probability of the prediction, as it was answered.
        correct : array_like of shape (n,)
            Whether the prediction was right (bool, or 0 and 1).
        prediction : array_like of shape (n,), int
            Predicted classes; needed if there is a `class_tolerance`, else left out.
        n_classes : int
            Number of classes of the model; needed with `prediction`.
        order : sequence of n bytes, or array of n integers, optional
            Keyed hashes; rows are counted in their ascending order (see `counting_order`).
            Default: the order of the rows.
        groups : array_like of shape (n,), optional
            Rows of one group make one factor. Default: each row makes its own.
        repeated : array_like of shape (n,), bool, optional
            True for rows whose group an earlier call counted already; they are left out.

        Returns
        -------
        Factors

        Raises
        ------
        InvalidInput
            Shapes differ, there are no rows, or a number lies outside its range.
        """
        p, y, _ = checked_rows(confidence, correct, None)
        if not ((y == 0.0) | (y == 1.0)).all():
            raise InvalidInput("correct must be bool, or 0 and 1", field="correct")
        counted = CountingOrder.of(p.shape[0], order=order, groups=groups, repeated=repeated)
        p, y = p[counted.rows], y[counted.rows]
        values = counted.mean_factors(self._of_rows(p, y))
        if self.class_tolerance is None:
            return Factors(MIXTURE, values)
        classes = checked_classes(prediction, n_classes, confidence)[counted.rows]
        low, high = _edges(p, self.class_tolerance)
        k = np.exp(CLASS_ODDS)[:, None]
        of_class = _likelihood_ratio(_shifted_odds(low, high, k), low, high, y)
        rows = ClassRows(
            int(n_classes or 0),
            classes[counted.starts],
            counted.mean_factors(of_class),
            p,
            y,
            counted.starts,
            self.class_tolerance,
        )
        return Factors(CLASS_MIXTURE, values, rows)

    def _of_rows(self, p: Array, y: Array) -> Array:
        low, high = _edges(p, self.tolerance)
        slopes, k = np.array(SLOPES)[:, None], np.exp(ODDS)[:, None]
        tempered = 1.0 / (1.0 + np.exp(-slopes * _logit(p)))
        alternatives = np.concatenate([tempered, _shifted_odds(low, high, k)])
        everywhere = _likelihood_ratio(alternatives, low, high, y)
        in_range = np.searchsorted(RANGE_CUTS, p, side="left") == np.arange(N_RANGES)[:, None]
        raised, lowered = everywhere[len(SLOPES) + len(ODDS) - 1], everywhere[-1]
        within = [np.where(in_range, bet, 1.0) for bet in (raised, lowered)]
        return np.concatenate([everywhere, *within])


def learned_factors(rows: ClassRows, shift: Array) -> Array:
    """Factors of bets that add `shift` (n,) to the logits of the rows, shape (n,)."""
    low, high = _edges(rows.p, rows.tolerance)
    alternative = 1.0 / (1.0 + np.exp(-(_logit(rows.p) + shift)))
    return _likelihood_ratio(alternative, low, high, rows.y)


def _edges(p: Array, tolerance: float) -> tuple[Array, Array]:
    return np.maximum(p - tolerance, 0.0), np.minimum(p + tolerance, 1.0)


def _logit(p: Array) -> Array:
    clipped = np.clip(p, SMALLEST, 1.0 - SMALLEST)
    return np.asarray(np.log(clipped / (1.0 - clipped)))


def _shifted_odds(low: Array, high: Array, k: Array) -> Array:
    """Alternatives beyond the tolerance, upwards and then downwards: (2·n_odds, n)."""
    return np.concatenate([high * k / (1.0 - high + high * k), low / (low + (1.0 - low) * k)])


def checked_classes(
    prediction: ArrayLike | None, n_classes: int | None, confidence: ArrayLike
) -> NDArray[np.int64]:
    """Predicted classes of shape (n,), int64; `InvalidInput` if they are missing or wrong."""
    if prediction is None or n_classes is None:
        raise InvalidInput(
            "prediction and n_classes are needed for bets with a class_tolerance",
            field="prediction",
        )
    classes = np.asarray(prediction)
    n = np.shape(confidence)[0]
    if classes.shape != (n,) or classes.dtype.kind not in "iu":
        raise InvalidInput(
            f"prediction must be integers of shape ({n},), got {classes.dtype} of shape "
            f"{classes.shape}",
            field="prediction",
        )
    if n_classes < 2 or (n and not 0 <= classes.min() <= classes.max() < n_classes):
        raise InvalidInput(
            f"prediction must lie in 0 … n_classes − 1 with n_classes of at least 2, "
            f"got n_classes {n_classes}",
            field="prediction",
        )
    return classes.astype(np.int64)


def _likelihood_ratio(alternative: Array, low: Array, high: Array, y: Array) -> Array:
    """The factors e of the module's docstring, for alternatives of shape (m, n)."""
    r = np.clip(alternative, low, high)
    tiny = np.finfo(np.float64).tiny  # r is 0 or 1 for certain predictions at tolerance 0
    most = np.minimum(MAX_LOSS / np.maximum(r, tiny), MAX_STAKE)
    least = -np.minimum(MAX_LOSS / np.maximum(1.0 - r, tiny), MAX_STAKE)
    with np.errstate(over="ignore"):  # infinity is clipped
        stake = (alternative - r) / np.maximum(r * (1.0 - r), tiny)
    return 1.0 + np.clip(stake, least, most) * (y - r)
