"""The two statistics that raise alarms, valid however often you look.

**Evidence** of miscalibration since the start:

    wealth_n = Σ_j w_j Π_{i ≤ n} e_ij

for the factors e_ij of bet j at unit i and the weights w_j of the mixture. Under the null
hypothesis of the bets the wealth is a non-negative supermartingale that starts at 1, so by Ville's
inequality

    P(wealth ever reaches 1/α) ≤ α,

whatever the sample size and however often the wealth is read: a calibrated model ever raises the
alarm with probability α at most. Evidence answers "has the model been miscalibrated since the start
(the promotion)?". It is slow to notice a late change, because bets that lost during a long
calibrated period must first win that back; use `ChangeDetector` for changes.

**Change**, which notices a recent loss of calibration:

    M_j ← (M_j + 1)·e_j,   M = Σ_j w_j (M_j − idle_j),   an alarm when M ≥ A

where idle_j is the number of labels since e_j last differed from 1. M_j is the Shiryaev–Roberts
sum: the total wealth of bets that started at each earlier label. So a change after a long
calibrated period meets bets that start then and have not lost anything yet. M returns to 0 after
an acknowledged alarm.

Under the null hypothesis E[Σ w_j M_j | past] grows by at most 1 per label. So this sum minus the
number of labels is a supermartingale, and because M is at most the sum
- the mean number of labels until a false alarm is at least A (optional stopping: A ≤ E[M_T] ≤
  E[T]);
- P(a false alarm within n labels) ≤ n/A (the sum plus the number of labels still to come is a
  non-negative supermartingale that starts at n: Ville).

A label here is a counted unit: a row, or a group of rows. What breaks the guarantee of the bets
breaks this one. Reading M only after whole requests can only lengthen the time to an alarm.

Why idle_j is subtracted: a bet on a range of confidence without rows gains 1 per label although it
wins nothing. In the textbook sum it would raise the alarm alone after A / w_j labels. Here its
gains count as soon as it wins something.

**Classes.** Bets on each predicted class c of k (`CalibrationBets.class_tolerance`) have a wealth
W_c, the mean of four bets on the rows of that class, and sums M_c,j. With W and M from above,

    evidence = ½·W + ¼·Π_c (1 − 1/k + W_c/k) + ¼·Π_c W_c
    change = ½·M + ¼·Σ_c mean_j M_c,j + ¼·M_learned,   M_c,j ← (M_c,j + 1)·e_j on rows of class c.

The first product finds one bad class, the second many classes with small errors. The learned bet
adds to the logit of p the shift clip(R_c / (N_c + 2), ±2), with R_c = Σ (y − p) and
N_c = Σ p(1 − p), discounted by 0.99 a row of the class; it learns after every 64 counted units,
whatever the requests are. These bets add 1 only where e_j ≠ 1, so they need no idle_j. The weighted
sums keep both promises.

References
----------
Ville, "Étude critique de la notion de collectif" (1939); Ramdas, Grünwald, Vovk and Shafer,
"Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38 (2023),
arXiv:2210.01948, section 2 (Ville's inequality, mixtures). Shin, Ramdas and Rinaldo, "E-detectors:
a nonparametric framework for sequential change detection", NEJSDS (2023), arXiv:2203.03532,
section 2: e-detectors, the e-SR procedure, its average run length, mixtures. Pollak, "Optimal
detection of a change in distribution", Annals of Statistics 13 (1985).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from trueprob.drift.bet_state import BetState, ClassStates
from trueprob.drift.calibration_bets import CLASS_ODDS, CalibrationBets, learned_factors
from trueprob.drift.counting_order import ClassRows, Factors
from trueprob.errors import InvalidInput

__all__ = ["Bets", "ChangeDetector", "Evidence"]

Array = NDArray[np.float64]

EVIDENCE: Final = "evidence"  # names of the statistics in a state
CHANGE: Final = "change"
PARTS: Final = np.array([0.5, 0.25, 0.25])  # shares of all rows, and of two bets on classes
N_CLASS_BETS: Final = 2 * len(CLASS_ODDS)
BLAMED: Final = 10.0  # wealth of a class, or inverse share of M, from which it is named
LEARN_EVERY: Final = 64  # units; the learned bet changes between them, whatever the requests are
DISCOUNT: Final = 0.99  # of what it has learned about a class, a unit of that class
MAX_SHIFT: Final = 2.0  # of a logit
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

    @property
    def on_classes(self) -> bool:
        """Whether there are also bets on single classes."""
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
        return BetState(EVIDENCE, self.bets.mixture, 0, (0.0,) * self.bets.weights.shape[0])

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
        values = _checked_factors(factors, self.bets)
        logs = state.logs_for(EVIDENCE, self.bets.mixture, values.shape[0])
        for start in range(0, values.shape[1], BLOCK):
            logs = logs + np.log(values[:, start : start + BLOCK].prod(axis=1))
        classes = state.classes
        if factors.classes is not None:
            classes = _class_wealth(classes, factors.classes)
        return state.advanced(logs, factors, classes=classes)

    def log10(self, state: BetState) -> float:
        """log10 of the wealth; 0 at the start."""
        weights = self.bets.weights
        logs = state.logs_for(EVIDENCE, self.bets.mixture, weights.shape[0])
        if not self.bets.on_classes:
            return _log_sum(logs, weights) / math.log(10.0)
        products = [0.0, 0.0]
        if state.classes is not None:
            k = state.classes.n_classes
            wealth = _wealth_of_classes(state.classes)[1]
            sparse = np.logaddexp(math.log1p(-1.0 / k), wealth - math.log(k))
            products = [float(sparse.sum()), float(wealth.sum())]
        parts = np.array([_log_sum(logs, weights), *products])
        return _log_sum(parts, PARTS) / math.log(10.0)

    def worst_class(self, state: BetState) -> int | None:
        """The class with the most evidence against it; None if there is little against any."""
        if state.classes is None or not state.classes.ids:
            return None
        ids, wealth = _wealth_of_classes(state.classes)
        return int(ids[wealth.argmax()]) if wealth.max() >= math.log(BLAMED) else None

    def alarm(self, state: BetState) -> bool:
        """Whether the wealth has reached 1/α.

        Read it after the labels of a whole request are counted. The wealth may fall again later,
        so store that the alarm was raised.
        """
        return self.log10(state) >= self.threshold_log10


@dataclass(frozen=True)
class ChangeDetector:
    """Detects that calibration has just been lost (Shiryaev–Roberts e-detector).

        change = ChangeDetector(CalibrationBets(tolerance=0.02), run_length=100_000)
        state = change.start()
        state = change.update(state, change.bets.factors(confidence, correct))
        if change.alarm(state):
            state = change.start()

    Attributes
    ----------
    bets : Bets
        The bets, which define the null hypothesis.
    run_length : float
        A, above 1: lower bound of the mean number of labels until a false alarm.
    """

    bets: Bets = field(default_factory=CalibrationBets)
    run_length: float = 100_000.0

    def __post_init__(self) -> None:
        if not 1.0 < self.run_length < math.inf:
            raise InvalidInput(
                f"run_length must be finite and above 1, got {self.run_length}",
                field="run_length",
            )

    @property
    def threshold_log10(self) -> float:
        """log10(A): the alarm is raised at this value."""
        return math.log10(self.run_length)

    def start(self) -> BetState:
        """The initial state, M = 0; also the state after an acknowledged alarm."""
        n_bets = self.bets.weights.shape[0]
        return BetState(CHANGE, self.bets.mixture, 0, (0.0,) * n_bets, (0,) * n_bets)

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
        values = _checked_factors(factors, self.bets)
        logs = state.logs_for(CHANGE, self.bets.mixture, values.shape[0])
        for start in range(0, values.shape[1], BLOCK):
            # Wealth at the end of the block, of a bet started at each label; logs are log(1 + M).
            block = values[:, start : start + BLOCK]
            since = np.cumprod(block[:, ::-1], axis=1)[:, ::-1]
            with np.errstate(divide="ignore"):  # log 0 where the block is one label
                begun = np.log(since[:, 1:].sum(axis=1))
            logs = np.logaddexp(0.0, np.logaddexp(logs + np.log(since[:, 0]), begun))
        classes = state.classes
        if factors.classes is not None:
            classes = _class_sums(classes, factors.classes)
        return state.advanced(logs, factors, _idle(np.array(state.idle), values), classes)

    def log10(self, state: BetState) -> float:
        """log10 of M, at least 0: M starts at 0, and values below 1 mean nothing."""
        weights = self.bets.weights
        logs = state.logs_for(CHANGE, self.bets.mixture, weights.shape[0])
        largest = float(logs.max())
        not_won = np.exp(-largest) * (1.0 + np.array(state.idle))
        total = float(weights @ (np.exp(logs - largest) - not_won))
        log_sum = largest + math.log(total) if total > 0.0 else -math.inf
        if self.bets.on_classes:
            parts = [log_sum, -math.inf, -math.inf]
            if state.classes is not None:
                sums = _sums_of_classes(state.classes)[1]
                parts[1:] = [float(np.logaddexp.reduce(sums)), state.classes.learned_log]
            log_sum = _log_sum(np.array(parts), PARTS)
        return max(log_sum / math.log(10.0), 0.0)

    def worst_class(self, state: BetState) -> int | None:
        """The class with the largest sum; None if no class has a tenth of M, or of A if M > A."""
        if state.classes is None or not state.classes.ids:
            return None
        ids, sums = _sums_of_classes(state.classes)
        enough = min(self.log10(state), self.threshold_log10) * math.log(10.0) - math.log(BLAMED)
        share = float(sums.max()) + math.log(PARTS[1])
        return int(ids[sums.argmax()]) if share >= enough else None

    def alarm(self, state: BetState) -> bool:
        """Whether M has reached A; read it after the labels of a whole request are counted."""
        return self.log10(state) >= self.threshold_log10


def _checked_factors(factors: Factors, bets: Bets) -> Array:
    """The values of factors; InvalidInput if they belong to other bets."""
    if factors.mixture != bets.mixture or factors.values.shape[0] != bets.weights.shape[0]:
        raise InvalidInput(
            f"factors must be of {bets.mixture}, got {factors.mixture}", field="factors"
        )
    return factors.values


def _log_sum(logs: Array, weights: Array) -> float:
    """The logarithm of Σ w exp(logs), without overflow; −inf when every term is 0."""
    largest = float(logs.max())
    if largest == -math.inf:
        return -math.inf
    return largest + math.log(float(weights @ np.exp(logs - largest)))


def _idle(before: NDArray[np.int64], values: Array) -> NDArray[np.int64]:
    """Units since the factor of each bet last differed from 1, after these factors."""
    n = values.shape[1]
    if n == 0:
        return before
    active = values[:, ::-1] != 1.0
    since = np.where(active.any(axis=1), active.argmax(axis=1), before + n)
    return np.asarray(since, dtype=np.int64)


def _class_wealth(before: ClassStates | None, rows: ClassRows) -> ClassStates:
    """Evidence: the wealth of each class, after these rows."""
    ids, numbers, index = _extended(before, rows, width=N_CLASS_BETS, start=0.0)
    logs = np.log(rows.values)
    for bet in range(N_CLASS_BETS):
        numbers[:, bet] += np.bincount(index, weights=logs[bet], minlength=len(ids))
    return ClassStates(rows.n_classes, ids.astype("<i4").tobytes(), numbers.astype("<f8").tobytes())


def _class_sums(before: ClassStates | None, rows: ClassRows) -> ClassStates:
    """Change: M of each class and of the learned bet, after these rows."""
    ids, numbers, index = _extended(before, rows, width=N_CLASS_BETS + 3, start=-math.inf)
    if index.size:
        by_class = np.argsort(index, kind="stable")
        values = rows.values[:, by_class]
        present, starts = np.unique(index[by_class], return_index=True)
        ends = np.append(starts[1:], index.size)
        running = np.cumsum(np.log(values), axis=1)
        last = np.repeat(running[:, ends - 1], ends - starts, axis=1)
        since = last - running + np.log(values)  # of a bet that starts at this unit
        begun = np.logaddexp.reduceat(np.where(values == 1.0, -math.inf, since), starts, axis=1)
        earlier = numbers[present, :N_CLASS_BETS] + since[:, starts].T
        numbers[present, :N_CLASS_BETS] = np.logaddexp(earlier, begun.T)
    learned_log, pending = (
        (-math.inf, 0) if before is None else (before.learned_log, before.pending)
    )
    if index.size:
        shift = _learned_shifts(numbers, index, rows, pending)
        e = rows.unit_means(learned_factors(rows, np.repeat(shift, rows.sizes)))
        since = np.cumsum(np.log(e)[::-1])[::-1]
        new = np.where(e == 1.0, -math.inf, since)
        learned_log = float(np.logaddexp.reduce(np.append(new, learned_log + since[0])))
        pending = (pending + index.size) % LEARN_EVERY
    table = numbers.astype("<f8").tobytes()
    return ClassStates(rows.n_classes, ids.astype("<i4").tobytes(), table, learned_log, pending)


def _extended(
    before: ClassStates | None, rows: ClassRows, *, width: int, start: float
) -> tuple[NDArray[np.int64], Array, NDArray[np.int64]]:
    """Classes and numbers with the new classes of these rows, and the position of each unit's."""
    known, old = np.zeros(0, np.int64), np.zeros((0, width))
    if before is not None:
        if before.n_classes != rows.n_classes:
            raise InvalidInput(
                f"n_classes must be {before.n_classes} as before, got {rows.n_classes}",
                field="n_classes",
            )
        known, old = before.arrays(width)
    ids = np.union1d(known, rows.of_unit)
    numbers = np.zeros((len(ids), width))
    numbers[:, :N_CLASS_BETS] = start
    numbers[np.searchsorted(ids, known)] = old
    return ids, numbers, np.searchsorted(ids, rows.of_unit)


