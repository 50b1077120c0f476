"""Sequential comparison of a candidate with the live pair: a betting test on their losses.

For each counted label, d = loss of the incumbent − loss of the candidate, both in [0, 1] (the Brier
score of the top label: `top_label_brier`). Two claims are tested, "better" with +d and "worse" with
−d, each with the bets

    e = 1 + λ·(±d − margin),   λ ∈ {1, 2, 5, 10, 20, 40, 80} / 100,   in equal shares.

**Null hypothesis** of "better": E[d | all labels counted before] ≤ margin at every counted label.
For independent rows of one kind of traffic this says that the candidate is not better, on average,
by more than the margin. For "worse" the same holds with −d. **Guarantee**: a wrong claim is ever
made with probability α at most, for each of the two claims (`Evidence`). λ ≤ 0.8 keeps e positive,
whatever the losses.

The bets do not depend on the confidence of the row. Such bets could win more, but only against a
narrower null hypothesis: that the candidate is no better at *any* confidence. A candidate that is
better on a few rows and worse on most would then be promoted.

**What breaks the guarantee**: what breaks `CalibrationBets`; and a candidate that is better only at
one time of day is better at some labels, so the test may say "better". Nearly equal losses (both
confidences within one percentage point) need very many labels, whatever the test.

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

from trueprob.drift.alarm_statistics import Evidence
from trueprob.drift.bet_state import BetState
from trueprob.drift.counting_order import CountingOrder, Factors, OrderKeys
from trueprob.errors import InvalidDocument, InvalidInput
from trueprob.scores.confidence import checked_rows

__all__ = ["Comparison", "ComparisonState", "LossBets", "top_label_brier"]

Array = NDArray[np.float64]

STAKES: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # |±d − margin| ≤ 1.25 keeps e positive
MAX_MARGIN: Final = 0.2
MIXTURE: Final = "loss-1"


def top_label_brier(confidence: ArrayLike, correct: ArrayLike) -> Array:
    """Squared error (confidence − correct)² of each row, in [0, 1]."""
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
        """Name of the mixture; a state belongs to one mixture."""
        return MIXTURE

    @property
    def on_classes(self) -> bool:
        """False: the bets are on losses."""
        return False

    @property
    def weights(self) -> Array:
        """Share of the initial wealth of each bet."""
        return np.full(len(STAKES), 1.0 / len(STAKES))

    def factors(self, gain: Array, counted: CountingOrder) -> Factors:
        """Factors of the bets, for gains in [−1, 1]: one loss minus the other."""
        values = 1.0 + np.array(STAKES)[:, None] * (gain[counted.rows] - self.margin)
        return Factors(MIXTURE, counted.mean_factors(values))


@dataclass(frozen=True)
class ComparisonState:
    """State of `Comparison`: evidence for "better" and for "worse"."""

    better: BetState
    worse: BetState

    def to_dict(self) -> dict[str, Any]:
        """The state as plain JSON, for `from_dict`; floats are kept bit for bit."""
        return {"better": self.better.to_dict(), "worse": self.worse.to_dict()}

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> ComparisonState:
        """Read what `to_dict` wrote.

        Raises
        ------
        InvalidDocument
            The document is not a state.
        """
        states = [document.get(key) for key in ("better", "worse")]
        if not all(isinstance(state, dict) for state in states):
            raise InvalidDocument("state must hold better and worse")
        return cls(*(BetState.from_dict(state) for state in states if state is not None))


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
        In (0, 1): upper bound of the probability of ever making a wrong claim, for each of the
        two claims.
    margin : float
        In [0, 0.2]: mean differences of the loss up to this do not count.
    """

    alpha: float = 0.01
    margin: float = 0.0
    _evidence: Evidence = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_evidence", Evidence(LossBets(self.margin), self.alpha))

    @property
    def threshold_log10(self) -> float:
        """log10(1/α): a claim is made at this value."""
        return self._evidence.threshold_log10

    def start(self) -> ComparisonState:
        """The initial state."""
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
        """Count labels, given by the losses on their rows.

        Parameters
        ----------
        state : ComparisonState
            Not changed.
        incumbent_loss, candidate_loss : array_like of shape (n,)
            In [0, 1], of the same rows.
        order, groups, repeated
            As in `CalibrationBets.factors`.

        Returns
        -------
        ComparisonState
            The next state.

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
        """The claim about the candidate so far. Act on the first claim, then start again."""
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
