"""Is a shadowing candidate better than what is live? A betting test on differences of losses.

For each counted label, d = loss of the incumbent − loss of the candidate, both in [0, 1] (the Brier
score of the top label: `top_label_brier`). Two claims are tested side by side, each with

    e = 1 + λ·(±d − margin),   λ ∈ {1, 2, 5, 10, 20, 40, 80} / 100,   in equal shares.

**Null** of "better": E[d | all earlier counted labels] ≤ margin at every counted label. With
independent rows of one traffic: the candidate is not better, on average, by more than the margin.
Of "worse": the same of −d. **Promise**: each claim, where it is wrong, is ever made with
probability at most α (`Evidence`). λ ≤ 0.8 keeps e positive, whatever the losses.

The bets do not depend on the row's own confidences. Bets that did could win more, but only against
the narrower null that the candidate is no better at *every* confidence, and a candidate that is
better on a few rows and worse on most would then be promoted.

**What breaks it**: what breaks `CalibrationBets`, and a candidate that is better at one time of day
only: it is better at some labels, and the test may say so. Losses that are nearly the same (both
confidences within a point) need very many labels, whatever the test.

References
----------
Choe and Ramdas, "Comparing sequential forecasters", Operations Research 72 (2024),
arXiv:2110.00115 (strong null: at every step; their e-process for the weak null, on average over
time, costs power). Henzi and Ziegel, "Valid sequential inference on probability forecast
performance", Biometrika 109 (2022), arXiv:2103.08402. Waudby-Smith and Ramdas, arXiv:2010.09686.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trueprob.confidence_rows import checked_rows
from trueprob.drift.bet_state import BetState
from trueprob.drift.counting_order import CountingOrder, Factors, OrderKeys
from trueprob.drift.evidence import Evidence
from trueprob.errors import InvalidDocument, InvalidInput

__all__ = ["Comparison", "ComparisonState", "LossBets", "top_label_brier"]

Array = NDArray[np.float64]

STAKES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # |±d − margin| ≤ 1.25 keeps e positive
MAX_MARGIN: Final = 0.2
MIXTURE: Final = "loss-1"


def top_label_brier(confidence: ArrayLike, correct: ArrayLike) -> Array:
    """Squared error of the confidence as a probability of being right, in [0, 1], a row each."""
    p, y, _ = checked_rows(confidence, correct, None)
    return (p - y) ** 2


@dataclass(frozen=True)
class LossBets:
    """Bets that one loss is lower than another by more than a margin."""

    margin: float = 0.0  # in [0, 0.2]

    def __post_init__(self) -> None:
        if not 0.0 <= self.margin <= MAX_MARGIN:
            raise InvalidInput(
                f"margin must lie in [0, {MAX_MARGIN}], got {self.margin}", field="margin"
            )

    @property
    def mixture(self) -> str:
        """Name of the mixture; a state belongs to one."""
        return MIXTURE

    @property
    def weights(self) -> Array:
        """Share of the first wealth of each bet."""
        return np.full(len(STAKES), 1.0 / len(STAKES))

    def factors(self, gain: Array, counted: CountingOrder) -> Factors:
        """What each bet is multiplied by, for gains in [−1, 1] (higher loss less lower)."""
        values = 1.0 + np.array(STAKES)[:, None] * (gain[counted.rows] - self.margin)
        return Factors(MIXTURE, counted.mean_factors(values))


@dataclass(frozen=True)
class ComparisonState:
    """State of `Comparison`: evidence for "better" and for "worse"."""

    better: BetState
    worse: BetState

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; floats come back bit by bit."""
        return {"better": self.better.to_dict(), "worse": self.worse.to_dict()}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> ComparisonState:
        """Read what `to_dict` wrote.

        Raises
        ------
        InvalidDocument
            Not such a document.
        """
        parts = [document.get(key) for key in ("better", "worse")]
        if not all(isinstance(part, dict) for part in parts):
            raise InvalidDocument("state must hold better and worse")
        return cls(*(BetState.from_dict(part) for part in parts if part is not None))


@dataclass(frozen=True)
class Comparison:
    """Sequential comparison of a candidate with the incumbent.

        comparison = Comparison(alpha=0.01)
        state = comparison.start()
        state = comparison.update(state, incumbent_loss, candidate_loss)
        comparison.verdict(state)

    Attributes
    ----------
    alpha : float
        In (0, 1): probability of ever making a claim that is wrong, for each of both.
    margin : float
        In [0, 0.2]: differences up to this are no difference.
    """

    alpha: float = 0.01
    margin: float = 0.0
    _evidence: Evidence = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_evidence", Evidence(LossBets(self.margin), self.alpha))

    @property
    def threshold_log10(self) -> float:
        """log10(1/α): a claim from here on."""
        return self._evidence.threshold_log10

    def start(self) -> ComparisonState:
        """Nothing counted."""
        return ComparisonState(self._evidence.start(), self._evidence.start())

    def update(
        self,
        state: ComparisonState,
        incumbent_loss: ArrayLike,
        candidate_loss: ArrayLike,
        *,
        order: OrderKeys | None = None,
        groups: ArrayLike | None = None,
        repeated: ArrayLike | None = None,
    ) -> ComparisonState:
        """The state after these labels.

        Parameters
        ----------
        state : ComparisonState
            Stays as it is.
        incumbent_loss, candidate_loss : array_like of shape (n,)
            In [0, 1], of the same rows.
        order, groups, repeated
            As in `CalibrationBets.factors`.

        Returns
        -------
        ComparisonState

        Raises
        ------
        InvalidInput
            Shapes differ, there are no rows, or a number lies outside its range.
        """
        incumbent = _losses(incumbent_loss, "incumbent_loss")
        candidate = _losses(candidate_loss, "candidate_loss")
        if candidate.shape != incumbent.shape:
            raise InvalidInput(
                f"candidate_loss must have shape {incumbent.shape}, got {candidate.shape}",
                field="candidate_loss",
            )
        counted = CountingOrder.of(
            incumbent.shape[0], order=order, groups=groups, repeated=repeated
        )
        bets, gain = LossBets(self.margin), incumbent - candidate
        return ComparisonState(
            self._evidence.update(state.better, bets.factors(gain, counted)),
            self._evidence.update(state.worse, bets.factors(-gain, counted)),
        )

    def better_log10(self, state: ComparisonState) -> float:
        """log10 of the evidence that the candidate's loss is lower."""
        return self._evidence.log10(state.better)

    def worse_log10(self, state: ComparisonState) -> float:
        """log10 of the evidence that the candidate's loss is higher."""
        return self._evidence.log10(state.worse)

    def verdict(self, state: ComparisonState) -> Literal["better", "worse", "undecided"]:
        """What may be claimed of the candidate now. Act on the first claim, and start again."""
        better, worse = self.better_log10(state), self.worse_log10(state)
        if max(better, worse) < self.threshold_log10:
            return "undecided"
        return "better" if better >= worse else "worse"


def _losses(values: ArrayLike, name: str) -> Array:
    losses = np.asarray(values, dtype=np.float64)
    if losses.ndim != 1 or losses.shape[0] < 1:
        raise InvalidInput(f"{name} must have shape (n,), got {losses.shape}", field=name)
    if not ((losses >= 0.0) & (losses <= 1.0)).all():
        raise InvalidInput(f"{name} must lie in [0, 1]", field=name)
    return losses