def _learned_shifts(
    numbers: Array, index: NDArray[np.int64], rows: ClassRows, pending: int
) -> Array:
    """Shifts of the learned bet for each unit, from the units before; learns in place."""
    n_classes, n = numbers.shape[0], index.size
    key = (pending + np.arange(n)) // LEARN_EVERY * n_classes + index  # of block and class
    present, position, counts = np.unique(key, return_inverse=True, return_counts=True)
    later = np.empty(n)  # units of the same block and class
    later[np.argsort(key, kind="stable")] = np.repeat(np.cumsum(counts), counts) - 1 - np.arange(n)
    weight, kept = DISCOUNT**later, DISCOUNT**counts
    added = [
        np.bincount(position, weights=weight * rows.unit_means(values))
        for values in (rows.y - rows.p, rows.p * (1.0 - rows.p))
    ]
    residuals, variances, shifts = numbers[:, -3], numbers[:, -2], numbers[:, -1]
    found = np.empty(n)
    ends = np.append(np.arange(LEARN_EVERY - pending, n, LEARN_EVERY), n)
    firsts = np.searchsorted(present, np.arange(ends.size + 1) * n_classes)
    start = 0
    for block, end in enumerate(ends.tolist()):
        found[start:end] = shifts[index[start:end]]
        groups = slice(firsts[block], firsts[block + 1])
        of = present[groups] - block * n_classes
        residuals[of] = kept[groups] * residuals[of] + added[0][groups]
        variances[of] = kept[groups] * variances[of] + added[1][groups]
        if (pending + end) % LEARN_EVERY == 0:
            np.clip(residuals / (variances + 2.0), -MAX_SHIFT, MAX_SHIFT, out=shifts)
        start = end
    return found


def _wealth_of_classes(classes: ClassStates) -> tuple[NDArray[np.int64], Array]:
    ids, logs = classes.arrays(N_CLASS_BETS)
    return ids, np.logaddexp.reduce(logs, axis=1) - math.log(N_CLASS_BETS)


def _sums_of_classes(classes: ClassStates) -> tuple[NDArray[np.int64], Array]:
    ids, numbers = classes.arrays(N_CLASS_BETS + 3)
    logs = np.logaddexp.reduce(numbers[:, :N_CLASS_BETS], axis=1)
    return ids, logs - math.log(N_CLASS_BETS)
