"""The error probability of going back by itself, on simulated promotions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trueprob.drift import top_label_brier
from trueprob_service.control.labels.shadow_scoring import ROLLBACK_MARGIN, comparison_of
from trueprob_service.control.store.shadows import ShadowRow
from trueprob_service.settings import Settings

Array = NDArray[np.float64]
LABELS, REQUEST = Settings().rollback_labels, 250


def watch(alpha: float) -> ShadowRow:
    """A row as a promotion starts it."""
    return ShadowRow(
        1, "m", 2, 1, "identity", "act", alpha, False, "running", 0, None, 0.0, 0.0, None, 0.0,
        None, None, "predecessor",
    )  # fmt: skip


def reverted(alpha: float, losses: Callable[[], tuple[Array, Array]]) -> bool:
    """Whether labels revert one promotion; ``losses`` are those of the live pair and before."""
    comparison = comparison_of(watch(alpha))
    state = comparison.start()
    for _ in range(LABELS // REQUEST):
        state = comparison.update(state, *losses())
        if (verdict := comparison.verdict(state)) != "undecided":
            return verdict == "better"
    return False


def test_a_promotion_at_the_margin_is_reverted_with_probability_alpha_at_most() -> None:
    """The worst case that is no reason to go back: the mean difference is just the margin."""
    rng = np.random.default_rng(5)
    alpha, promotions = 0.1, 300

    def losses() -> tuple[Array, Array]:
        difference = ROLLBACK_MARGIN + 0.05 * rng.choice([-1.0, 1.0], REQUEST)
        return 0.5 + difference, np.full(REQUEST, 0.5)

    wrong = sum(reverted(alpha, losses) for _ in range(promotions))
    # At most three standard errors of a binomial above alpha. A margin of 0 would revert most.
    assert wrong <= promotions * alpha + 3 * np.sqrt(promotions * alpha * (1 - alpha))


def calibrated_traffic(
    rng: np.random.Generator, live: float, before: float
) -> Callable[[], tuple[Array, Array]]:
    """Losses at two temperatures, on traffic for which temperature 1 is right."""

    def losses() -> tuple[Array, Array]:
        gap = np.abs(rng.normal(0.0, 3.0, REQUEST))
        correct = rng.random(REQUEST) < 1 / (1 + np.exp(-gap))
        first, second = (
            top_label_brier(1 / (1 + np.exp(-gap / each)), correct) for each in (live, before)
        )
        return first, second

    return losses


def test_equal_pairs_stay_and_clearly_worse_ones_go_back() -> None:
    rng = np.random.default_rng(6)
    # A refit of a calibrated pair: a temperature a few hundredths off.
    nearly = [
        reverted(0.01, calibrated_traffic(rng, 1.0 + rng.normal(0.0, 0.05), 1.0))
        for _ in range(200)
    ]
    assert sum(nearly) <= 2
    for temperature in (2.0, 5.0):
        worse = [reverted(0.01, calibrated_traffic(rng, temperature, 1.0)) for _ in range(50)]
        assert all(worse)
