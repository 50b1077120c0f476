"""What must hold of a model's promotions and fits, whatever happened to the service."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from trueprob.client import Client, FitSummary, ModelDescription, PromotionSummary

__all__ = [
    "LEASE_SECONDS",
    "OPEN_STATES",
    "ended_fits",
    "fit_differences",
    "history_differences",
]

LEASE_SECONDS: Final = 50.0  # a killed process's fit is left to it so long, by a wrong clock too
OPEN_STATES: Final = frozenset({"queued", "running"})


def history_differences(
    seen: Sequence[PromotionSummary], history: Sequence[PromotionSummary], model: ModelDescription
) -> Iterable[str]:
    """A sentence for each thing that is wrong with the promotions, the oldest first.

    They must begin as they were seen before, have no gaps, and have what is live.
    """
    if [*history[: len(seen)]] != [*seen]:
        yield "the history of promotions is not the one that was seen before"
    if [row.revision for row in history] != list(range(1, len(history) + 1)):
        yield "the history of promotions has gaps"
    live = next((row for row in reversed(history) if row.revision == model.revision), None)
    if live is None or live.calibrator != model.calibrator:
        yield f"{model.calibrator} is live and was not promoted so"


def ended_fits(
    client: Client, model: str, seconds: float, states: Collection[str] = OPEN_STATES
) -> tuple[FitSummary, ...]:
    """All fits, once none is in one of the states, or after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        fits = client.fits(model)
        if all(fit.state not in states for fit in fits) or time.monotonic() > deadline:
            return fits
        time.sleep(0.2)


def fit_differences(
    fits: Iterable[FitSummary], states: Collection[str] = OPEN_STATES
) -> Iterable[str]:
    """A sentence for each fit that is stuck in one of the states, or failed of itself."""
    for fit in fits:
        if fit.state in states:
            yield f"fit {fit.fit} is still {fit.state}"
        # A fit is given up when the service has ended several times during it.
        if fit.state == "failed" and "times during this fit" not in (fit.error or ""):
            yield f"fit {fit.fit}: {fit.error}"
