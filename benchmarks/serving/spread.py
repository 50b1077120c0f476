"""Medians with their spread, and targets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

NOT_THERE = "–"


def number(value: float) -> str:
    """Three significant digits; whole numbers above a hundred."""
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"


def middle(values: Sequence[float]) -> str:
    """Median and, in brackets, the smallest and the largest."""
    if not values:
        return NOT_THERE
    low, high = number(min(values)), number(max(values))
    return f"{number(statistics.median(values))} [{low}, {high}]"


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ratio per round; rounds that one of the two lacks are left out."""
    return [a / b for a, b in zip(ours, theirs, strict=False)]


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median and extremes of the ratios of rounds."""
    values = ratios(ours, theirs)
    if not values:
        return NOT_THERE
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def judged(
    target: str, limit: float, reached: Mapping[str, float | None], *, at_most: bool = False
) -> str:
    """A line on whether each figure is within the limit, with those that are not."""
    measured = {name: value for name, value in reached.items() if value is not None}
    if not measured:
        return f"- {target}: not measured."
    missed = {
        name: value
        for name, value in measured.items()
        if (value > limit if at_most else value < limit)
    }
    if missed:
        named = ", ".join(f"{name} {value:.3g}" for name, value in missed.items())
        return f"- {target}: **not met** ({named})."
    worst = (max if at_most else min)(measured.items(), key=lambda item: item[1])
    return f"- {target}: met (nearest: {worst[0]} {worst[1]:.3g})."
