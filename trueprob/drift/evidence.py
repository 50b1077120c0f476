"""Evidence of miscalibration since the start, valid however often you look.

    wealth_n = Σ_j w_j Π_{i ≤ n} e_ij

for the factors e_ij of bet j at unit i and the weights w_j of the mixture. Under the null
hypothesis of the bets the wealth is a non-negative supermartingale that starts at 1, so by Ville's
inequality

    P(wealth ever reaches 1/α) ≤ α,

whatever the sample size and however often the wealth is read: a calibrated model ever raises the
alarm with probability α at most. Evidence answers "has the model been miscalibrated since the start
(the promotion)?". It is slow to notice a late change, because bets that lost during a long
calibrated period must first win that back; use `ChangeDetector` for changes.

References
----------
Ville, "Étude critique de la notion de collectif" (1939); Ramdas, Grünwald, Vovk and Shafer,
"Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38 (2023),
arXiv:2210.01948, section 2 (Ville's inequality, mixtures).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from trueprob.drift.bet_state import BetState
from trueprob.drift.calibration_bets import CalibrationBets
from trueprob.drift.counting_order import Factors
from trueprob.errors import InvalidInput

__all__ = ["BLOCK", "Bets", "Evidence", "checked_factors", "log_mean"]

Array = NDArray[np.float64]

NAME: Final = "evidence"
BLOCK: Final = 200  # factors in [0.2, 21]: the product of 200 is a normal float64


class Bets(Protocol):
    """A mixture of bets: its name, and the share of the initial wealth of each bet."""

    @property
    def mixture(self) -> str:
        """Name of the mixture."""
        ...

    @property
    def weights(self) -> Array:
        """Shares; they sum to 1."""
        ...


@dataclass(frozen=True)
class Evidence:
    """Sequential test of miscalibration since the start.

        evidence = Evidence(CalibrationBets(tolerance=0.02), alpha=0.01)
        state = evidence.start()
        state = evidence.update(state, evidence.bets.factors(confidence, correct))
        evidence.alarm(state)

    Attributes
    ----------
    bets : Bets
        The bets, which define the null hypothesis.
    alpha : float
        In (0, 1): upper bound of the probability that a calibrated model ever raises an alarm.
    """

    bets: Bets = field(default_factory=CalibrationBets)
    alpha: float = 0.01

    def __post_init__(self) -> None:
        if not 0.0 < self.alpha < 1.0:
            raise InvalidInput(f"alpha must lie between 0 and 1, got {self.alpha}", field="alpha")

    @property
    def threshold_log10(self) -> float:
        """log10(1/α): the alarm is raised at this value."""
        return -math.log10(self.alpha)

    def start(self) -> BetState:
        """The initial state, wealth 1."""
        return BetState(NAME, self.bets.mixture, 0, (0.0,) * self.bets.weights.shape[0])

    def update(self, state: BetState, factors: Factors) -> BetState:
        """Count labels, given by their factors.

        Parameters
        ----------
        state : BetState
            Not changed.
        factors : Factors
            From `bets.factors`. One call or several calls give the same state.

        Returns
        -------
        BetState
            The next state.

        Raises
        ------
        InvalidInput
            The state or the factors belong to other bets.
        """
        values = checked_factors(factors, self.bets)
        logs = state.logs_for(NAME, self.bets.mixture, values.shape[0])
        for start in range(0, values.shape[1], BLOCK):
            logs = logs + np.log(values[:, start : start + BLOCK].prod(axis=1))
        return state.advanced(logs, factors)

    def log10(self, state: BetState) -> float:
        """log10 of the wealth; 0 at the start."""
        weights = self.bets.weights
        return log_mean(state.logs_for(NAME, self.bets.mixture, weights.shape[0]), weights)

    def alarm(self, state: BetState) -> bool:
        """Whether the wealth has reached 1/α.

        Read it after the labels of a whole request are counted. The wealth may fall again later,
        so store that the alarm was raised.
        """
        return self.log10(state) >= self.threshold_log10


def checked_factors(factors: Factors, bets: Bets) -> Array:
    """The values of factors; InvalidInput if they belong to other bets."""
    if factors.mixture != bets.mixture or factors.values.shape[0] != bets.weights.shape[0]:
        raise InvalidInput(
            f"factors must be of {bets.mixture}, got {factors.mixture}", field="factors"
        )
    return factors.values


def log_mean(logs: Array, weights: Array) -> float:
    """log10 of Σ w exp(logs), without overflow; −inf when every term is 0."""
    largest = float(logs.max())
    if largest == -math.inf:
        return -math.inf
    total = float(weights @ np.exp(logs - largest))
    return (largest + math.log(total)) / math.log(10.0)
